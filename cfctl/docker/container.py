"""Containers of cfctl on one engine: what is known of them. Found by our label, never by image or name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import paths, steps
from cfctl.docker import names
from cfctl.docker.engine import asking
from cfctl.docker.wish import Wish, check_name
from cfctl.errors import ContainerNameTaken, NoSuchContainer, NotRunning
from cfctl.instance import MAX_INSTANCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.docker.engine import Engine


@dataclass(frozen=True)
class Container:
    """A container of cfctl, as it was when it was looked at.

    :param attributes: what the engine says about it.
    """

    engine: Engine
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.attributes["Name"]).removeprefix("/")

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return str(self.attributes["Id"])

    @property
    def state(self) -> str:
        """``running``, ``exited``, ``created``, ...: the engine's word."""
        return str(self.attributes["State"]["Status"])

    @property
    def is_running(self) -> bool:
        """Whether its processes run; those of a paused one do not."""
        return bool(self.attributes["State"]["Running"]) and not self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether somebody has frozen its processes."""
        return bool(self.attributes["State"].get("Paused"))

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.attributes["Config"]["Labels"] or {}

    @property
    def wish(self) -> Wish:
        """What was asked for."""
        return msgspec.json.decode(self.labels[names.REQUEST], type=Wish)

    @property
    def numbers(self) -> list[int]:
        """The numbers of its instances."""
        first, count = int(self.labels[names.INSTANCE]), int(self.labels[names.COUNT])
        return list(range(first, first + count))

    @property
    def is_understood(self) -> bool:
        """Whether its labels are as cfctl writes them; anybody may write some."""
        try:
            numbers = self.numbers if self.wish else []
        except (msgspec.DecodeError, ValueError, KeyError):
            return False
        return bool(numbers) and numbers[0] >= 1 and numbers[-1] <= MAX_INSTANCES

    @property
    def address(self) -> str | None:
        """Its address in the first network that gives it one; None if it has none that can be reached."""
        networks = self.attributes["NetworkSettings"]["Networks"] or {}
        return next((net["IPAddress"] for net in networks.values() if net.get("IPAddress")), None)

    @property
    def sockets(self) -> Path:
        """The directory of the engine's machine with its devices' sockets."""
        return Path(mounted(self, names.SOCKETS) or paths.SYSTEM_RUNTIME)

    def again(self) -> Container:
        """Return it as it is now.

        :raises NoSuchContainer: if it is gone.
        """
        return find(self.engine, self.name)


def inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    """Return what the engine says about any container, by its name or its whole id; None if there is none."""
    from docker.errors import NotFound

    with asking(f"tell about {name}"):
        try:
            attributes: dict[str, Any] = engine.api.api.inspect_container(name)
        except NotFound:
            return None
    # An engine also takes the beginning of an id: it would show another's container for a name such as "a1".
    return attributes if name in (attributes["Id"], attributes["Name"].removeprefix("/")) else None


def numbered(engine: Engine) -> list[Mapping[str, Any]]:
    """Return a summary of every container that has an instance number: ours, and those of upstream's scripts."""
    with asking("list its containers"):
        found: list[Mapping[str, Any]] = engine.api.api.containers(all=True, filters={"label": names.INSTANCE})
    return found


def list_all(engine: Engine) -> list[Container]:
    """Return all containers of cfctl on an engine, by name; one with senseless labels is left out with a note."""
    ours = [summary["Id"] for summary in numbered(engine) if names.REQUEST in summary["Labels"]]
    found = [Container(engine, attributes) for id_ in ours if (attributes := inspect(engine, id_))]
    for one in found:
        if not one.is_understood:
            steps.note(f"{one.name}: left out, its labels are not what cfctl writes: docker inspect {one.name}")
    return sorted((one for one in found if one.is_understood), key=lambda container: container.name)


def find(engine: Engine, name: str) -> Container:
    """Return a container of cfctl.

    :raises NoSuchContainer: if there is none of that name.
    :raises ContainerNameTaken: if it is not ours, or nobody knows what it is.
    """
    attributes = inspect(engine, check_name(name))
    if attributes is None:
        raise NoSuchContainer(name, [container.name for container in list_all(engine)])
    if names.REQUEST not in (attributes["Config"]["Labels"] or {}):
        raise ContainerNameTaken(
            f"the container {name!r} is not cfctl's",
            f"It has no label {names.REQUEST}, and was not touched.",
            f"Look at it: docker inspect {name}",
        )
    container = Container(engine, attributes)
    if not container.is_understood:
        raise ContainerNameTaken(
            f"the labels of the container {name!r} are not what cfctl writes",
            "It was not touched.",
            f"Look at it: docker inspect {name}\nRemove it: docker rm -f {name}",
        )
    return container


def running(engine: Engine, name: str) -> Container:
    """Return a container that runs.

    :raises NotRunning: if it does not.
    """
    container = find(engine, name)
    if not container.is_running:
        raise NotRunning(f"the container {name} is {container.state}", None, f"Start it: cfctl docker start {name}")
    return container


def thaw(container: Container) -> Container:
    """Return a container with its processes running again if somebody has frozen them."""
    if not container.is_paused:
        return container
    with asking(f"let {container.name} go on, which is paused"):
        container.engine.api.api.unpause(container.id)
    return container.again()


def home(container: Container) -> str | None:
    """Return the directory of the engine's machine that is the home of the container's user."""
    return mounted(container, names.HOME)


def mounted(container: Container, inside: str) -> str | None:
    """Return the directory of the engine's machine that is mounted on a place inside; None if nothing is."""
    mounts = container.attributes.get("Mounts") or []
    return next((mount["Source"] for mount in mounts if mount["Destination"] == inside), None)
