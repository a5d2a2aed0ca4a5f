"""Host packages of upstream's three generations: small programs with their names, files, sockets and manners.

Constructed from launcher.md (sections 1 to 6, 15 and 16); that a launcher looks at its parent's name, and what its
help looks like, was recorded from Debian's cuttlefish-base 1.57. One set of programs plays all three; what differs
stands in the package's ``etc/standin.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cfctl.launch.generation import Generation

_HERE = Path(__file__).parent

#: In all of them.
_FLAGS = [
    "base_instance_num",
    "cpus",
    "daemon",
    "gpu_mode",
    "memory_mb",
    "num_instances",
    "system_image_dir",
    "undefok",
]

#: What makes a generation one.
_ABOUT: dict[Generation, dict[str, Any]] = {
    # Spring of 2023: the socket in the instance's directory, 0.0.0.0 as serial, numbers only in a row, and the
    # question on the terminal if a flag is missing.
    Generation.CLASSIC: {
        "flags": [*_FLAGS, "report_anonymous_usage_stats", "start_webrtc_sig_server"],
        "socket": "instance",
        "adb_host": "0.0.0.0",
        "help": "text",
    },
    # 2024: cvd beside it, sockets in /tmp.
    Generation.DATABASE: {
        "flags": [*_FLAGS, "instance_nums", "report_anonymous_usage_stats", "x_res"],
        "socket": "tmp",
        "adb_host": "0.0.0.0",
        "help": "xml",
    },
    # 1.57.
    Generation.FORWARDING: {
        "flags": [*_FLAGS, "instance_nums", "use_cvdalloc", "x_res"],
        "socket": "tmp",
        "adb_host": "127.0.0.1",
        "help": "xml",
    },
}

_NAMES = {
    Generation.CLASSIC: {"launch_cvd": "start.py", "stop_cvd": "stop.py"},
    Generation.DATABASE: {"cvd_internal_start": "start.py", "cvd_internal_stop": "stop.py", "cvd": "cvd.py"},
    Generation.FORWARDING: {"cvd_internal_start": "forward.py", "cvd_internal_stop": "stop.py", "cvd": "cvd.py"},
}


def write(directory: Path, generation: Generation, **different: Any) -> Path:
    """Write a host package of a generation into ``directory``; return it.

    :param different: what is to differ: ``vandal`` writes wherever a launcher could, ``cvd_stop`` is what
        ``cvd stop`` does: ``stops``, ``lies`` (says so, and does nothing) or ``refuses``.
    """
    programs = directory / "bin"
    programs.mkdir(parents=True)
    shared = {"assemble_cvd": "assemble.py", "run_cvd": "run.py", "start.py": "start.py"}
    for name, source in {**shared, **_NAMES[generation]}.items():
        text = (_HERE / source).read_text()
        (programs / name).write_text(f"#!{Path(sys.executable).resolve()} -I\n{text}")
        (programs / name).chmod(0o755)
    if generation is not Generation.CLASSIC:
        (programs / "launch_cvd").symlink_to("cvd_internal_start")
    (directory / "etc").mkdir()
    (directory / "etc/standin.json").write_text(json.dumps(_ABOUT[generation] | different))
    (directory / "usr/share/webrtc").mkdir(parents=True)
    (directory / "usr/share/webrtc/client.html").write_text("<html></html>")
    return directory
