"""Carries fleets out: asks the engines what they have, makes the plan, and does it, few at a time."""

from __future__ import annotations

import contextlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from cfctl import steps
from cfctl.artifacts import store as cache
from cfctl.docker import container as containers
from cfctl.docker import create, device, fleet, names, publish, remove, store, wares
from cfctl.docker import engine as engines
from cfctl.docker.engine import asking
from cfctl.docker.fleet import Change, Fleet, Member, Seen
from cfctl.errors import CfctlError, EngineElsewhere
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.docker.container import Container
    from cfctl.docker.engine import Engine

#: States of a device that has what it needs to come up, or has.
_UP = ("booting", "running", "suspended")


@dataclass(frozen=True)
class Rollout:
    """A plan, and the engines that it is for.

    :param entries: what of the cache the containers mount.
    """

    fleet: Fleet
    engines: Mapping[str, Engine]
    changes: tuple[Change, ...]
    absent: bool
    entries: tuple[cache.Entry, ...] = ()

    @property
    def state(self) -> str:
        """``ready``, ``absent`` or ``drift``."""
        if not self.changes:
            return "ready"
        return "absent" if self.absent else "drift"

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as the contract shows it (docs/schema/fleet.json)."""
        return {
            "fleet": self.fleet.name,
            "state": self.state,
            "hosts": {name: engine.url for name, engine in self.engines.items()},
            "changes": [change.as_dict() for change in self.changes],
        }


def prepare(wanted: Fleet) -> Rollout:
    """Look at every host of a fleet and make the plan; changes nothing but the cache, where archives are unpacked.

    :raises EngineUnreachable: if a host's engine does not answer.
    :raises CfctlError: see :func:`fleet.plan`.
    """
    found, seen, weights = _look(wanted)
    wanted, entries = _with_directories(wanted, found)
    changes = fleet.plan(wanted, seen, weights)
    absent = not any(one.fleet == wanted.name for one in seen)
    return Rollout(wanted, found, tuple(changes), absent, entries)


def _with_directories(wanted: Fleet, found: Mapping[str, Engine]) -> tuple[Fleet, tuple[cache.Entry, ...]]:
    """Put directories of the cache in the place of names and archives; whoever has them is for engines here."""
    here = [host for host, engine in found.items() if engine.is_local]
    members, entries = [], []
    for member in wanted.members:
        wish = member.wish
        if all(map(wares.means_another_machine, (wish.host_package, wish.images))):
            members.append(member)
            continue
        hosts = tuple(host for host in here if host in (member.hosts or here))
        if not hosts:
            raise EngineElsewhere(
                f"{member.name} takes {wish.host_package or wish.images} of this machine, and can only be on others",
                "A container mounts directories of the machine that it is on.",
                'Give directories of that machine, from its root: host_package = "/DIR"',
            )
        choice = wares.choice_of(wish.host_package, wish.images)
        package, images = wares.directories(choice)
        entries += choice.entries
        wish = structs.replace(wish, host_package=package, images=images)
        members.append(replace(member, wish=wish, hosts=hosts))
    return replace(wanted, members=tuple(members)), tuple(entries)


def prepare_down(wanted: Fleet) -> Rollout:
    """Look for every container of a fleet, named by the file or not; changes nothing."""
    found, seen, _ = _look(wanted)
    changes = [
        Change("remove", one.name, one.host, "the fleet is taken down") for one in seen if one.fleet == wanted.name
    ]
    return Rollout(wanted, found, tuple(changes), absent=False)


def _look(wanted: Fleet) -> tuple[dict[str, Engine], list[Seen], dict[str, int]]:
    found = {name: engines.connect(entry.engine) for name, entry in wanted.hosts.items()}
    seen: list[Seen] = []
    weights = {}
    needed = {member.name for member in wanted.members}
    for host, engine in found.items():
        with asking("say what it can do"):
            weights[host] = int(engine.api.info().get("NCPU") or 1)
        ours = containers.list_all(engine)
        devices = device.all_devices([one for one in ours if one.labels.get(names.FLEET) == wanted.name])
        seen += [_seen(host, engine, one, devices.get(one.name, [])) for one in ours]
        known = {one.name for one in ours}
        with asking("list its containers"):
            everything = engine.api.api.containers(all=True)
        others = {name.removeprefix("/") for summary in everything for name in summary["Names"]} - known
        seen += [Seen(host, name, None, None, count=0) for name in sorted(others & needed)]
    return found, seen, weights


def _seen(host: str, engine: Engine, one: Container, devices: list[dict[str, Any]]) -> Seen:
    record = store.load(engine.url, one.name)
    ports = record.ports if record and record.id == one.id and publish.is_forwarding(record) else ()
    return Seen(
        host=host,
        name=one.name,
        fleet=one.labels.get(names.FLEET),
        wish=one.wish,
        image_current=_is_current(engine, one),
        up=any(device["state"] in _UP for device in devices),
        published=frozenset(port.inside for port in ports),
        adb_ports=frozenset(Instance(number).adb_port for number in one.numbers),
        count=len(one.numbers),
    )


def _is_current(engine: Engine, one: Container) -> bool:
    from cfctl.docker import image

    tagged = image.find(engine, one.wish.image)
    # An image that is gone cannot be what the container should be made from anew.
    return tagged is None or tagged.id == one.attributes["Image"]


def carry_out(rollout: Rollout, *, parallel: int, timeout: float) -> list[Change]:
    """Do what the plan says; at the first failure nothing new is begun, and what is under way comes to its end.

    :param parallel: how many containers are worked on at once; each must have booted before the next has its turn.
    :param timeout: seconds that a device may take to boot.
    :return: what was done.
    :raises CfctlError: the first failure; what was done before stays, and the next call goes on there.
    """
    with cache.held(rollout.entries):
        return _carry_out(rollout, parallel=parallel, timeout=timeout)


def _carry_out(rollout: Rollout, *, parallel: int, timeout: float) -> list[Change]:
    removals = [change for change in rollout.changes if change.action == "remove"]
    rest = [change for change in rollout.changes if change.action != "remove"]
    done = _each(rollout, removals, parallel=parallel, timeout=timeout)
    return done + _each(rollout, rest, parallel=parallel, timeout=timeout)


def _each(rollout: Rollout, changes: list[Change], *, parallel: int, timeout: float) -> list[Change]:
    done: list[Change] = []
    if parallel == 1 or len(changes) == 1:
        for change in changes:
            with steps.step(f"{change.action} {change.name} on {change.host}: {change.reason}"):
                _do(rollout, change, timeout)
            done.append(change)
        return done
    waiting = list(changes)
    running: dict[Future[None], Change] = {}
    failure: CfctlError | None = None
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        while running or (waiting and failure is None):
            while waiting and failure is None and len(running) < parallel:
                change = waiting.pop(0)
                running[pool.submit(_do, rollout, change, timeout)] = change
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                change = running.pop(future)
                try:
                    future.result()
                except CfctlError as error:
                    steps.note(f"FAILED {change.action} {change.name} on {change.host}: {error.brief}")
                    failure = failure or error
                else:
                    steps.note(f"ok     {change.action} {change.name} on {change.host}: {change.reason}")
                    done.append(change)
    if failure is not None:
        raise failure
    return done


def _do(rollout: Rollout, change: Change, timeout: float) -> None:
    engine = rollout.engines[change.host]
    if change.action == "remove":
        remove.remove(engine, change.name)
        return
    member = change.member
    assert member is not None  # noqa: S101 (every other change is made for a member)
    if change.action == "replace":
        # What there is goes only if something can come in its place.
        create.check_possible(engine, member.wish)
        old = containers.find(engine, change.name)
        numbers = old.numbers
        remove.remove(engine, change.name, keep_home=True)
        create.create(engine, change.name, member.wish, fleet=rollout.fleet.name, prefer=numbers)
    elif change.action == "create":
        create.create(engine, change.name, member.wish, fleet=rollout.fleet.name)
    if member.boot:
        device.start(engine, change.name, timeout=timeout)
    if member.publish:
        _publish(containers.find(engine, change.name), member)


def _publish(container: Container, member: Member) -> None:
    record = store.load(container.engine.url, container.name)
    have = {port.inside: port for port in record.ports} if record and record.id == container.id else {}
    ports = []
    for text in member.publish:
        ports += (
            publish.default_ports(container, publish.LOOPBACK)
            if text == "adb"
            else [publish.parse(text, publish.LOOPBACK)]
        )
    # What is published already stays where it is, on whichever port.
    with contextlib.suppress(CfctlError):
        publish.revive(container)
    publish.publish(container, [port for port in ports if port.inside not in have])
