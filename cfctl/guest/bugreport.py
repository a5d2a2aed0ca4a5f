"""``cvd_internal_host_bugreport``: everything that tells what a device did, as one zip file."""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch, process
from cfctl.errors import CfctlError
from cfctl.guest import gflags, vm
from cfctl.guest.configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.instance import Instance

_FLAGS = {
    flag.name: flag
    for flag in (
        gflags.Flag("output", gflags.Kind.STRING, "host_bugreport.zip", used=True),
        gflags.Flag("include_adb_bugreport", gflags.Kind.BOOL, "false", used=False),
    )
}


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``cvd_internal_host_bugreport``; return the exit status. Works with devices that are down as well."""
    values = gflags.parse(_FLAGS, argv, program="cvd_internal_host_bugreport", environ=environ)
    output = Path(values["output"])
    try:
        configuration = Configuration.read(environ)
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, configuration.path, "cuttlefish_assembly/cuttlefish_config.json")
            _add(archive, configuration.places.assembly / "assemble_cvd.log", "cuttlefish_assembly/assemble_cvd.log")
            for instance in configuration.instances:
                _instance(archive, configuration, instance)
            archive.writestr("host.json", json.dumps(_host(), indent=1))
    except (CfctlError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"Saved to {output}")
    return 0


def _instance(archive: zipfile.ZipFile, configuration: Configuration, instance: Instance) -> None:
    logs = configuration.places.instance(instance) / "logs"
    for log in sorted(logs.iterdir()) if logs.is_dir() else []:
        if log.is_file() and not log.is_symlink():
            _add(archive, log, f"{instance.id}/{log.name}")
    socket = configuration.places.monitor(instance)
    running = {
        str(pid): " ".join(process.command_line(pid))
        for pid in process.pids()
        if process.environment(pid).get("CUTTLEFISH_INSTANCE") == str(instance.number)
    }
    status = {"monitor": str(socket), "listens": socket.exists(), "processes": running}
    archive.writestr(f"{instance.id}/status.json", json.dumps(status, indent=1))


def _host() -> dict[str, str]:
    found = {"kernel": Path("/proc/version").read_text().strip(), "memory": Path("/proc/meminfo").read_text()}
    with contextlib.suppress(CfctlError):
        found["qemu"] = process.run([vm.qemu(arch.host()), "--version"], timeout=10).stdout
    return found


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """Add a file that may be growing, or not be there."""
    with contextlib.suppress(FileNotFoundError):
        archive.writestr(name, path.read_bytes())
