"""The probe and what becomes of its children: they answer, crash, hang or talk nonsense."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.gpu import answers, decide, report
from cfctl.gpu import probe as prober
from cfctl.gpu.child import Ended
from cfctl.gpu.probe import Probe
from tests.gpu.machines import MODERN

VULKAN: dict[str, Any] = {
    "library": True,
    "devices": [
        {
            "name": "NVIDIA A40",
            "type": "discrete",
            "vendor_id": 0x10DE,
            "driver_version": 550 << 22 | 54 << 14 | 14 << 6,
            "api_version": 1 << 22 | 3 << 12 | 277,
            "graphics": True,
        }
    ],
    "error": None,
}
EGL: dict[str, Any] = {
    "library": True,
    "displays": [
        {
            "display": "default",
            "error": "eglInitialize: EGL_NOT_INITIALIZED",
            "vendor": "",
            "renderer": "",
            "version": "",
        },
        {
            "display": "device 0",
            "error": None,
            "vendor": "NVIDIA",
            "renderer": "NVIDIA A40",
            "version": "OpenGL ES 3.2",
        },
    ],
    "error": None,
}


def says(document: object) -> str:
    """Return a stand-in program that prints the document."""
    return f"import json\nprint(json.dumps({document!r}))\n"


def ask(directory: Path, *, vulkan: str = says(VULKAN), egl: str = says(EGL), deadline: float = 15) -> Probe:
    """Probe with stand-ins for the two children, on an empty host."""
    programs = {"Vulkan": directory / "vulkan.py", "EGL": directory / "egl.py"}
    programs["Vulkan"].write_text(vulkan)
    programs["EGL"].write_text(egl)
    return prober.probe(directory, programs=programs, deadline=deadline)


def test_answers(tmp_path: Path) -> None:
    found = ask(tmp_path)
    (device,) = found.vulkan.devices
    assert (device.name, device.driver_version, device.api_version) == ("NVIDIA A40", "550.54.14", "1.3.277")
    assert [display.renderer for display in found.egl.displays] == ["NVIDIA A40"]
    assert (found.vulkan.problem, found.egl.problem) == (None, None)
    assert decide.decide(found, guest=MODERN).mode == "gfxstream"


def test_what_a_driver_prints_does_not_matter(tmp_path: Path) -> None:
    noise = "import sys\nprint('MESA: warning', file=sys.stderr, flush=True)\nprint('{\"no\": 1}', end='\\n')\n"
    assert ask(tmp_path, vulkan=noise + says(VULKAN)).vulkan.devices


@pytest.mark.parametrize(("signal", "name"), [(11, "SIGSEGV"), (6, "SIGABRT"), (4, "SIGILL")])
def test_a_crash_is_a_finding(tmp_path: Path, signal: int, name: str) -> None:
    found = ask(tmp_path, vulkan=f"import os\nos.kill(os.getpid(), {signal})\n")
    assert found.vulkan.problem == f"the Vulkan driver crashed: signal {signal} ({name})"
    assert found.vulkan.library
    assert found.egl.displays, "the other stack is not hurt"
    assert found.vulkan.problem in report.findings(found)


def test_a_hang_ends_at_the_deadline(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    stubborn = (
        "import os, pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "helper = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}} {{helper.pid}}')\n"
        "time.sleep(60)\n"
    )
    started = time.monotonic()
    found = ask(tmp_path, egl=stubborn, deadline=3.0)
    assert time.monotonic() - started < 50
    assert found.egl.problem == "the EGL driver hangs: it gave no answer within 3 s"
    assert found.vulkan.devices, "the other stack is not hurt"
    for pid in pid_file.read_text().split():
        assert gone(int(pid)), "the child and what it started are killed"


def gone(pid: int) -> bool:
    """Tell whether the process ends soon; it may be a zombie that init has not taken yet."""
    for _ in range(3000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_both_children_share_one_deadline(tmp_path: Path) -> None:
    sleeper = "import time\ntime.sleep(60)\n"
    started = time.monotonic()
    ask(tmp_path, vulkan=sleeper, egl=sleeper, deadline=6.0)
    # One of its own each would make twelve.
    assert time.monotonic() - started < 11


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("raise SystemExit(3)", "the EGL driver ended with status 3 and no answer: it printed nothing"),
        ("print('hello')", "the EGL driver ended with status 0 and no answer: hello"),
        ("raise OSError('odd')", "the EGL driver ended with status 1 and no answer: OSError: odd"),
    ],
)
def test_nonsense_is_a_finding(tmp_path: Path, program: str, problem: str) -> None:
    assert ask(tmp_path, egl=program).egl.problem == problem


@pytest.mark.parametrize(
    "document",
    [
        {"library": True},
        {"library": True, "devices": None, "displays": 7, "error": None},
        {"library": True, "devices": [1], "displays": ["x"], "error": None},
        {"library": True, "devices": [{"name": "x"}], "displays": [{"error": None}], "error": None},
        {"library": True, "devices": [{**VULKAN["devices"][0], "vendor_id": "x"}], "displays": {}, "error": []},
    ],
)
def test_an_answer_of_another_shape_is_a_finding(tmp_path: Path, document: dict[str, object]) -> None:
    found = ask(tmp_path, vulkan=says(document), egl=says(document))
    assert found.vulkan.problem == "the Vulkan driver's answer is damaged"
    assert found.egl.problem
    assert decide.decide(found, guest=MODERN).mode == "guest_swiftshader"


def test_an_answer_nested_too_deeply_is_a_finding(tmp_path: Path) -> None:
    assert "ended with status 0 and no answer" in (ask(tmp_path, vulkan="print('[' * 100000)").vulkan.problem or "")


@pytest.mark.parametrize("more", ["", "    pass\nimport sys\nsys.exit(0)\n"])
def test_a_flood_does_not_fill_the_memory(tmp_path: Path, more: str) -> None:
    endless = (
        "while True:\n    print('x' * 1000000)\n"
        if not more
        else f"for _ in range(20):\n    print('x' * 1000000)\n{more}"
    )
    found = ask(tmp_path, vulkan=endless, deadline=60)
    assert found.vulkan.problem == "the Vulkan driver printed more than 4 MiB"
    assert found.egl.displays, "the other stack is not hurt"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just("error"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*VULKAN, *EGL, *VULKAN["devices"][0]]), inner, max_size=6)
        ),
        max_leaves=12,
    )
)
def test_whatever_a_child_says(document: object) -> None:
    whole = {"library": True, "error": None, "devices": document, "displays": document}
    for text in (document, whole):
        ended = Ended(None, 0, json.dumps(text))
        assert answers.vulkan(ended) is not None
        assert answers.egl(ended) is not None


def test_missing_libraries(tmp_path: Path) -> None:
    missing = {"library": False, "devices": [], "displays": [], "error": "libX.so: cannot open shared object file"}
    found = ask(tmp_path, vulkan=says(missing), egl=says(missing))
    assert (found.vulkan.library, found.egl.library) == (False, False)
    assert decide.decide(found).mode == "guest_swiftshader"


def test_no_device_is_a_problem(tmp_path: Path) -> None:
    found = ask(tmp_path, vulkan=says({**VULKAN, "devices": []}), egl=says({**EGL, "displays": EGL["displays"][:1]}))
    assert found.vulkan.problem == "the Vulkan loader lists no device"
    assert found.egl.problem == "no EGL display can be used: eglInitialize: EGL_NOT_INITIALIZED"


def test_no_descriptors_and_no_children_are_left(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    before = descriptors()
    ask(tmp_path, egl="import time\ntime.sleep(60)\n", deadline=0.2)
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_children_get_the_given_environment(tmp_path: Path) -> None:
    env: Mapping[str, str] = {"LIBGL_ALWAYS_SOFTWARE": "1"}
    (tmp_path / "egl.py").write_text("import os\nprint(sorted(os.environ))\n")
    (tmp_path / "vulkan.py").write_text(says(VULKAN))
    programs = {"Vulkan": tmp_path / "vulkan.py", "EGL": tmp_path / "egl.py"}
    found = prober.probe(tmp_path, programs=programs, env=env)
    assert "LIBGL_ALWAYS_SOFTWARE" in (found.egl.problem or "")
    assert "PATH" not in (found.egl.problem or "")
    assert found.facts.environment == (("LIBGL_ALWAYS_SOFTWARE", "1"),)
