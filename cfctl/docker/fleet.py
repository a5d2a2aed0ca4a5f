"""Fleets: what a file says should be, what the engines have, and the plan that leads from one to the other.

Everything here is a pure function of the two; rollout.py asks the engines and carries the plan out.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from cfctl.docker.image import DEFAULT_TAG
from cfctl.docker.wish import Share, Wish, check, check_name
from cfctl.errors import ContainerNameTaken, NumberTaken, UsageError
from cfctl.gpu import modes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: What the only host of a file without ``[hosts]`` is called.
ONLY_HOST = "default"


class HostEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[hosts.NAME]``: an engine.

    :param engine: a Docker context or an address such as ssh://USER@MACHINE; without it, what docker would take.
    :param capacity: how many instances it may have; without it, it has no limit, and its processors decide its share.
    """

    engine: str | None = None
    capacity: int | None = None


class DeviceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[devices.NAME]``: one container, or ``count`` of them, NAME-1 to NAME-COUNT.

    :param boot: its device is to run; otherwise there is only the container.
    :param publish: ports of the container, PORT or HERE:PORT; ``["adb"]`` is every instance's ADB.
    :param hosts: only on these.
    """

    count: int | None = None
    image: str = DEFAULT_TAG
    num_instances: int = 1
    cpus: int | None = None
    memory_mb: int | None = None
    gpu: str = "auto"
    network: str = "bridge"
    restart: str = "no"
    host_package: str | None = None
    images: str | None = None
    share: tuple[str, ...] = ()
    env: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    boot: bool = True
    publish: tuple[str, ...] = ("adb",)
    hosts: tuple[str, ...] = ()


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fleet file; its JSON schema is docs/schema/fleet-file.json.

    :param name: what the fleet is called; without it, the file's name.
    """

    devices: dict[str, DeviceEntry]
    name: str | None = None
    hosts: dict[str, HostEntry] = {}


@dataclass(frozen=True)
class Member:
    """One container that the fleet should have."""

    name: str
    wish: Wish
    boot: bool
    publish: tuple[str, ...]
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Fleet:
    """What a file says, with nothing left to be read from it."""

    name: str
    hosts: Mapping[str, HostEntry]
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Seen:
    """A container that an engine has.

    :param fleet: the fleet that it belongs to, if any.
    :param wish: what it was made from; None if it is not cfctl's.
    :param image_current: it was made from what its image's name means now.
    :param up: its device runs.
    :param published: the ports inside that are published here, and forwarded.
    """

    host: str
    name: str
    fleet: str | None
    wish: Wish | None
    image_current: bool = True
    up: bool = False
    published: frozenset[int] = frozenset()
    adb_ports: frozenset[int] = frozenset()
    count: int = 1


Action = Literal["create", "replace", "start", "publish", "remove"]


@dataclass(frozen=True)
class Change:
    """One thing to do, and why."""

    action: Action
    name: str
    host: str
    reason: str
    member: Member | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, str]:
        """Return the change as the contract shows it."""
        return {"action": self.action, "object": self.name, "host": self.host, "reason": self.reason}


def load(path: Path) -> Fleet:
    """Read a fleet file.

    :raises UsageError: for a file that cannot be read or makes no sense, naming the place.
    """
    try:
        text = path.read_text()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read", exc.strerror, "docs/docker.md shows a fleet file") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} cannot be read", str(exc)) from exc
    return parse(text, name=path.stem, source=str(path))


