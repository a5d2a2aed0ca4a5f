"""What dead devices have left behind, and how it goes away: processes, numbers, sockets, half-made directories.

First everything is found (:func:`find`), so that it can be shown; each thing is looked at once more, alone, right
before it is removed (:func:`remove`). What lives is never touched, nor what is another user's (unless root asks), nor
a directory without our mark. The disks and logs of a device stay: ``cfctl rm`` removes those.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cfctl import locks, paths, process, signals, steps
from cfctl.errors import CfctlError, NoSuchDevice, NumberTaken
from cfctl.hostres import tap
from cfctl.instance import Instance
from cfctl.launch import foreign_facts, numbers, observe, procs, registry, stop
from cfctl.launch.foreign_facts import PREPARING
from cfctl.launch.procs import INSTANCE, MARK, Look, Seen, owner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cfctl.launch.observe import Device

#: What a launcher starts beside the supervisor and the VM (launcher.md section 12); nobody runs these by hand.
# fmt: off
_HELPERS = frozenset({
    "adb_connector", "automotive_vsock_proxy", "casimir", "casimir_control_server", "cf_vhost_user_input",
    "console_forwarder", "control_env_proxy_server", "cvdalloc", "echo_server", "gnss_grpc_proxy",
    "kernel_log_monitor", "log_tee", "logcat_receiver", "modem_simulator", "netsimd",
    "openwrt_control_server", "operator_proxy", "pica", "process_restarter", "rootcanal",
    "screen_recording_server", "secure_env", "sensors_simulator", "socket_vsock_proxy", "tcp_connector",
    "tombstone_receiver", "vhal_proxy_server", "vhost_device_vsock", "webRTC", "wmediumd",
})
# fmt: on

#: Directories that a verb makes and renames at once; older ones are a killed verb's.
_GRACE_S = 60.0

#: Between TERM and KILL for helpers without a supervisor.
_TERM_S = 3.0

#: Directories of sockets, with whose they are and of which instance (launcher.md section 4).
_PLACES = (
    ("cf_avd_*/cvd-*", re.compile(r"cf_avd_(?P<uid>\d{1,10})/cvd-(?P<number>[1-9]\d{0,2})"), 0),
    ("cf_env_*/env-*", re.compile(r"cf_env_(?P<uid>\d{1,10})/env-(?P<number>[1-9]\d{0,2})"), 0),
    # The vsock CID is the number and 2.
    ("vsock_*_*", re.compile(r"vsock_(?P<number>[1-9]\d{0,2})_(?P<uid>\d{1,10})"), 2),
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a dead device has left.

    :param kind: device (its record says it is up), processes, number, sockets or directory.
    :param object: what it is, for people.
    :param reason: why it is a leftover.
    :param device: the device of ours that left it; None if that is not known.
    :param path: sockets and directory: where.
    :param number: number: which.
    :param pids: processes: which.
    :param born: processes of no device of ours: the same, by what names each for ever.
    """

    kind: str
    object: str
    reason: str
    device: str | None = None
    path: Path | None = None
    number: int | None = None
    pids: tuple[int, ...] = ()
    born: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as the ``--json`` contract shows it (docs/schema/clean.json)."""
        return {
            "kind": self.kind,
            "object": self.object,
            "reason": self.reason,
            "device": self.device,
            "pids": list(self.pids),
        }


# -- finding -----------------------------------------------------------------------------------------------


def find(names: Sequence[str] = ()) -> list[Leftover]:
    """Return what is left over, of some devices of ours or of everything on this host.

    :raises NoSuchDevice: for a name that no device of ours has.
    """
    at = Look()
    own = observe.devices(at)
    for name in names:
        if all(device.name != name for device in own):
            raise NoSuchDevice(name, [device.name for device in own])
    found = [left for device in own if not names or device.name in names for left in _of_device(device)]
    if names:
        return found
    return [*found, *_of_others(own, at), *_directories()]


def _of_device(device: Device) -> Iterator[Leftover]:
    record = device.record
    listed = ", ".join(map(str, record.numbers))
    if registry.is_held(record):
        return
    if not device.processes:
        if record.holds_numbers and not device.state.is_up:
            why = f"nothing of it runs any more, yet instance {listed} is still marked as its own"
            if record.request.restart != registry.Restart.NO:
                why += f"; it counts as stopped then: not --restart but cfctl restart {device.name} boots it again"
            yield Leftover("device", f"device {device.name}", why, device.name)
    elif not any(_is_core(p.argv) for p in device.processes):
        names = ", ".join(sorted({PurePath(p.argv[0]).name for p in device.processes}))
        yield Leftover(
            "processes",
            f"{names} of device {device.name}",
            "its supervisor and its VM are dead",
            device.name,
            pids=tuple(p.pid for p in device.processes),
        )


def _is_core(argv: tuple[str, ...]) -> bool:
    """Tell whether a device lives, or is about to, as long as a process does."""
    return Seen(0, argv).is_core or any(PurePath(word).name in PREPARING for word in argv[:3])


def _of_others(own: Sequence[Device], at: Look) -> Iterator[Leftover]:
    """Yield what belongs to no device of ours."""
    others = foreign_facts.devices(own, at)
    living = {number for device in others if device.state.is_up for number in device.numbers}
    # What a device of ours holds is given back with the device.
    living |= {n for device in own if device.processes or device.record.holds_numbers for n in device.record.numbers}
    yield from _helpers(own, living, at)
    # A container has devices of its own, but may share these directories with us.
    living |= {seen.number for seen in at.processes if seen.is_core and seen.number is not None}
    if foreign_facts.is_preparing():
        # It may have a number, and sockets, of which nothing else tells.
        steps.note("A launcher is at work: instance numbers and sockets were not looked at.")
        return
    groups = {number for device in others if device.source == "cvd" for number in device.numbers}
    yield from _numbers(living | groups)
    yield from _sockets(living, at)


def _helpers(own: Sequence[Device], living: Collection[int], at: Look) -> Iterator[Leftover]:
    ours = {p.pid for device in own for p in device.processes}
    groups: dict[tuple[str, int], list[Seen]] = {}
    for seen in at.processes:
        env, number = seen.env or {}, seen.number
        if seen.pid in ours or number is None or number in living or not env.get("HOME") or INSTANCE not in env:
            continue
        if PurePath(seen.argv[0]).name in _HELPERS and MARK not in env and _is_ours_here(seen.pid):
            groups.setdefault((env["HOME"], number), []).append(seen)
    for (home, number), group in sorted(groups.items()):
        names = ", ".join(sorted({PurePath(seen.argv[0]).name for seen in group}))
        what = f"{names} of instance {number} in {home}"
        pids = tuple(seen.pid for seen in group)
        born = tuple(named for pid in pids if (named := procs.identity(pid)))
        yield Leftover("processes", what, "its supervisor and its VM are dead", number=number, pids=pids, born=born)


def _is_ours_here(pid: int) -> bool:
    """Tell whether a process is ours to end; a container's is the container's."""
    return procs.same_place(pid) and _ours(owner(pid))


def _ours(uid: int | None) -> bool:
    return os.geteuid() == 0 or uid == os.geteuid()


def _numbers(living: Collection[int]) -> Iterator[Leftover]:
    busy = tap.busy_numbers()
    for number, mark in sorted(foreign_facts.marked_numbers().items()):
        if number in living or number in busy or mark.held or not _ours(mark.uid):
            continue
        why = f"{mark.path} says that it is in use, but no process, no monitor and no tap does"
        yield Leftover("number", f"instance number {number}", why, number=number)


def _sockets(living: Collection[int], at: Look) -> Iterator[Leftover]:
    root = paths.sockets_root()
    for pattern, form, shift in _PLACES:
        for path in sorted(root.glob(pattern)):
            match = form.fullmatch(os.fspath(path.relative_to(root)))
            if match is None or int(match["number"]) - shift in living or not _is_dead(path, int(match["uid"]), at):
                continue
            yield Leftover("sockets", f"sockets in {path}", "nobody listens on any of them", path=path)


def _is_dead(path: Path, uid: int, at: Look) -> bool:
    """Tell whether a directory of sockets is its user's own, ours to remove, and of no use any more."""
    if not _ours(uid) or any(socket.startswith(f"{path}/") for socket in at.sockets):
        return False
    for directory in (path, path.parent) if path.parent != paths.sockets_root() else (path,):
        try:
            status = directory.lstat()
        except OSError:
            return False
        # /tmp is everybody's: behind a link, or in what another user has made, nothing is deleted.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
            return False
    return True


