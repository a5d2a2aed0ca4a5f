"""What is done to a device that is up, through its run_cvd: suspend, resume, powerwash, the power button.

Each has a deadline. run_cvd serves one client at a time, so nothing here is asked of one instance twice at once: the
device is held meanwhile (:func:`census.opened`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from cfctl import steps
from cfctl.control import launcher_actions, sync
from cfctl.control.faults import VmSilent
from cfctl.control.launcher_actions import Extended
from cfctl.control.launcher_monitor import MonitorRefused
from cfctl.errors import CfctlError, DeadlinePassed, LaunchFailed, NotRunning
from cfctl.instance import Instance, at_position
from cfctl.launch import afterboot, census, manage, observe, procs, registry, tools, vm
from cfctl.launch.complaint import Complaint
from cfctl.launch.observe import Device, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.launch.registry import Record

#: Android's part of a suspend is an adb command inside of the guest, which takes seconds.
SUSPEND_S = 60.0
#: Upstream's clients wait so long until the device is down, and until it is up (launcher.md section 5).
POWERWASH_DOWN_S = 60.0
POWERWASH_UP_S = 500.0
POWERBTN_S = 15.0


def suspend(name: str, *, seconds: float = SUSPEND_S) -> Device:
    """Stop a device's processors; it keeps its memory. A suspended one stays as it is.

    :param seconds: how long each instance may take.
    :raises NotRunning: if it is neither running nor suspended.
    :raises MonitorRefused, DeadlinePassed: if an instance does not do it; the others go on then.
    """
    with census.opened(name) as record:
        if up(name).state is State.SUSPENDED:
            return observe.device(name, held=True)
        suspend_held(record, seconds=seconds)
    return observe.device(name)


def resume(name: str, *, seconds: float = SUSPEND_S) -> Device:
    """Let a device's processors go on. It is sent even to one that seems to run: others can suspend it too.

    :raises NotRunning: if it is not up.
    :raises MonitorRefused, DeadlinePassed: if an instance does not do it; it counts as suspended then.
    """
    with census.opened(name) as record:
        up(name)
        resume_held(record, seconds=seconds)
    return observe.device(name)


def suspend_held(record: Record, *, seconds: float) -> None:
    """Suspend every instance of a device that is held and running; all or none."""
    done: list[Instance] = []
    try:
        for instance in record.instances:
            _pause(record, instance, "suspend", seconds)
            done.append(instance)
    except BaseException:
        for instance in done:
            with contextlib.suppress(CfctlError):
                _pause(record, instance, "resume", seconds)
        raise
    record.suspended_at = registry.now()
    registry.save(record)


def resume_held(record: Record, *, seconds: float) -> None:
    """Resume every instance of a device that is held."""
    for instance in record.instances:
        _pause(record, instance, "resume", seconds)
    record.suspended_at = None
    registry.save(record)


def _pause(record: Record, instance: Instance, name: str, seconds: float) -> None:
    """Suspend or resume one instance: by run_cvd, or by QEMU where run_cvd cannot."""
    if (target := vm.find(record, instance)) is None:
        ask(record, instance, launcher_actions.BY_NAME[name], seconds=seconds)
        return
    with _explained(record, instance):
        vm.simple(target, name, seconds=seconds)


def powerwash(name: str, *, down: float = POWERWASH_DOWN_S, seconds: float = POWERWASH_UP_S) -> Device:
    """Give a device blank disks and boot it again: as it was when it was made.

    What is to be done after a boot is done again: a blank device has lost it.

    :param down: seconds that it may take to go down.
    :param seconds: seconds that it may take to boot.
    :raises NotRunning: if it is not up.
    :raises MonitorRefused: if it cannot; it is as it was.
    :raises LaunchFailed: if it did not boot again.
    :raises DeadlinePassed: if it took too long; its disks may be blank already.
    """
    started = time.monotonic()
    with census.opened(name) as record:
        up(name)
        commands = afterboot.of(record.request)
        # A record that is written after the disks were made blank would say too little if we were killed before.
        record.suspended_at, record.getting_ready, record.follower = None, bool(commands), procs.identity()
        registry.save(record)
        try:
            codes = sync.run(_powerwash(record, down, seconds))
            if failed := [i.id for i, code in zip(record.instances, codes, strict=True) if code]:
                raise LaunchFailed(
                    f"{name} did not boot after the powerwash: {', '.join(failed)}",
                    None,
                    f"See why: cfctl logs {name}. Try again: cfctl restart {name}",
                    phase="booted",
                )
            afterboot.run(record, commands, deadline=started + down + seconds)
        except MonitorRefused:
            # Nothing has happened: it is as ready as it was.
            record.getting_ready = False
            registry.save(record)
            raise
        record.getting_ready, record.booted_at = False, registry.now()
        registry.save(record)
    return observe.device(name)


async def _powerwash(record: Record, down: float, seconds: float) -> list[int]:
    sockets = [observe.monitor_socket(record, instance) for instance in record.instances]
    return list(await asyncio.gather(*(launcher_actions.powerwash(s, down=down, up=seconds) for s in sockets)))


def powerbtn(target: str, *, seconds: float = POWERBTN_S) -> Device:
    """Press an instance's power button. What comes of it is the guest's: Android's screen goes on or off.

    :param target: ``NAME`` or ``NAME/2``.
    :raises NotRunning: if it is not running: a suspended guest does not see it.
    :raises VmRefused, VmSilent: if the VM does not do it.
    :raises HostLacks: if its VM has no socket, and the host package no program for it.
    :raises CommandFailed, DeadlinePassed: if that could not do it.
    """
    name, position = manage.target(target)
    with census.opened(name) as record:
        instance = instance_up(record, position)
        if (found := vm.find(record, instance)) is not None:
            vm.simple(found, "powerbtn", seconds=seconds)
        else:
            tools.run(record, instance, tools.require(record, tools.POWERBTN), seconds=seconds)
    return observe.device(name)


# -- what the other files of this kind need --------------------------------------------------------------


def up(name: str, position: int | None = None) -> Device:
    """Return a device that its caller holds, and that is running or suspended.

    :param position: of one instance, as if it were all of it: the others may be down.
    :raises NotRunning: if it is in any other state.
    """
    device = observe.device(name, held=True) if position is None else observe.one_instance(name, position, held=True)
    if device.state is State.SUSPENDED:
        return device
    if device.state is State.BOOTING:
        raise NotRunning(f"{name} is still booting", None, f"Wait until it is up: cfctl status {name}")
    return manage.running(name, device)


def instance_up(record: Record, position: int) -> Instance:
    """Return an instance of a device that its caller holds: it is running, and the others may be down.

    :raises UsageError: if the device has fewer.
    :raises NotRunning: if it is in any other state.
    """
    number = at_position(record.name, record.numbers, position)
    running(up(record.name, position if len(record.numbers) > 1 else None))
    return Instance(number)


def running(device: Device) -> None:
    """Make sure that a device is not suspended.

    :raises NotRunning: if it is.
    """
    if device.state is State.SUSPENDED:
        name = device.record.name
        raise NotRunning(f"{name} is suspended", None, f"Let it go on: cfctl resume {name}")


def ask(record: Record, instance: Instance, action: Extended, *, seconds: float) -> None:
    """Ask one instance's run_cvd for something.

    :raises MonitorRefused, DeadlinePassed: with what helps.
    """
    with _explained(record, instance), steps.step(f"{action.name.lower().replace('_', ' ')} {instance.id}"):
        sync.run(launcher_actions.ask(observe.monitor_socket(record, instance), action, seconds=seconds))


@contextlib.contextmanager
def _explained(record: Record, instance: Instance) -> Iterator[None]:
    """Say of which instance an error of the block is, and what helps."""
    complaint = Complaint(record, instance)
    try:
        yield
    except MonitorRefused as error:
        raise MonitorRefused(
            f"{instance.id}: {error.brief}",
            error.details or complaint.text() or "Its log says why, if anything does.",
            f"See: cfctl logs {record.name} --which launcher -n 20",
        ) from error
    except VmSilent:
        raise
    except DeadlinePassed as error:
        raise DeadlinePassed(
            f"{instance.id}: {error.brief}",
            "Whether it will still be done is not known. Host packages of 2023-06 to 2024-03 do not understand the "
            "request and wait for more of it.",
            f"See: cfctl logs {record.name} --which launcher -n 20",
        ) from error
