"""Waiting for a boot that somebody else has begun."""

from __future__ import annotations

import time

from cfctl.errors import DeadlinePassed, NotRunning
from cfctl.launch import boot, diagnosis, observe
from cfctl.launch.observe import State

_TICK_S = 0.1


def until_booted(name: str, timeout: float) -> None:
    """Wait until a device is running.

    :param timeout: seconds.
    :raises NoSuchDevice: if there is none of that name.
    :raises NotRunning: if it is stopped, or died; its state says which.
    :raises DeadlinePassed: if it has not booted by then; it boots on.
    """
    deadline = time.monotonic() + timeout
    while True:
        device = observe.device(name)
        if device.state is State.RUNNING:
            return
        if not device.state.is_up:
            failure = device.record.failure
            raise NotRunning(
                f"{name} is {device.state.value}{f': {failure.brief}' if failure else ''}",
                diagnosis.evidence(_progress(device)) or None,
                f"See more: cfctl logs {name}\nBoot it: cfctl restart {name}",
            )
        if time.monotonic() > deadline:
            watch = _progress(device)
            raise DeadlinePassed(
                f"{name} is not running within {timeout:g} s: {watch.slowest.instance.id} came as far as: "
                f"{watch.slowest.phase.title}",
                "It boots on.",
                f"See how far it is: cfctl logs {name} -f",
            )
        time.sleep(_TICK_S)


def _progress(device: observe.Device) -> boot.Watch:
    """Return how far a boot has come, by its logs alone."""
    watch = boot.Watch(device.record, started=0)
    for one in watch.boots:
        one.advance()
    return watch