def _directories() -> Iterator[Leftover]:
    devices = paths.current().devices
    made = {".new-*": "a launch that made it was killed", ".removed-*": "the rm that was deleting it was killed"}
    for pattern, why in made.items():
        for path in sorted(devices.glob(pattern)):
            # A removal that takes long holds what it deletes.
            with registry.held_if_free(path.name) as free:
                if free and _is_old(path):
                    yield Leftover("directory", os.fspath(path), why, path=path)
    for path in sorted(devices.glob("[!.]*/.device.json-*")):
        if _is_old(path):
            yield Leftover(
                "directory", os.fspath(path), "a verb that wrote it was killed", path.parent.name, path=path
            )


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_ctime > _GRACE_S
    except OSError:
        return False


# -- removing ----------------------------------------------------------------------------------------------


def remove(left: Leftover) -> list[str]:
    """Remove a leftover, unless it has come to life meanwhile.

    :return: what was unusual, or why nothing was done, for people.
    :raises CfctlError: if it could not be removed; it is as it was.
    """
    with signals.undisturbed():
        if left.device is not None and left.kind in ("device", "processes"):
            return _end_device(left.device)
        if left.number is not None and left.kind == "number":
            return _give_back(left.number)
        if left.kind == "processes":
            return _end_helpers(left)
        return _delete(left)


