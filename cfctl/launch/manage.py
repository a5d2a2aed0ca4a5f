"""What is done to devices that exist: find, stop, remove, read their logs, talk to them over ADB."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process, signals
from cfctl.errors import DamagedRecord, NoSuchDevice, NotRunning, UsageError
from cfctl.instance import Instance, at_position
from cfctl.launch import adb, boot, census, observe, registry, stop
from cfctl.launch.observe import Device, State
from cfctl.launch.procs import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfctl.control.console import Console
    from cfctl.launch.census import Listed

#: Names that ``cfctl logs --which`` takes, and the file below the instance's directory.
LOGS = {"kernel": "logs/kernel.log", "launcher": "logs/launcher.log", "launch": None, "console": "console_log"}


def target(text: str) -> tuple[str, int]:
    """Split ``NAME/2`` into the device's name and the position of the instance; the first is 1.

    :raises UsageError: for a position that is no number.
    """
    name, slash, position = text.partition("/")
    if slash and not re.fullmatch(r"[1-9]\d{0,2}", position):
        raise UsageError(f"{text!r} names no instance", "NAME/2 is the second instance of device NAME.")
    return name, int(position or 1)


def instance_of(device: Device, position: int) -> Instance:
    """Return the instance of a device at a position.

    :raises UsageError: if the device has fewer.
    """
    return Instance(at_position(device.record.name, device.record.numbers, position))


def stop_device(name: str) -> tuple[Listed, list[str]]:
    """Stop a device; stopping a stopped one does nothing.

    :return: the device as it is then, and what had to be done beyond asking.
    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if neither this user's cfctl nor cvd made it.
    :raises CfctlError: if something of it survives.
    """
    try:
        with registry.opened(name):
            device = observe.device(name, held=True)
            known, device.record.kept_down = device.record.kept_down, True
            said = _stop(device)
            if not known:
                # A full disk must not keep a device from being stopped.
                stop.save_if_possible(device.record)
        return observe.device(name), said
    except NoSuchDevice:
        theirs = census.made_by_cvd(name)
    if not theirs.state.is_up:
        return theirs, []
    with signals.undisturbed():
        said = stop.stop(theirs.record)
    return replace(theirs, state=State.STOPPED, processes=(), usage=Usage()), said


def end_device(name: str) -> list[str]:
    """Take down what is left of a device that died; it may be booted again without being asked.

    :return: what had to be done beyond asking.
    """
    with registry.opened(name):
        return _stop(observe.device(name, held=True))


def _stop(device: Device) -> list[str]:
    if not device.processes and not device.record.holds_numbers:
        return []
    booting = device.state is State.BOOTING
    with signals.undisturbed():
        return stop.stop(device.record, patience=stop.UNBOOTED_S if booting else stop.MONITOR_S)


def remove_device(name: str, *, force: bool) -> list[str]:
    """Remove a device with its disks and logs.

    :param force: stop it first if it is up; remove it even if its record is damaged.
    :return: what had to be done beyond asking.
    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if it is up and ``force`` is not given; nothing is changed.
    """
    with census.ours(name), registry.held(name):
        try:
            device = observe.device(name, held=True)
        except DamagedRecord:
            if not force:
                raise
            device = observe.salvaged(name)
        if device.state.is_up and not force:
            raise UsageError(
                f"{name} is {device.state.value}",
                "Removing deletes its disks and logs.",
                f"Stop it first: cfctl stop {name}\nor do both: cfctl rm --force {name}",
            )
        said = _stop(device)
        registry.remove(device.record)
    return said


def running(name: str, device: Device | None = None) -> Device:
    """Return a device that can be talked to.

    :param name: what to call it.
    :param device: as it is now, if the caller has looked.
    :raises NotRunning: if it is in any other state.
    """
    device = device or census.reachable(name)
    if device.state in (State.RUNNING, State.BOOTING):
        return device
    whole = device.record.name
    details = device.record.failure.brief if device.record.failure else None
    help_ = f"Boot it: cfctl restart {whole}"
    if device.state is State.SUSPENDED:
        help_ = f"Let it go on: cfctl resume {whole}"
    elif device.state is State.UNREACHABLE:
        details = "\n".join(observe.silent(device))
    raise NotRunning(f"{name} is {device.state.value}", details, help_)


def reached(name: str, position: int) -> Instance:
    """Return an instance that can be talked to; the others of its device may be down.

    :raises UsageError: if the device has fewer.
    :raises NotRunning: if it is not up.
    """
    device = census.reachable(name)
    instance = instance_of(device, position)
    if len(device.record.numbers) == 1:
        running(name, device)
    else:
        running(f"{name}/{position}", census.reachable(name, position))
    return instance


def log_file(device: Device, position: int, which: str | None) -> Path:
    """Return one of a device's logs.

    :param which: a key of :data:`LOGS`; None is the first that has something in it.
    :raises UsageError: for a log that there is not.
    """
    directory = Path(instance_of(device, position).directory(device.record.home))
    files = {
        name: directory / inside if inside else device.record.home / boot.LAUNCH_LOG for name, inside in LOGS.items()
    }
    if which is None:
        return next((log for log in files.values() if log.exists() and log.stat().st_size), files["kernel"])
    if which not in files:
        raise UsageError(f"there is no log {which!r}", f"Logs: {', '.join(LOGS)}.")
    return files[which]


def existing_log(name: str, which: str | None, *, position: int = 1) -> Path:
    """Return one of a device's logs; see :func:`log_file`.

    :raises UsageError: for a log that there is not, or not yet.
    """
    log = log_file(census.reachable(name), position, which)
    if not log.exists():
        raise UsageError(f"{name} has no such log yet", f"It would be {log}.", f"See its state: cfctl status {name}")
    return log


def log_lines(name: str, which: str | None, *, last: int | None = None, position: int = 1) -> Iterable[str]:
    """Return the lines of one of a device's logs; without ``last`` they are read as they are asked for.

    :param last: only so many of them, empty ones left out; None is all.
    :raises UsageError: for a log that there is not, or not yet, or fewer lines than none.
    """
    if last is not None and last < 0:
        raise UsageError(f"last={last}: a log has no fewer lines than none")
    log = existing_log(name, which, position=position)
    return boot.last_lines(log, last) if last is not None else _lines(log)


def _lines(log: Path) -> Iterator[str]:
    with log.open(errors="replace") as file:
        for line in file:
            yield from line.splitlines()


def follow(log: Path, *, last: int | None = None, seconds: float = 0.2) -> Iterator[str]:
    """Yield the lines of a log and those that come, across restarts, until the caller stops or the device is removed.

    :param last: begin with so many of the lines that are there; None is all of them.
    """
    tail = boot.Tail(log)
    first = tail.lines()
    yield from first if last is None else first[len(first) - min(last, len(first)) :]
    home = log.parent
    while home.exists():
        yield from tail.lines()
        time.sleep(seconds)


def console(target_: str) -> Console:
    """Return the console of an instance of a device, not opened yet.

    :param target_: ``NAME`` or ``NAME/2``.
    :raises NotRunning: if the device is not up.
    """
    from cfctl.control.console import Console

    name, position = target(target_)
    device = running(name)
    return Console(Path(instance_of(device, position).directory(device.record.home)) / "console", target_)


def run_adb(name: str, args: list[str]) -> None:
    """Become ``adb``, talking to one instance of a device; returns only by raising.

    :param name: ``NAME`` or ``NAME/2``.
    :param args: what adb is to do; nothing is an interactive shell.
    :raises NotRunning: if the device is not up.
    """
    device_name, position = target(name)
    serial = reached(device_name, position).adb
    adb.connect(serial)
    process.replace(["adb", "-s", serial, *(args or ["shell"])])


def adb_output(name: str, args: list[str], *, position: int = 1, timeout: float) -> str:
    """Run ``adb`` against one instance of a device, and return its standard output.

    :param position: of the instance, the first is 1.
    :raises NotRunning: if the device is not up.
    :raises CommandFailed, DeadlinePassed: if adb ends badly, or not in time.
    """
    serial = reached(name, position).adb
    adb.connect(serial)
    return process.run(["adb", "-s", serial, *args], timeout=timeout).stdout
