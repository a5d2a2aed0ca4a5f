"""A scope of systemd around a device: one name for all of its processes, and limits that hold for them together.

The launcher is started through ``systemd-run --scope``, which makes the scope, puts itself in it and becomes the
launcher: same process, same parent, same descriptors (the locks of the instance numbers go with it). One launcher
starts all instances of a device, so the scope is the device's, and its limits are the sums of its instances'.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.launch import capacity, registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.launch.registry import Record, Request

#: There while systemd is the first process (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")

#: For what an instance needs beside the guest: streamer, modem, bluetooth and more, of Android's host packages.
_BESIDE_MB = 1024
_BESIDE_CPUS = 2


def available(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a scope can be made: systemd runs, and there is a manager for this user."""
    if not _BOOTED.is_dir() or process.find("systemd-run") is None:
        return False
    return os.geteuid() == 0 or (Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent") / "systemd/private").exists()


def wrapped(argv: Sequence[str | os.PathLike[str]], record: Record, *, root: bool) -> list[str | os.PathLike[str]]:
    """Return the command that runs another in the scope of a device.

    :param root: by the system's manager, otherwise by the user's.
    """
    return [
        "systemd-run",
        *(() if root else ("--user",)),
        "--scope",
        "--quiet",
        # A scope that failed must not keep its name from the next one.
        "--collect",
        f"--unit={name(record)}",
        f"--description=cfctl device {record.name}",
        *(f"--property={limit}" for limit in limits(record.request)),
        "--",
        *argv,
    ]


def name(record: Record) -> str:
    """Return the name of a device's scope; each start has one of its own, as the old one may not be gone yet."""
    # A dash would make it a child of a slice in people's eyes, and is escaped by systemd's own rule (systemd-escape).
    escaped = re.sub(r"[^A-Za-z0-9_.]", lambda found: f"\\x{ord(found[0]):02x}", record.name)
    started = re.sub(r"\D", "", record.started_at or "")
    return f"cfctl-device-{escaped}-{started or 0}.scope"


def limits(request: Request) -> list[str]:
    """Return what bounds a device (systemd.resource-control(5)), as far as it is known what it needs."""
    found = ["TasksMax=infinity"]
    memory = capacity.guest_memory(request, None)
    if memory is not None:
        found.append(f"MemoryMax={memory + request.num_instances * _BESIDE_MB * capacity.MIB}")
    cpus = registry.spread(request.cpus, request.num_instances)
    known = [count for count in cpus if count is not None]
    if len(known) == len(cpus):
        found.append(f"CPUQuota={100 * (sum(known) + _BESIDE_CPUS * len(cpus))}%")
    return found