def parse(text: str, *, name: str, source: str) -> Fleet:
    """Read the text of a fleet file.

    :param name: of the fleet, unless the file says otherwise.
    :param source: the file, for messages.
    :raises UsageError: see :func:`load`.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), type=FleetFile)
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{source} is not a TOML file", str(exc)) from exc
    except msgspec.ValidationError as exc:
        raise UsageError(
            f"{source} is not a fleet file",
            str(exc),
            "docs/docker.md shows one; docs/schema/fleet-file.json says all",
        ) from exc
    hosts = dict(file.hosts) or {ONLY_HOST: HostEntry()}
    members: list[Member] = []
    for key, entry in file.devices.items():
        try:
            members += _members(key, entry, hosts)
        except UsageError as error:
            raise UsageError(f"{source}, [devices.{key}]: {error.brief}", error.details, error.resolution) from error
    doubled = {member.name for member in members if sum(other.name == member.name for other in members) > 1}
    if doubled:
        raise UsageError(
            f"{source} names {', '.join(sorted(doubled))} twice", "NAME with a count makes NAME-1 and so on."
        )
    return Fleet(_fleet_name(file.name or name), hosts, tuple(members))


def _fleet_name(name: str) -> str:
    try:
        return check_name(name)
    except UsageError as error:
        raise UsageError(
            f"{name!r} is not a name for a fleet", error.details, 'Say in the file what it is called: name = "farm"'
        ) from error


def _members(key: str, entry: DeviceEntry, hosts: Mapping[str, HostEntry]) -> list[Member]:
    modes.check(entry.gpu)
    if entry.count is not None and entry.count < 0:
        raise UsageError(f"a count of {entry.count} makes no sense")
    for host in entry.hosts:
        if host not in hosts:
            raise UsageError(f"there is no host {host!r}", f"Hosts: {', '.join(hosts)}.")
    fixed = [text for text in entry.publish if ":" in text]
    if fixed and (entry.count or 1) > 1:
        raise UsageError(f"{fixed[0]} cannot be published by {entry.count} containers", "A port is there once.")
    wish = Wish(
        image=entry.image,
        num_instances=entry.num_instances,
        cpus=entry.cpus,
        memory_mb=entry.memory_mb,
        gpu=entry.gpu,
        network=entry.network,
        restart=entry.restart,
        host_package=entry.host_package,
        images=entry.images,
        shares=tuple(map(Share.parse, entry.share)),
        env=entry.env,
        flags=entry.flags,
    )
    check(wish)
    names = [key] if entry.count is None else [f"{key}-{number}" for number in range(1, entry.count + 1)]
    return [Member(check_name(name), wish, entry.boot, entry.publish, entry.hosts) for name in names]


def plan(fleet: Fleet, seen: Sequence[Seen], weights: Mapping[str, int]) -> list[Change]:
    """Return what must be done, in order: removals first, for they make room, then member by member.

    :param seen: every container of every host that has an instance number, or a name that the fleet needs.
    :param weights: host -> how much it can do, compared with the others.
    :raises ContainerNameTaken: if a container that is not the fleet's has a name that it needs.
    :raises NumberTaken: if the hosts' capacities do not suffice.
    """
    wanted = {member.name: member for member in fleet.members}
    have: dict[str, Seen] = {}
    removed: list[Change] = []
    for one in seen:
        if one.fleet != fleet.name:
            continue
        if one.name not in wanted:
            removed.append(Change("remove", one.name, one.host, "the file does not name it"))
        elif wanted[one.name].hosts and one.host not in wanted[one.name].hosts:
            removed.append(Change("remove", one.name, one.host, "the file wants it elsewhere"))
        elif one.name in have:
            removed.append(Change("remove", one.name, one.host, f"it is on {have[one.name].host} as well"))
        else:
            have[one.name] = one
    _refuse_strangers(fleet, seen, have)
    going = {(change.name, change.host) for change in removed}
    used = {
        host: sum(one.count for one in seen if one.host == host and (one.name, one.host) not in going)
        for host in fleet.hosts
    }
    changes = list(removed)
    for member in fleet.members:
        if member.name in have:
            changes += _mend(member, have[member.name])
        else:
            host = _place(fleet, member, used, weights)
            used[host] += member.wish.num_instances
            changes.append(Change("create", member.name, host, "it is not there", member))
    return changes


def _refuse_strangers(fleet: Fleet, seen: Sequence[Seen], have: Mapping[str, Seen]) -> None:
    for member in fleet.members:
        for one in seen:
            if one.name == member.name and one.fleet != fleet.name and member.name not in have:
                whose = f"of fleet {one.fleet}" if one.fleet else "not of a fleet" if one.wish else "not cfctl's"
                raise ContainerNameTaken(
                    f"a container named {one.name!r} on {one.host} is {whose}",
                    f"The fleet {fleet.name} needs the name. Nothing was changed.",
                    f"Give the fleet's another name, or remove it: cfctl docker rm {one.name}",
                )


def _mend(member: Member, one: Seen) -> list[Change]:
    """Return what a container lacks of what it should be; the first reason that needs a new one says it all."""
    if one.wish is None or (differences := _differences(one.wish, member.wish)):
        said = ", ".join(differences) if one.wish else "it is not cfctl's"
        return [Change("replace", member.name, one.host, said, member)]
    if not one.image_current:
        return [Change("replace", member.name, one.host, f"the image {member.wish.image} is another by now", member)]
    if member.boot and not one.up:
        return [Change("start", member.name, one.host, "its device is not up", member)]
    missing = wanted_ports(member, one.adb_ports) - one.published
    if missing:
        ports = ", ".join(map(str, sorted(missing)))
        return [Change("publish", member.name, one.host, f"port {ports} is not published", member)]
    return []


def _differences(have: Wish, want: Wish) -> list[str]:
    found = []
    for name in Wish.__struct_fields__:
        before, after = getattr(have, name), getattr(want, name)
        if before != after:
            found.append(f"{name} is {_shown(before)}, not {_shown(after)}")
    return found


def _shown(value: object) -> str:
    return "the default" if value in (None, (), {}) else str(value)


def wanted_ports(member: Member, adb_ports: frozenset[int]) -> frozenset[int]:
    """Return the ports inside that a member publishes.

    :raises UsageError: for what is no port.
    """
    ports: set[int] = set()
    for text in member.publish:
        if text == "adb":
            ports |= adb_ports
            continue
        try:
            ports.add(int(text.rpartition(":")[2]))
        except ValueError:
            raise UsageError(f"{member.name} cannot publish {text!r}", "It is adb, PORT or HERE:PORT.") from None
    return frozenset(ports)


def _place(fleet: Fleet, member: Member, used: Mapping[str, int], weights: Mapping[str, int]) -> str:
    """Return the host that is the least loaded for what it can do, among those with room."""
    need = member.wish.num_instances
    fitting = []
    for host, entry in fleet.hosts.items():
        if member.hosts and host not in member.hosts:
            continue
        if entry.capacity is not None and used[host] + need > entry.capacity:
            continue
        weight = entry.capacity or max(weights.get(host, 1), 1)
        fitting.append(((used[host] + need) / weight, host))
    if not fitting:
        loads = ", ".join(f"{host} has {used[host]} of {entry.capacity}" for host, entry in fleet.hosts.items())
        raise NumberTaken(
            f"no host has room for {member.name}",
            f"{loads}.",
            "Raise a host's capacity, add a host, or lower a count in the file",
        )
    # Equal loads: the file's order decides, so that the same file makes the same plan.
    order = list(fleet.hosts)
    return min(fitting, key=lambda pair: (pair[0], order.index(pair[1])))[1]
