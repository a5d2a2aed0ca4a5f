"""Every device on this host, whoever started it: what ``cfctl ps`` shows."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeAlias

from cfctl.errors import NoSuchDevice, UsageError
from cfctl.launch import foreign, foreign_facts, observe, registry
from cfctl.launch.foreign import Foreign
from cfctl.launch.observe import Device
from cfctl.launch.procs import Look

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.launch.registry import Record

#: A device of this user's cfctl, or another one.
Listed: TypeAlias = Device | Foreign


def everything() -> list[Listed]:
    """Return all devices on this host at one moment: this user's by name, then the others by number."""
    at = Look()
    own = observe.devices(at)
    return [*own, *foreign_facts.devices(own, at)]


def find(name: str, position: int | None = None) -> Listed:
    """Return one device, or one instance of it, whoever started it.

    :param position: of the instance, the first is 1; None is the whole device.
    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if it has fewer instances.
    """
    try:
        return observe.device(name) if position is None else observe.one_instance(name, position)
    except NoSuchDevice:
        others = [device for device in everything() if isinstance(device, Foreign)]
        found = next((device for device in others if device.name == name), None)
        if found is None:
            raise _nobody(name, others) from None
        return found if position is None else foreign.one_instance(found, position)


def reachable(name: str, position: int | None = None) -> Device:
    """Return a device whose logs may be read and that may be talked to: one of ours, or another whose HOME is known.

    :param position: of one instance, as if it were all of it; the first is 1.
    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if it is another user's, of which no more can be known.
    """
    found = find(name, position)
    if isinstance(found, Device):
        return found
    if found.home is None:
        raise _not_ours(found)
    alive = tuple(observe.Process(seen.pid, seen.argv, seen.number) for seen in found.processes)
    return Device(found.record, found.state, alive, found.usage, found.ports)


def made_by_cvd(name: str) -> Foreign:
    """Return a device that this user's cvd made, and that cvd can be asked to stop.

    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if somebody else made it.
    """
    found = find(name)
    if isinstance(found, Device) or found.source != "cvd" or found.home is None or found.uid != os.geteuid():
        raise _not_ours(found) if isinstance(found, Foreign) else NoSuchDevice(name, [])
    return found


@contextlib.contextmanager
def ours(name: str) -> Iterator[None]:
    """Say whose a device is, where the block finds none of this user's of that name.

    :raises UsageError: instead of :class:`NoSuchDevice`, if somebody else made one of that name.
    """
    try:
        yield
    except NoSuchDevice as error:
        found = find(name)
        if isinstance(found, Foreign):
            raise _not_ours(found) from error
        raise


@contextlib.contextmanager
def opened(name: str) -> Iterator[Record]:
    """Hold a device of this user's for the block (:func:`registry.opened`), and give its record.

    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if somebody else made it.
    """
    with ours(name), registry.opened(name) as record:
        yield record


#: What ends a device that was made by another program than cfctl.
_ENDED_BY = {
    "cvd": "Use cvd itself: cvd help",
    "launch_cvd": "Use the tools of its host package: stop_cvd, with the HOME that it was launched with.",
}


def _not_ours(found: Foreign) -> UsageError:
    who = {"cfctl": f"{found.owner or 'another user'}'s cfctl", "unknown": found.owner or "another user"}
    return UsageError(
        f"{found.name} was made by {who.get(found.source, found.source)}",
        "Such a device can be seen and, where its HOME is known, reached: cfctl ps, status, logs, adb. "
        "One that cvd made for you can be stopped too.",
        _ENDED_BY.get(found.source, "Ask whose it is: cfctl ps"),
    )


def _nobody(name: str, others: Sequence[Foreign]) -> NoSuchDevice:
    return NoSuchDevice(name, [*(record.name for record in registry.load_all()), *(other.name for other in others)])
