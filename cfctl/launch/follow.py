"""Following a boot to its end: its phases are reported, what is to be done after it is done, a failure is cleaned up.

Who does that stands in the record. A verb that is killed, or a keeper that ends, leaves a boot that nobody follows;
the next round of a keeper takes it up (:func:`take_up`).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from cfctl import signals, steps
from cfctl.errors import CfctlError, DeadlinePassed, NoSuchDevice, NotRunning
from cfctl.launch import afterboot, boot, boot_times, diagnosis, observe, parent, procs, registry, stop
from cfctl.launch.registry import Failure, Record

if TYPE_CHECKING:
    from cfctl.process import Child

#: How often the logs are looked at.
_TICK_S = 0.03

#: The same, with its processes, of a boot that was begun by somebody else.
_LOOK_S = 0.5


def follow(
    record: Record, watch: boot.Watch, child: Child, *, timeout: float, wait: bool, restored: bool = False
) -> observe.Device:
    """Report the boot until it ends, well or not.

    :param restored: it goes on where a snapshot was taken: its log tells of no boot, only the launcher's end does.
    """
    if not wait:
        return observe.device(record.name)
    with steps.step(f"boot {record.name}"):
        _watch(record, watch, child, timeout=timeout, restored=restored)
    if not restored:
        boot_times.remember(record.request, watch.took)
        afterboot.run(record, afterboot.of(record.request), deadline=time.monotonic() + timeout - watch.seconds)
    return _ready(record)


def take_up(name: str, *, timeout: float) -> observe.Device:
    """Follow a boot that nobody follows any more, and do from the beginning what is to be done after it.

    :param timeout: seconds that it may take from now on.
    :return: the device, running; or as it is, if somebody else has taken it up.
    :raises NoSuchDevice: if there is none of that name.
    :raises CfctlError: as a launch; the device is left ``failed``, with its logs.
    """
    with registry.opened(name) as record:
        if not observe.is_abandoned(record):
            return observe.device(name, held=True)
        record.follower = procs.identity()
        registry.save(record)
    watch = boot.Watch(record, started=time.monotonic())
    try:
        while True:
            _tell_of_silence(watch)
            if watch.booted:
                break
            if watch.seconds > timeout:
                raise diagnosis.timed_out(record, watch, timeout)
            if not observe.device(name).processes:
                raise NotRunning(f"{name} ended before it had booted", None, f"See why: cfctl logs {name}")
            time.sleep(_LOOK_S)
        afterboot.run(record, afterboot.of(record.request), deadline=time.monotonic() + timeout - watch.seconds)
    except BaseException as error:
        give_up(watch, error, new=False)
        raise
    return _ready(record)


def _ready(record: Record) -> observe.Device:
    """Write down that a device has booted, and got what it is to get after that."""
    try:
        with registry.opened(record.name) as current:
            current.booted_at, current.getting_ready, current.follower = registry.now(), False, None
            registry.save(current)
    except CfctlError as error:
        # It has booted, whatever the disk says; its logs tell so too.
        steps.note(f"{record.name} has booted, but that could not be written down: {error.brief}")
    return observe.device(record.name)


def _watch(record: Record, watch: boot.Watch, child: Child, *, timeout: float, restored: bool) -> None:
    """Report the phases until all instances have booted, or the launcher says that they go on.

    :raises CfctlError: if they do not.
    """
    watch.begin()
    while (code := child.poll()) is None:
        _tell_of_silence(watch)
        if watch.seconds > timeout:
            raise diagnosis.timed_out(record, watch, timeout)
        time.sleep(_TICK_S)
    watch.poll()
    status = parent.status(code)
    if status != 0 or not (watch.booted or restored):
        raise diagnosis.failed(record, watch, status)


def _tell_of_silence(watch: boot.Watch) -> None:
    """Read the logs; where nothing has come for too long, tell what is known."""
    if (quiet := watch.poll()) is not None:
        steps.note(diagnosis.silent(watch, quiet))


def give_up(watch: boot.Watch, error: BaseException, *, new: bool) -> None:
    """Stop whatever runs of a device that did not boot; keep it as failed, or remove it.

    Its processes are found by their environment, so it does not matter whether the launcher came to be known.
    """
    phase = watch.slowest.phase.name
    if watch.booted and watch.record.request.after_boot is not None:
        phase = afterboot.PHASE
    # Neither an interrupted launch nor a launcher that never came to a VM leaves anything worth keeping; a boot that
    # failed leaves its logs.
    crashed = phase == "assemble" and not isinstance(error, DeadlinePassed)
    remove = new and (crashed or not isinstance(error, CfctlError))
    with signals.undisturbed():
        if isinstance(error, KeyboardInterrupt):
            steps.note(f"Interrupted: stopping {watch.record.name} ...")
        with contextlib.suppress(NoSuchDevice), registry.opened(watch.record.name) as current:
            if (current.created_at, current.started_at) != (watch.record.created_at, watch.record.started_at):
                return  # booted again, or removed and made anew, by somebody else
            stopped_by_another = not current.holds_numbers
            if not stopped_by_another:
                stop.stop(current, patience=stop.UNBOOTED_S)
            if remove:
                registry.remove(current)
            elif isinstance(error, CfctlError) and not stopped_by_another:
                current.failure = Failure(phase, error.brief)
                try:
                    registry.save(current)
                except CfctlError as worse:
                    # A full disk, which may be why it did not boot: the error to tell is that one.
                    steps.note(f"{current.name}: its failure could not be written down: {worse.brief}")
