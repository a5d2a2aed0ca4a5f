"""Which verb of ``cfctl`` does what a call asks for; devices in containers have verbs of their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.relay.lists import Found
    from cfctl.v1 import devices_pb2

#: What names are made of, of devices and of containers: none is taken for an option.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(/[0-9]{1,3})?")

#: What runs a command in a container: through the engine, so that its words stay words.
INSIDE = ("docker", "login", "--exec")

_LOGS = ("kernel", "launcher", "launch")


def stop(found: Found) -> list[str]:
    """Return what stops a device."""
    return [*_verb(found, "stop"), *_events(found), _name(found.container or found.name)]


def restart(found: Found, request: devices_pb2.RestartRequest) -> list[str]:
    """Return what boots a device again.

    :raises UsageError: for a timeout nobody waits for.
    """
    return [*_verb(found, "restart"), *_events(found), _name(found.container or found.name), *waiting(request)]


def waiting(request: devices_pb2.RestartRequest | devices_pb2.LaunchRequest) -> list[str]:
    """Return the options that say for how long a boot is waited for.

    :raises UsageError: for a timeout nobody waits for.
    """
    if request.no_wait and request.timeout_s:
        raise UsageError("timeout_s and no_wait contradict each other", "Without waiting nobody watches the clock.")
    return ["--no-wait"] if request.no_wait else ["--timeout", str(request.timeout_s)] if request.timeout_s else []


def logs(found: Found, request: devices_pb2.LogsRequest) -> list[str]:
    """Return what prints a log.

    :raises UsageError: for a log that there is not.
    """
    if request.which not in ("", *_LOGS):
        raise UsageError(f"there is no log {request.which[:50]!r}", f"Logs: {', '.join(_LOGS)}.")
    options = [*(["--which", request.which] if request.which else []), *(["--follow"] if request.follow else [])]
    options += ["--lines", str(request.lines)] if request.HasField("lines") else []
    return [*_verb(found, "logs"), _name(found.container or found.target), *options]


def control(found: Found, verb: str, words: Sequence[str]) -> list[str]:
    """Return what asks a VM for something; one in a container is asked by the ``cfctl`` in there."""
    asked = [verb, _name(found.target), *words]
    return asked if found.container is None else [*INSIDE, _name(found.container), "--", "cfctl", *asked]


def _verb(found: Found, verb: str) -> list[str]:
    return ["docker", verb] if found.container else [verb]


def _events(found: Found) -> list[str]:
    return [] if found.container else ["--events"]


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:100]!r} is no name that a relay can hand on")
    return name
