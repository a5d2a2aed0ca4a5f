"""What the machine of an engine has: device nodes, limits, lock directories. Asked, never remembered."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import locks, paths
from cfctl.docker.engine import asking
from cfctl.docker.request import NEEDED, WELCOME, Machine
from cfctl.errors import HostLacks

if TYPE_CHECKING:
    from cfctl.docker.engine import Engine

_GPU_NODES = ("dri/renderD*", "nvidia*")


def look(engine: Engine, image: str) -> Machine:
    """Return what the machine has that the engine is on.

    :param image: of cfctl: on another machine, a container of it looks around in /dev.
    """
    nvidia = _has_nvidia(engine)
    if engine.is_local:
        return Machine(
            nodes=frozenset(_nodes(Path("/dev"))),
            nvidia=nvidia,
            nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            lock_directories=_lock_directories(),
        )
    nofile, *nodes = _look_around(engine, image)
    return Machine(nodes=frozenset(nodes), nvidia=nvidia, nofile=int(nofile) if nofile.isdecimal() else None)


def _nodes(dev: Path) -> list[str]:
    fixed = [node for node in (*NEEDED, *WELCOME) if (dev / node.removeprefix("/dev/")).exists()]
    found = (path for pattern in _GPU_NODES for path in dev.glob(pattern) if path.is_char_device())
    return [*fixed, *(f"/dev/{path.relative_to(dev)}" for path in found)]


def _look_around(engine: Engine, image: str) -> list[str]:
    """Return the hard limit of open files that containers have there, and the machine's device nodes."""
    with asking("look which devices its machine has"):
        said = engine.api.containers.run(
            image,
            ["-c", "ulimit -Hn; find /host-dev -maxdepth 2 -type c"],
            entrypoint="sh",
            volumes={"/dev": {"bind": "/host-dev", "mode": "ro"}},
            network_mode="none",
            cap_drop=["ALL"],
            remove=True,
        )
    limit, *found = said.decode().split()
    nodes = (path.replace("/host-dev", "/dev", 1) for path in found)
    wanted = (*NEEDED, *WELCOME)
    return [limit, *(node for node in nodes if node in wanted or node.startswith(("/dev/dri/render", "/dev/nvidia")))]


def _has_nvidia(engine: Engine) -> bool:
    with asking("say what it can do"):
        info = engine.api.info()
    return "nvidia" in (info.get("Runtimes") or {})


def _lock_directories() -> tuple[str, ...]:
    """Return today's lock directory, made as bare metal would make it, and the older ones that are there."""
    first, *others = paths.instance_lock_directories()
    # An ordinary user of Docker need not be a member of cvdnetwork; the engine makes the directory then.
    with contextlib.suppress(HostLacks):
        locks.make_directory(first)
    return (str(first), *(str(path) for path in others if path.is_dir()))
