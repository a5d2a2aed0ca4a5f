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

#: cfctl's own Python in every container (cfctl/docker/names.py).
PYTHON_INSIDE = "/opt/cfctl/bin/python"

_LOGS = ("kernel", "console", "launcher", "launch")


def stop(found: Found) -> list[str]:
    """Return what stops a device."""
    events = [] if found.container else ["--events"]
    return [*_verb(found, "stop"), *events, _name(found.container or found.name)]


def restart(found: Found, request: devices_pb2.RestartRequest) -> list[str]:
    """Return what boots a device again.

    :raises UsageError: for a timeout nobody waits for.
    """
    return [*_verb(found, "restart"), "--events", _name(found.container or found.name), *waiting(request)]


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
    return asked if found.container is None else [*_inside(found, found.container), "cfctl", *asked]


def sitting(found: Found, service: str) -> list[str]:
    """Return the module, and its arguments, that sits at a service of a device (:mod:`cfctl.relay.sit`)."""
    asked = ["cfctl.relay.sit", service, _name(found.target)]
    if found.container is None:
        return asked
    return ["cfctl", *_inside(found, found.container), PYTHON_INSIDE, "-P", "-m", *asked]


def _inside(found: Found, container: str) -> list[str]:
    return [*INSIDE, *_engine(found), _name(container), "--"]


def _verb(found: Found, verb: str) -> list[str]:
    return ["docker", verb, *_engine(found)] if found.container else [verb]


def _engine(found: Found) -> list[str]:
    """Return the option that names the container's engine: it need not be the one that docker would take."""
    return [f"--engine={found.engine}"] if found.engine else []


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:100]!r} is no name that a relay can hand on")
    return name
