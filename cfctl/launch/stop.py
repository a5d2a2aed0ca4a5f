"""Stopping is a ladder: ask run_cvd, ask the package's stop tool, TERM, KILL, and look whether it is true.

The exit status of upstream's stop tool proves nothing (launcher.md T3), so every rung is judged by what still runs.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import shutil
import threading
import time
from pathlib import Path

from cfctl import locks, paths, process, steps
from cfctl.control import launcher_monitor, sync
from cfctl.control.launcher_monitor import Action
from cfctl.errors import CfctlError, DeadlinePassed, NumberTaken
from cfctl.hostres import tap
from cfctl.instance import Instance
from cfctl.launch import cvdmade, numbers, observe, registry, wares
from cfctl.launch.foreign import ForeignRecord
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.registry import Record

#: run_cvd answers when all of its children are down; Android's crosvm takes some seconds.
MONITOR_S = 30.0
#: A device that has not booted has no disks to flush.
UNBOOTED_S = 5.0
#: Longer than any stop that was seen; at its own default of 5 s upstream's tool kills what is still closing.
_STOP_TOOL_S = 60
#: People hear what is waited for when it takes longer than this.
_SAY_AFTER_S = 2.0
#: For what ignored both: between TERM and KILL.
_TERM_S = 3.0
#: Helpers that end by themselves, once their run_cvd is gone.
_LINGER_S = 2.0


def stop(record: Record, *, patience: float = MONITOR_S) -> list[str]:
    """Stop a device that may be in any state, and give its numbers back.

    The caller holds the device (:func:`registry.held`).

    :param patience: seconds that run_cvd may take to end the device before it is ended by force.
    :return: what had to be done beyond asking, one sentence each, for people.
    :raises CfctlError: if something of it still runs at the end; it is named, and the numbers stay taken.
    """
    if isinstance(record, ForeignRecord):
        # Its numbers and files are cvd's; but what cvd leaves running is ended as ours would be.
        return cvdmade.ask_to_stop(record) + _end_processes(record, patience)
    record.stopping = True
    save_if_possible(record)
    said = _end_processes(record, patience)
    if record.holds_numbers:
        release(record)
    record.stopping = record.getting_ready = False
    record.suspended_at = None
    record.stopped_at = registry.now()
    save_if_possible(record)
    return said


def save_if_possible(record: Record) -> None:
    """Write the record if the disk lets us: a full one must not keep a device from being stopped."""
    try:
        registry.save(record)
    except CfctlError as error:
        steps.note(f"{record.name}: its state could not be written down: {error.brief}")


def _alive(record: Record) -> list[observe.Process]:
    return observe.processes([record.home])[record.home]


def _end_processes(record: Record, patience: float) -> list[str]:
    """Go down the ladder until nothing of the device runs; return what was unusual."""
    said: list[str] = []
    if not _alive(record):
        return said
    asked = hung = False
    for instance in record.instances:
        socket = observe.monitor_socket(record, instance)
        if not launcher_monitor.listening(socket):
            continue
        silent_for = _later(f"{instance.id}: waiting for run_cvd to end it ...")
        silent_for.start()
        try:
            sync.run(launcher_monitor.request(socket, Action.STOP, seconds=patience))
            asked = True
        except DeadlinePassed as error:
            # The package's tool would ask the same process, and wait as long again.
            hung = True
            said.append(f"{instance.id}: {error.brief}.")
        except CfctlError as error:
            said.append(f"{instance.id}: {error.brief}.")
        finally:
            silent_for.cancel()
    if asked and _gone(record, _LINGER_S):
        return said
    if said and not hung and record.request.host_package:
        steps.note(f"{record.name}: asking the host package's stop tool ...")
        _run_stop_tool(record, said)
        if _gone(record, _LINGER_S):
            return said
    left = _alive(record)
    if left:
        names = sorted({Path(p.argv[0]).name for p in left})
        said.append(f"Processes that did not end by themselves were killed: {', '.join(names)}.")
        stuck = process.end([p.pid for p in left], patience=_TERM_S)
        # Whoever was forked in the meantime.
        stuck += process.end([p.pid for p in _alive(record)], patience=0)
        if stuck:
            raise CfctlError(
                f"{record.name} is not stopped: processes survive SIGKILL",
                "\n".join(f"{pid}: {' '.join(process.command_line(pid))}" for pid in stuck),
                "They hang in the kernel, often on a dead disk or a driver: see dmesg. Its numbers stay taken.",
            )
    return said


def _later(text: str) -> threading.Timer:
    """Return a timer that says something if what it waits for takes long."""
    # A thread begins without the reporter of whoever started it.
    return threading.Timer(_SAY_AFTER_S, contextvars.copy_context().run, [steps.note, text])


def _gone(record: Record, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _alive(record):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _run_stop_tool(record: Record, said: list[str]) -> None:
    """Let the package's own tool try; its exit status is not looked at."""
    try:
        tool = HostPackage.open(wares.present(record)).stop
        if tool is not None:
            process.run(
                [tool, f"--wait_for_launcher={_STOP_TOOL_S}"],
                timeout=_STOP_TOOL_S + 10,
                success=None,
                env={
                    **os.environ,
                    "HOME": os.fspath(record.home),
                    "ANDROID_HOST_OUT": os.fspath(wares.present(record)),
                },
                cwd=Path("/"),
            )
    except CfctlError as error:
        said.append(f"The package's stop tool failed: {error.brief}.")


def release(record: Record) -> None:
    """Give the device's numbers back where nothing uses them any more; what is outside of its directory goes too."""
    for instance in record.instances:
        if why := _release(instance):
            steps.note(f"Instance {instance.number} stays taken: {why}.")


def _release(instance: Instance) -> str | None:
    """Give one number back; return why not, if somebody else has it."""
    # An ending process loses its environment, by which we find it, some moments before its taps and locks.
    deadline = time.monotonic() + _LINGER_S
    while True:
        why = "something uses its taps"
        if instance.number not in tap.busy_numbers():
            try:
                lock = locks.NumberLock.take(instance, paths.instance_lock_directories(), ours=True)
            except NumberTaken:
                why = "another device has it by now"
            else:
                # While the number is ours: the next device that has it has its sockets in the same place.
                _remove_sockets(instance)
                numbers.give_back(lock)
                return None
        if time.monotonic() > deadline:
            return why
        time.sleep(0.01)


def _remove_sockets(instance: Instance) -> None:
    """Remove the sockets' directories, which lie outside of the device's own and would stay behind.

    Only where upstream's layout puts them: a launcher's config file does not choose what is deleted.
    """
    uid = os.geteuid()
    for directory in (Path(instance.socket_directory(uid)), Path(instance.environment_directory(uid))):
        with contextlib.suppress(OSError):
            # /tmp is everybody's: in a directory that another user has made nothing is deleted.
            if directory.parent.lstat().st_uid == uid:
                shutil.rmtree(directory, ignore_errors=True)
                directory.parent.rmdir()
