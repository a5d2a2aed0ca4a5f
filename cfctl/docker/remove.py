"""Stops containers and removes them with all that belongs to them."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.docker import container as containers
from cfctl.docker import helper, names, publish, request, store
from cfctl.docker.container import Container
from cfctl.docker.engine import asking
from cfctl.errors import EngineRefused, NoSuchContainer

if TYPE_CHECKING:
    from cfctl.docker.engine import Engine


def stop(container: Container) -> None:
    """Stop a container; its first process stops the device before."""
    with steps.step(f"stop container {container.name}"), asking(f"stop container {container.name}"):
        container.engine.api.api.stop(container.id, timeout=request.STOP_TIMEOUT_S)


def remove(engine: Engine, name: str, *, keep_home: bool = False) -> None:
    """Remove a container with its volumes, keys, published ports and sockets; what is gone already is no error.

    :param keep_home: leave the volume with its devices' disks for another container of the name.
    :raises NoSuchContainer: if nothing of that name is there.
    :raises ContainerNameTaken: if it is not ours.
    """
    try:
        container = containers.find(engine, name)
    except NoSuchContainer:
        # A removal that was killed half-way has left volumes or keys.
        if not (leftovers(engine, name) or store.load(engine.url, name)):
            raise
        container = None
    publish.close_all(engine.url, name)
    if container is not None and container.is_running:
        # In order, so that the sockets on the engine's machine are removed by those who made them.
        with contextlib.suppress(EngineRefused):
            stop(container)
    all_of(engine, name, container, keep_home=keep_home)


def leftovers(engine: Engine, name: str) -> list[Any]:
    """Return the volumes that there are of a container, in the order in which they can be removed."""
    from docker.errors import NotFound

    found = []
    with asking("look for volumes"):
        for volume in request.volumes(name):
            with contextlib.suppress(NotFound):
                found.append(engine.api.volumes.get(volume))
    return found


def all_of(engine: Engine, name: str, container: Container | None = None, *, keep_home: bool = False) -> None:
    """Remove whatever there is of a container, in whatever state.

    :param container: as it was, if it is known: its directories outside of the engine go too.
    """
    from docker.errors import NotFound

    attributes = containers.inspect(engine, name)
    if attributes is not None and names.REQUEST in (attributes["Config"]["Labels"] or {}):
        container = Container(engine, attributes)
        with asking(f"remove container {name}"), contextlib.suppress(NotFound):
            engine.api.api.remove_container(container.id, force=True, v=True)
    helper.remove(engine, of=name)
    with asking(f"remove the volumes of {name}"):
        for volume in leftovers(engine, name):
            if not (keep_home and volume.name == request.home_volume(name)):
                volume.remove()
    record = store.load(engine.url, name)
    sockets = containers.mounted(container, names.SOCKETS) if container else record.sockets if record else None
    if engine.is_local and sockets is not None:
        shutil.rmtree(sockets, ignore_errors=True)
    store.remove(engine.url, name)