def _end_device(name: str) -> list[str]:
    with registry.held(name):
        # Held by us: nobody else changes it.
        device = observe.device(name, held=True)
        alive = device.processes
        if not device.record.holds_numbers or any(_is_core(p.argv) for p in alive):
            return [f"{name} is {device.state.value} by now, and was left alone."]
        return stop.stop(device.record, patience=stop.UNBOOTED_S)


def _give_back(number: int) -> list[str]:
    try:
        lock = locks.NumberLock.take(Instance(number), paths.instance_lock_directories(), ours=True)
    except NumberTaken:
        return [f"Instance number {number} is in use by now, and was left alone."]
    if number in tap.busy_numbers():
        lock.close()
        return [f"The taps of instance {number} are in use by now; it was left alone."]
    numbers.give_back(lock)
    return []


def _end_helpers(left: Leftover) -> list[str]:
    # The same processes, not others that were given their ids: whoever is asked first may take long to answer.
    pids = [int(named.partition("/")[0]) for named in left.born if procs.is_alive(named)]
    if stuck := process.end(pids, patience=_TERM_S):
        raise CfctlError(
            f"{left.object}: processes survive SIGKILL",
            ", ".join(map(str, stuck)),
            "They hang in the kernel, often on a dead disk or a driver: see dmesg.",
        )
    return []


def _delete(left: Leftover) -> list[str]:
    assert left.path is not None  # noqa: S101 (find() has set it for these kinds)
    path = left.path
    if left.kind == "sockets":
        root = paths.sockets_root()
        uid = next(
            int(m["uid"]) for _, form, _ in _PLACES if (m := form.fullmatch(os.fspath(path.relative_to(root))))
        )
        if not _is_dead(path, uid, Look()):
            return [f"{path} is in use by now, and was left alone."]
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if left.kind == "sockets" and path.parent != paths.sockets_root() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as exc:
        raise CfctlError(f"{path} could not be deleted", str(exc), f"Look at it: ls -la {path}") from exc
    return []
