"""Devices that come back: which of those that are down are booted again, and when.

Who calls this is whatever is there for it: ``cfctl host run``, a unit of systemd, a container's first process. A
decision needs only a device's record, what is observed of it, the time and the boot of the host, so it is a pure
function; nothing is remembered between two rounds but what stands in the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cfctl import steps
from cfctl.errors import CfctlError
from cfctl.launch import follow, launcher, logs, observe, registry
from cfctl.launch.observe import State
from cfctl.launch.registry import Restart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.launch.observe import Device

#: The second boot in a row waits so long after the first was begun, the next twice as long, and so on.
_FIRST_WAIT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(minutes=5)

#: A device that was up for so long and then dies has not died of its boot: it comes back at once.
_LONG_ENOUGH_UP = timedelta(minutes=10)

#: States of devices that nobody is working on, and of which nothing works.
_DOWN = (State.STALE, State.FAILED, State.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a device that has a policy.

    :param at: when it is to be booted; None means that it is left as it is.
    :param why: for people.
    """

    name: str
    at: datetime | None
    why: str

    def due(self, now: datetime) -> bool:
        """Tell whether it is to be booted now."""
        return self.at is not None and self.at <= now


def decide(device: Device, *, now: datetime, boot_id: str | None) -> Decision:
    """Decide about one device.

    :param boot_id: what names this boot of the host (:func:`registry.boot_id`).
    """
    record = device.record
    policy = Restart(record.request.restart)

    def leave(why: str) -> Decision:
        return Decision(record.name, None, why)

    if policy is Restart.NO:
        return leave("it has no policy to be booted again")
    if record.kept_down:
        return leave("it was stopped on purpose")
    if record.started_at is None:
        return leave("it was never started")
    rebooted = boot_id is not None and record.boot_id is not None and boot_id != record.boot_id
    if device.state not in _DOWN:
        return leave(f"it is {device.state.value}")
    if rebooted:
        if policy is Restart.ALWAYS:
            return Decision(record.name, _next(device, now), "the host was booted again")
        return leave("the host was booted again, and its policy is on-failure")
    why = {State.FAILED: "its boot failed", State.UNREACHABLE: "it does not answer"}.get(device.state, "it died")
    return Decision(record.name, _next(device, now), why)


def _next(device: Device, now: datetime) -> datetime:
    """Return when a device that died is to be booted again: at once, then ever later."""
    record = device.record
    tries = [moment for moment in (_time(record.started_at), _time(record.tried_at)) if moment is not None]
    booted = _time(record.booted_at)
    if not tries or max(tries) > now:
        return now  # a clock that was set back must not keep it down
    if record.restarts == 0 or (booted is not None and now - booted >= _LONG_ENOUGH_UP):
        return now
    # Not 2 ** restarts of any size: it would overflow some day.
    doublings: int = min(record.restarts - 1, 10)
    return max(tries) + min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def decisions(devices: Iterable[Device], *, now: datetime, boot_id: str | None) -> list[Decision]:
    """Decide about all devices, in the order in which they are to be booted."""
    found = [decide(device, now=now, boot_id=boot_id) for device in devices]
    return sorted((d for d in found if d.at is not None), key=lambda d: (d.at, d.name))


def _keep_small(device: Device) -> None:
    """Keep the logs of a device that is up small."""
    if device.state is State.RUNNING and registry.load(device.name).booted_at is None:
        # Whoever waits for it writes that down, or the next who looks; until then only its logs, which are about to
        # be cut, tell that it has booted.
        return
    logs.keep_small(device.record)


def _take_up(name: str, timeout: float) -> None:
    try:
        with steps.step(f"follow the boot of {name}: nobody does any more"):
            follow.take_up(name, timeout=timeout)
    except CfctlError as error:
        steps.note(f"{name} did not become ready: {error.brief}")


def tend(*, now: datetime, timeout: float, boot: Callable[[str], object] | None = None) -> list[Decision]:
    """Do one round: look after this user's devices that are up, and boot those that are due, one after the other.

    The logs of those that are up are kept small; a boot whose follower is gone is followed to its end.

    It can be called as often as one likes, every few seconds say; what fails is said and tried again later.

    :param timeout: seconds that a boot may take.
    :param boot: another way to boot a device.
    :return: what was decided about the devices that are down; those that are not due yet are in it.
    """
    devices = observe.devices()
    for device in devices:
        if device.state.is_up:
            try:
                _keep_small(device)
            except (OSError, CfctlError) as exc:
                steps.note(f"{device.record.name}: its logs could not be made smaller: {exc}")
            if observe.is_abandoned(device.record):
                _take_up(device.name, timeout)
    found = decisions(devices, now=now, boot_id=registry.boot_id())
    for decision in found:
        if not decision.due(now):
            continue
        try:
            with steps.step(f"boot {decision.name} again: {decision.why}"):
                if boot is None:
                    launcher.restart(decision.name, timeout=timeout, only_if_down=True)
                else:
                    boot(decision.name)
        except CfctlError as error:
            steps.note(f"{decision.name} could not be booted again: {error.brief}")
    return found
