"""What the machine of an engine has: device nodes, limits, lock directories. Asked, never remembered."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import locks, paths
from cfctl.docker import helper, names
from cfctl.docker.engine import asking
from cfctl.docker.request import NEEDED, WELCOME, Machine
from cfctl.errors import HostLacks

if TYPE_CHECKING:
    from cfctl.docker.engine import Engine

_GPU_NODES = ("dri/renderD*", "nvidia*")


def look(engine: Engine, image: str, name: str) -> Machine:
    """Return what the machine has that the engine is on.

    :param image: of cfctl: on another machine, a container of it looks around in /dev.
    :param name: of the container that is to be made.
    """
    nvidia, podman = _has_nvidia(engine), _is_podman(engine)
    if engine.is_local:
        return Machine(
            nodes=frozenset(_nodes(Path("/dev"))),
            nvidia=nvidia,
            podman=podman,
            nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            group=_group(Path("/etc/group").read_text()),
            lock_directories=_lock_directories(),
        )
    nodes, nofile, group = _look_around(engine, image, name)
    return Machine(nodes=frozenset(nodes), nvidia=nvidia, podman=podman, nofile=nofile, group=group)


def _group(text: str) -> int | None:
    """Return the number of the group in a file of groups (group(5))."""
    fields = (line.split(":") for line in text.splitlines())
    return next((int(found[2]) for found in fields if found[0] == names.GROUP and len(found) > 2), None)


def _nodes(dev: Path) -> list[str]:
    fixed = [node for node in (*NEEDED, *WELCOME) if (dev / node.removeprefix("/dev/")).exists()]
    found = (path for pattern in _GPU_NODES for path in dev.glob(pattern) if path.is_char_device())
    return [*fixed, *(f"/dev/{path.relative_to(dev)}" for path in found)]


def _look_around(engine: Engine, image: str, name: str) -> tuple[list[str], int | None, int | None]:
    """Return the machine's device nodes, the limit of open files that containers have there, and the group."""
    command = ["sh", "-c", "ulimit -Hn; find /host-dev -maxdepth 2 -type c; echo; cat /host-group"]
    with (
        asking("look which devices its machine has"),
        helper.made(
            engine, image, command, of=name, binds=["/dev:/host-dev:ro", "/etc/group:/host-group:ro"]
        ) as container,
    ):
        container.start()
        container.wait()
        said = container.logs(stdout=True, stderr=False)
    devices, _, groups = said.decode(errors="replace").partition("\n\n")
    limit, *found = devices.split()
    nodes = (path.replace("/host-dev", "/dev", 1) for path in found)
    wanted = (*NEEDED, *WELCOME)
    kept = [node for node in nodes if node in wanted or node.startswith(("/dev/dri/render", "/dev/nvidia"))]
    return kept, int(limit) if limit.isdecimal() else None, _group(groups)


def _has_nvidia(engine: Engine) -> bool:
    with asking("say what it can do"):
        info = engine.api.info()
    return "nvidia" in (info.get("Runtimes") or {})


def _is_podman(engine: Engine) -> bool:
    with asking("say which it is"):
        components = engine.api.version().get("Components") or []
    return any("podman" in str(component.get("Name")).lower() for component in components)


def _lock_directories() -> tuple[str, ...]:
    """Return today's lock directory, made as bare metal would make it, and the older ones that are there."""
    first, *others = paths.instance_lock_directories()
    # An ordinary user of Docker need not be a member of cvdnetwork; the engine makes the directory then.
    with contextlib.suppress(HostLacks):
        locks.make_directory(first)
    return (str(first), *(str(path) for path in others if path.is_dir()))
