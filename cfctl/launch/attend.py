"""Staying with a device until it ends: what a launch in the foreground does, and a service that is a device."""

from __future__ import annotations

import time

from cfctl import signals, steps
from cfctl.errors import CfctlError, NoSuchDevice
from cfctl.launch import manage, observe, registry
from cfctl.launch.observe import Device, State

#: How often a device is looked at. A look costs some milliseconds.
_TICK_S = 1.0

#: A run_cvd that was killed takes its VM along, or is found without a socket for a moment.
_LOOKS_UNTIL_DEAD = 3


class DeviceDied(CfctlError):
    """A device that was attended ended without being asked."""

    code = "device-died"


def attend(name: str, *, tick: float = _TICK_S) -> Device | None:
    """Return when a device was stopped or removed; an interrupt stops it first.

    Others may suspend, resume and restart it meanwhile.

    :return: the device, stopped; None if it was removed.
    :raises DeviceDied: if it ended by itself; what is left of it is stopped then.
    :raises KeyboardInterrupt: after the device was stopped.
    """
    dead = 0
    try:
        while True:
            try:
                device = observe.device(name)
            except NoSuchDevice:
                return None
            if device.state is State.STOPPED and device.record.kept_down:
                return device
            # Somebody who restarts it holds it while it is down.
            down = device.state in (State.STOPPED, State.FAILED, State.STALE, State.UNREACHABLE)
            dead = dead + 1 if down and not registry.is_held(device.record) else 0
            if dead >= _LOOKS_UNTIL_DEAD:
                raise _died(device)
            time.sleep(tick)
    except KeyboardInterrupt:
        with signals.undisturbed():
            steps.note(f"Interrupted: stopping {name} ...")
            manage.stop_device(name)
        raise


def _died(device: Device) -> DeviceDied:
    """Take down what is left of a device; return the error that says so."""
    name = device.record.name
    said = manage.end_device(name)
    return DeviceDied(
        f"{name} ended by itself: it was {device.state.value}",
        "\n".join(said) or None,
        f"See why: cfctl logs {name} --which launcher -n 20\nBoot it again: cfctl restart {name}",
    )
