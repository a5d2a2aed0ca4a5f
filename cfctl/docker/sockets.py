"""Where the sockets of a device in a container are on this machine, for `control`, `console` and the relay.

Inside they lie where every launcher puts them, ``/tmp/cf_avd_1000/cvd-N``. That directory is a bind mount, so whoever
may enter it out here connects to the very same sockets, as those of a device beside the container.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.docker import contained, container, names
from cfctl.docker.engine import connect
from cfctl.errors import EngineElsewhere, HostLacks, UsageError
from cfctl.instance import Instance

if TYPE_CHECKING:
    from cfctl.docker.container import Container

_MONITOR = "launcher_monitor.sock"


def directory_of(name: str, position: int = 1, *, engine: str | None = None) -> Path:
    """Return the directory with the sockets of one instance of the device in a container that runs.

    :param name: of the container.
    :param position: of the instance, the first is 1.
    :param engine: where it is; None is wherever this user has made one of that name, else what docker would take.
    :raises NoSuchContainer: if there is none of that name.
    :raises NotRunning: if it does not run.
    :raises UsageError: if it has no such instance.
    :raises EngineElsewhere: if it is on another machine.
    :raises HostLacks: if this user may not enter the directory.
    """
    where = engine or contained.engine_of(name)
    return directory(container.running(connect(where), name), position)


def directory(box: Container, position: int = 1) -> Path:
    """Return the same for a container that was found already, and known to run."""
    numbers = box.numbers
    if not 1 <= position <= len(numbers):
        raise UsageError(f"device {box.name} has {len(numbers)} instance(s), no {position}")
    if not box.engine.is_local:
        raise EngineElsewhere(
            f"the sockets of {box.name} are on another machine",
            f"Its engine is {box.engine.url}.",
            f"Do it in the container: cfctl docker login --engine {box.engine.name} {box.name} -- cfctl ...",
        )
    if not os.access(box.sockets, os.R_OK | os.X_OK):
        raise HostLacks(
            f"the sockets of {box.name} are not for this user",
            f"{box.sockets} is for root, for members of group {names.GROUP}, and for user number {names.UID}, who "
            "owns the device inside.",
            f"Do it as root (sudo), or in the container: cfctl docker login {box.name} -- cfctl ...",
        )
    return box.sockets / Instance(numbers[position - 1]).id


def monitor(name: str, position: int = 1, *, engine: str | None = None) -> Path:
    """Return the launcher monitor of an instance; see :func:`directory_of`."""
    return directory_of(name, position, engine=engine) / _MONITOR
