"""A film of a device's screen: the host package's streamer makes it, run_cvd passes the word on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.control import launcher_actions
from cfctl.control.launcher_monitor import MonitorRefused
from cfctl.errors import HostLacks
from cfctl.launch import census, lifecycle, manage, observe, wares

if TYPE_CHECKING:
    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

#: The film is finished when run_cvd answers.
ANSWER_S = 60.0

#: The program of a host package that encodes what the screen shows.
_STREAMER = "webRTC"


def start(target: str, *, seconds: float = ANSWER_S) -> observe.Device:
    """Begin a film of an instance's screen.

    :param target: ``NAME`` or ``NAME/2``.
    :raises NotRunning: if the device is not running.
    :raises HostLacks: if its host package has no streamer: nothing was asked of it.
    :raises MonitorRefused, DeadlinePassed: if run_cvd does not do it.
    """
    _ask(target, launcher_actions.START_RECORDING, seconds)
    return observe.device(manage.target(target)[0])


def stop(target: str, *, seconds: float = ANSWER_S) -> list[Path]:
    """End the film; return the films of the instance, the newest last.

    :raises NotRunning, HostLacks, MonitorRefused, DeadlinePassed: as :func:`start`.
    """
    record, instance = _ask(target, launcher_actions.STOP_RECORDING, seconds)
    return films(record, instance)


def films(record: Record, instance: Instance) -> list[Path]:
    """Return what lies in the instance's ``recording`` directory, the newest last."""
    directory = Path(instance.directory(record.home)) / "recording"
    found = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _ask(target: str, action: launcher_actions.Extended, seconds: float) -> tuple[Record, Instance]:
    name, position = manage.target(target)
    with census.opened(name) as record:
        instance = lifecycle.instance_up(record, position)
        streamer = wares.present(record) / "bin" / _STREAMER
        if not os.access(streamer, os.X_OK):
            raise HostLacks(
                f"the host package of {name} cannot record its screen",
                f"It has no streamer: {streamer} does not exist.",
                f"One picture can be had: cfctl display {target} screenshot FILE.png",
            )
        try:
            lifecycle.ask(record, instance, action, seconds=seconds)
        except MonitorRefused as error:
            film = f"A viewer can film too, by way of the relay: cfctl screen {target} --record FILE.webm"
            raise MonitorRefused(error.brief, error.details, film) from error
        return record, instance
