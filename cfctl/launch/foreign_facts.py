"""What the kernel and the files say about devices that this user's cfctl did not make; nothing is sent to anybody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths, process
from cfctl.instance import MAX_INSTANCES
from cfctl.launch import procs, runtime_config
from cfctl.launch.foreign import SOCKET, Facts, Foreign, Process, find

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cfctl.launch.observe import Device
    from cfctl.launch.procs import Look
    from cfctl.launch.runtime_config import RuntimeConfig

#: The usual place of sockets says whose they are (launcher.md section 4).
_USUAL = re.compile(r".*/cf_avd_(?P<uid>\d{1,10})")

#: What has an instance number and no device yet: these take one, and fetch and assemble for minutes.
PREPARING = frozenset({"cvd", "acloud", "launch_cvd", "cvd_internal_start", "assemble_cvd", "fetch_cvd"})


def devices(own: Sequence[Device], at: Look) -> list[Foreign]:
    """Return the devices of this host that are not ``own``, at the moment ``at``."""
    holding = {number for device in own for number in device.record.numbers if _holds(device)}
    facts = gather(own, at, own_numbers=holding)
    found = find(facts, taken={device.name for device in own}, own_numbers=holding)
    return [_measured(device, at) for device in found]


def _holds(device: Device) -> bool:
    return bool(device.processes) or device.record.holds_numbers


def _measured(device: Foreign, at: Look) -> Foreign:
    if not device.processes:
        return device
    return replace(
        device,
        usage=procs.usage((p.pid, p.is_vm) for p in device.processes),
        ports=procs.ports_of((p.pid for p in device.processes), at.ports),
    )


def gather(own: Sequence[Device], at: Look, *, own_numbers: Collection[int] = ()) -> Facts:
    """Ask the kernel and the files about what is not ``own``.

    :param own_numbers: instance numbers that devices of ours hold.
    """
    ours = {one.pid for device in own for one in device.processes}
    found = []
    for seen in at.processes:
        if seen.pid not in ours and (uid := procs.owner(seen.pid)) is not None:
            # A container's device has a network and a cfctl of its own.
            if seen.is_core and not procs.same_place(seen.pid):
                continue
            found.append(Process(seen, uid))
    sockets = {path: _owner_of(path) for path in at.sockets if path.endswith("/launcher_monitor.sock")}
    locks = marked_numbers()
    return Facts(
        processes=tuple(found),
        sockets=sockets,
        locks={number: mark.uid for number, mark in locks.items()},
        held=frozenset(number for number, mark in locks.items() if mark.held),
        configs=_configs({p.home: p.uid for p in found if p.home and p.seen.is_core}),
        # Every command line of the host must be read for it.
        preparing=bool(set(locks) - set(own_numbers)) and is_preparing(),
    )


def _owner_of(path: str) -> int | None:
    match = SOCKET.fullmatch(path)
    usual = _USUAL.fullmatch(match["directory"]) if match else None
    try:
        return os.lstat(path).st_uid
    except (OSError, ValueError):
        return int(usual["uid"]) if usual else None


@dataclass(frozen=True, slots=True)
class Mark:
    """A lock file that says that its number is in use.

    :param uid: whose the file is.
    :param held: somebody holds the lock right now.
    """

    path: Path
    uid: int
    held: bool


def marked_numbers() -> dict[int, Mark]:
    """Return the instance numbers that some lock file says are in use."""
    found: dict[int, Mark] = {}
    for directory in paths.instance_lock_directories():
        try:
            names = os.listdir(directory)  # noqa: PTH208 (half the time)
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(r"local-instance-([1-9]\d{0,2})\.lock", name)
            if match is None or int(match[1]) > MAX_INSTANCES:
                continue
            mark = _mark(directory / name)
            if mark is not None and not (int(match[1]) in found and found[int(match[1])].held):
                found[int(match[1])] = mark
    return found


def _mark(path: Path) -> Mark | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if os.read(fd, 1) != b"I":
            return None
        # Whoever tries to take it in this moment would be refused for the mark anyway.
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Mark(path, os.fstat(fd).st_uid, held=True)
        return Mark(path, os.fstat(fd).st_uid, held=False)
    except OSError:
        return None
    finally:
        os.close(fd)


def is_preparing() -> bool:
    """Tell whether some launcher runs that may own a number without a device yet."""
    for pid in process.pids():
        argv = process.command_line(pid)
        if any(os.path.basename(word) in PREPARING for word in argv[:3]):  # noqa: PTH119 (a hot path)
            return True
    return False


def _configs(homes: Mapping[str, int]) -> dict[str, tuple[RuntimeConfig, int]]:
    """Return what launchers wrote down: in the homes that are given, in this user's, and in those that cvd makes."""
    places = {Path(home): uid for home, uid in homes.items() if home.startswith("/")}
    with contextlib.suppress(RuntimeError):
        places.setdefault(Path.home(), os.geteuid())
    for state in paths.cvd_state_directories():
        for home in state.glob("[0-9]*/[0-9]*/home"):
            with contextlib.suppress(OSError):
                places.setdefault(home, home.lstat().st_uid)
    found: dict[str, tuple[RuntimeConfig, int]] = {}
    roots = set()
    for home, uid in places.items():
        config = runtime_config.read(home / runtime_config.NAME)
        # cvd links the default group's files into the user's own HOME.
        if config is not None and config.instances and (config.root is None or config.root not in roots):
            found[os.fspath(home)] = (config, uid)
            roots.add(config.root)
    return found
