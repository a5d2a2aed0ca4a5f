"""Reaching a device with the ``adb`` client of this host and its one server per user."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Mapping

_CALL_S = 30.0


def connect(serial: str, *, seconds: float = 15.0, env: Mapping[str, str] | None = None) -> None:
    """Connect the adb server to a device, so that ``adb -s SERIAL`` works.

    The server remembers a device that was stopped, and takes the next one on its port for a living connection
    (``already connected``, yet ``offline``): such a memory is dropped first.

    :param serial: the device's address, ``127.0.0.1:6520``.
    :param seconds: how long to try.
    :param env: the whole environment, to reach another server than the user's.
    :raises MissingCommand: if adb is not installed.
    :raises DeadlinePassed: if the device does not answer; the server is left without it.
    """
    deadline = time.monotonic() + seconds
    while True:
        said = process.run(["adb", "connect", serial], timeout=_CALL_S, env=env, success=None)
        state = process.run(["adb", "-s", serial, "get-state"], timeout=_CALL_S, env=env, success=None)
        if state.stdout.strip() == "device":
            return
        process.run(["adb", "disconnect", serial], timeout=_CALL_S, env=env, success=None)
        if time.monotonic() > deadline:
            raise DeadlinePassed(
                f"adb does not reach {serial} within {seconds:g} s",
                f"{(said.stdout + said.stderr).strip()}; its state: {(state.stdout + state.stderr).strip()}",
                "See how far the device has booted: cfctl ps, cfctl logs NAME",
            )
        time.sleep(0.1)
