"""The small programs of a host package beside its launcher: found by name, run with what they look for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import process
from cfctl.errors import HostLacks
from cfctl.launch import runtime_config, wares

if TYPE_CHECKING:
    from cfctl.instance import Instance
    from cfctl.launch.registry import Record
    from cfctl.process import Result

#: Today's name first (launcher.md sections 1 and 5).
BUGREPORT = ("cvd_internal_host_bugreport", "cvd_host_bugreport")
DISPLAY = ("cvd_internal_display",)
POWERBTN = ("powerbtn_cvd",)
SNAPSHOT = ("snapshot_util_cvd",)


def find(record: Record, names: tuple[str, ...]) -> Path | None:
    """Return the first of a package's programs that it has."""
    places = (wares.present(record) / "bin" / name for name in names)
    return next((place for place in places if os.access(place, os.X_OK) and place.is_file()), None)


def require(record: Record, names: tuple[str, ...]) -> Path:
    """Return the first of a package's programs that it has.

    :raises HostLacks: if it has none of them.
    """
    found = find(record, names)
    if found is None:
        raise HostLacks(
            f"the host package of {record.name} has no {names[0]}",
            f"It was looked for in {wares.present(record)}/bin. Packages of another age or origin have it.",
        )
    return found


def run(
    record: Record, instance: Instance, tool: Path, *args: str | os.PathLike[str], seconds: float, check: bool = True
) -> Result:
    """Run a package's program for one instance.

    :raises CommandFailed: if it ends badly, unless ``check`` is false.
    :raises DeadlinePassed: when it was killed for taking too long.
    """
    env = dict(os.environ)
    # It would look for the sockets where the launcher did not put them.
    env.pop("TMPDIR", None)
    env |= {
        "HOME": os.fspath(record.home),
        "ANDROID_HOST_OUT": os.fspath(wares.present(record)),
        "ANDROID_SOONG_HOST_OUT": os.fspath(wares.present(record)),
        "CUTTLEFISH_INSTANCE": str(instance.number),
        "CUTTLEFISH_CONFIG_FILE": os.fspath(record.home / ".cuttlefish_config.json"),
        "LC_ALL": "C",
    }
    # Not inside a device, where upstream's stop would take it for one of the device's own.
    return process.run([tool, *args], timeout=seconds, env=env, cwd=Path("/"), success=(0,) if check else None)


def configuration(record: Record) -> dict[str, Any]:
    """Return the launcher's config; empty if there is none, or it cannot be read."""
    try:
        found = msgspec.json.decode(runtime_config.read_file(record.home / runtime_config.NAME) or b"")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def vm_manager(record: Record) -> str:
    """Return the VM manager that runs the device, as its config calls it; empty if it does not say."""
    found = configuration(record).get("vm_manager")
    return found if isinstance(found, str) else ""
