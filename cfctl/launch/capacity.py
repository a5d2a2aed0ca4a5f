"""Whether a device fits onto the host: its memory into what is free, its files onto the disk.

A launch that would overcommit ends in the kernel's out-of-memory killer, which takes some other device, minutes
later. So it is refused, with the numbers; ``--force`` launches all the same.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import gpu
from cfctl.errors import HostLacks
from cfctl.launch import observe, registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.launch.hostpackage import HostPackage
    from cfctl.launch.registry import Request

MIB = 1 << 20

#: Where the kernel tells of control groups (cgroups(7)); both versions may be mounted.
_CGROUPS = Path("/sys/fs/cgroup")

#: What the processes of an instance need beside the guest's own memory; measured with QEMU and Python's run_cvd.
OVERHEAD_MB = 64


@dataclass(frozen=True, slots=True)
class Room:
    """How much of something there is, and who says so."""

    bytes: int
    where: str


@dataclass(frozen=True, slots=True)
class Promise:
    """Memory that a running device may still take: what it was given and has not touched."""

    name: str
    bytes: int


# -- memory -----------------------------------------------------------------------------------------------


def guest_memory(request: Request, preset: int | None) -> int | None:
    """Return the memory of all instances in bytes; None if nobody says how much it is.

    :param preset: what an instance gets if nothing is asked for, in MiB.
    """
    values = registry.spread(request.memory_mb, request.num_instances)
    found = [value if value is not None else preset for value in values]
    if any(value is None for value in found):
        return None
    return sum(value for value in found if value is not None) * MIB


def preset(request: Request) -> str:
    """Return the launcher's preset that a request leads to: ``--config``, by default ``phone``."""
    given = [flag.lstrip("-").partition("=")[2] for flag in request.flags if flag.lstrip("-").startswith("config=")]
    return given[-1] if given else "phone"


def preset_memory(package: HostPackage, name: str) -> int | None:
    """Return what a preset of a host package gives an instance in MiB; None if it does not say.

    :param name: of several, joined with commas, nothing is known.
    """
    try:
        found = msgspec.json.decode((package.path / f"etc/cvd_config/cvd_config_{name}.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    value = found.get("memory_mb") if isinstance(found, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def free_memory(*, proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> Room:
    """Return the memory that can still be had: the host's, or less where a control group has a limit."""
    rooms = [Room(_available((proc / "meminfo").read_text()), "the host (MemAvailable)")]
    for group in _groups((proc / "self/cgroup").read_text(), cgroups):
        room = _room_in(group)
        if room is not None:
            rooms.append(Room(room, f"control group {group.relative_to(cgroups)}"))
    return min(rooms, key=lambda room: room.bytes)


def _available(meminfo: str) -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _groups(own: str, root: Path) -> Iterable[Path]:
    """Yield the control groups that limit this process' memory, from its own one to the topmost."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root
        elif "memory" in controllers.split(","):
            base = root / "memory"
        else:
            continue
        # In a container the path is the host's, and only the topmost is there to be seen.
        group = base / path.strip("/")
        while True:
            yield group
            if group == base or base not in group.parents:
                break
            group = group.parent


def _room_in(group: Path) -> int | None:
    """Return what is left of a control group's limit; None if it has none. Caches of files count as free."""
    for limit, usage, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = (group / limit).read_text().strip()
            if most == "max":
                return None
            used = int((group / usage).read_text())
            stat = re.search(rf"^{cached} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
            return int(most) - used + (int(stat[1]) if stat else 0)
        except (OSError, ValueError):
            continue
    return None


def promises(devices: Iterable[observe.Device]) -> list[Promise]:
    """Return what running devices were given and have not touched yet."""
    found = []
    for device in devices:
        resident = [_resident(p.pid) for p in device.processes if p.is_vm]
        given = guest_memory(device.record.request, None)
        if resident and given is not None and given > sum(resident):
            found.append(Promise(device.record.name, given - sum(resident)))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


def check_memory(need: int, room: Room, promised: Iterable[Promise]) -> None:
    """See that a device's memory fits.

    :raises HostLacks: if it does not, with the numbers.
    """
    promised = list(promised)
    left = room.bytes - sum(promise.bytes for promise in promised)
    if need <= left:
        return
    told = [f"It needs {_mib(need)}; {room.where} has {_mib(room.bytes)}."]
    told += [f"Device {promise.name} may still take {_mib(promise.bytes)} of that." for promise in promised]
    raise HostLacks(
        f"the device does not fit into memory: {_mib(need)} are needed, {_mib(max(left, 0))} are free",
        "\n".join(told),
        "Give it less (--memory-mb), stop other devices (cfctl ps), or launch all the same: --force",
    )


# -- disk -------------------------------------------------------------------------------------------------


def files(request: Request, *, memory: int | None, vm_manager: str) -> int:
    """Return what the files of a device may come to, in bytes.

    Overlays grow with what the guest writes, and nobody knows that. What is written for each instance at its launch
    is known: a copy of the data image, and, under upstream's QEMU, the guest's memory as a file (launcher.md 15).
    """
    images = Path(request.images or request.host_package)
    try:
        data = (images / "userdata.img").stat().st_size
    except OSError:
        data = 0
    return data * request.num_instances + (memory or 0 if vm_manager == gpu.QEMU and data else 0)


def free_disk(directory: Path) -> Room:
    """Return the room on the disk of a directory, or of the nearest one above that is there."""
    place = next(path for path in (directory, *directory.parents) if path.is_dir())
    status = os.statvfs(place)
    return Room(status.f_bavail * status.f_frsize, f"the disk of {place}")


def check_disk(need: int, room: Room) -> None:
    """See that a device's files fit.

    :raises HostLacks: if they do not, with the numbers.
    """
    if need > room.bytes:
        raise HostLacks(
            f"the device does not fit onto the disk: {_mib(need)} are needed, {_mib(room.bytes)} are free",
            f"Room on {room.where}; needed are a data image for each instance, and under QEMU a memory file.",
            "Make room there, or launch all the same: --force",
        )


def _mib(number: int) -> str:
    return f"{-(-number // MIB)} MiB"


def check(request: Request, package: HostPackage, devices_at: Path, *, vm_manager: str) -> None:
    """See that a device fits onto this host.

    :raises HostLacks: if it does not; nothing was made.
    """
    memory = guest_memory(request, preset_memory(package, preset(request)))
    check_disk(files(request, memory=memory, vm_manager=vm_manager), free_disk(devices_at))
    if memory is not None:
        need = memory + request.num_instances * OVERHEAD_MB * MIB
        check_memory(need, free_memory(), promises(observe.devices()))
