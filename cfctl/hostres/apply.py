"""Carries a plan out, in the one order that is safe to be killed in.

The work is a list of steps. Whatever step it is killed in or after, the host can be read back and a new plan finishes
the work or takes it down again: nothing of ours is ever without its mark.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed, ForeignObject, HostLacks
from cfctl.hostres import (
    backends,
    background,
    dnsmasq,
    files,
    lazy,
    neighbours,
    observed,
    pod_interface,
    rtnetlink,
    safety,
    tap,
)
from cfctl.hostres.desired import GROUP, MARK, TAP_OPTIONS, Address, Link
from cfctl.hostres.observed import TEMPORARY
from cfctl.hostres.plan import Plan, rule_name, superfluous, upstream_leftovers
from cfctl.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cfctl.hostres.rules import Backend

_TIMEOUT_S = 60

#: A tap with one of these wrong must be opened to be mended; multi_queue cannot be mended at all.
_OPENING = {name for name, _ in TAP_OPTIONS}
_UNMENDABLE = ("multi_queue", "type")

#: What a tap that has just been made lacks.
_EVERYTHING = ("alias", "mac", "master", "isolated", "addresses", "mtu", "group_")


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of the work; all of it happens, or a later plan sees what is missing.

    :param beside: nothing after it needs it to be done, so that the rest goes on meanwhile.
    """

    title: str
    run: Callable[[], None]
    beside: bool = False


def run(plan: Plan) -> None:
    """Carry the plan out.

    :raises CfctlError: at the first step that fails; what was done stays, and another plan goes on from there.
    """
    with contextlib.ExitStack() as stack:
        unfinished = []
        for piece in steps(plan):
            if piece.beside:
                unfinished.append((piece.title, stack.enter_context(background.running(piece.run))))
                continue
            with step(piece.title):
                piece.run()
        for title, wait in unfinished:
            with step(title):
                wait()


def steps(plan: Plan) -> list[Step]:
    """Return the work in the order in which it is safe to be interrupted."""
    return [
        *_remember_pod(plan),
        # First: what a launch reads before it asks for taps, and a later set-up to know how many there are to be.
        *_write_mode(plan),
        # With the addresses, before the bridge goes: an interface whose bridge is deleted is none of its ports.
        *_give_pod_back(plan),
        *_group(plan),
        *_delete_links(plan),
        # Before its bridge is made anew: a server that stays bound to a bridge that is gone looks right and serves
        # nobody.
        *_stop_servers(plan),
        # Before the taps: no guest meets another before the rules forbid it.
        *_rules(plan),
        # Before there is an interface that one of them could take hold of.
        *_neighbours(plan),
        *_bridges(plan),
        *_taps(plan),
        *_bridge_sysctls(plan),
        # Where a host has IPv6 off for new interfaces, the bridge takes no address before.
        *_ipv6_addresses(plan),
        *_start_servers(plan),
        # When all is ready that takes the pod's place on its network.
        *_take_pod(plan),
        *_uplinks(plan),
        # Last of the set-up: a host whose set-up failed does not forward.
        *_forwarding(plan),
        # When all taps are there that a launch would else ask for.
        *_forget_mode(plan),
        *_files(plan),
    ]


# -- the pod's interface --------------------------------------------------------------------------------


def _remember_pod(plan: Plan) -> list[Step]:
    """Write down how the interface is before anything is changed; once it is changed, what was written stays."""
    wanted, found = plan.desired.pod, plan.observed.pod
    if not wanted or (found and found.taken):
        return []
    return [Step(f"write down how {wanted.interface} is", lambda: pod_interface.remember(wanted))]


def _take_pod(plan: Plan) -> list[Step]:
    wanted, found = plan.desired.pod, plan.observed.pod
    if not wanted or not plan.of("pod"):
        # A bridge that is made anew has no ports.
        return []
    addresses = found.addresses if found and found.taken else wanted.addresses
    title = f"give the VM the address of {wanted.interface}"
    return [Step(title, lambda: pod_interface.take(wanted, addresses))]


def _give_pod_back(plan: Plan) -> list[Step]:
    found = plan.observed.pod
    if plan.desired.pod or not found or not found.taken:
        return []
    return [Step(f"give {found.pod.interface} its address back", lambda: pod_interface.give_back(found.pod))]


def _write_mode(plan: Plan) -> list[Step]:
    record = plan.desired.lazy
    if record is None or not plan.of("mode"):
        return []
    return [Step("write down how taps are made on request", lambda: lazy.write(record))]


def _forget_mode(plan: Plan) -> list[Step]:
    return [Step("forget about taps on request", lazy.forget)] if plan.of("mode", "remove") else []


def _group(plan: Plan) -> list[Step]:
    if not plan.of("group"):
        return []

    def make() -> None:
        process.run(["groupadd", "--system", GROUP], timeout=_TIMEOUT_S)

    return [Step(f"make group {GROUP}", make)]


# -- links -----------------------------------------------------------------------------------------------


def _delete_links(plan: Plan) -> list[Step]:
    names = [change.name for kind in ("tap", "bridge") for change in plan.of(kind, "remove")]
    names += [change.name for change in plan.of("tap", "change") if _recreated(change.fields)]
    if not names:
        return []
    found = [plan.observed.links[name] for name in names]
    members = {link.link.name: (link.index, link.link.alias) for link in found}
    group = _unused_group(plan.observed.link_groups)
    return [
        Step(f"put {_count(names, 'interface')} aside", lambda: _put_aside([link.index for link in found], group)),
        # The kernel takes 0.15 s for 512 taps, half of it waiting. What is set up needs the names to be free.
        Step(f"delete {_count(names, 'interface')}", lambda: _delete_group(members, group), not plan.desired.links),
    ]


def _recreated(fields: Iterable[str]) -> bool:
    return any(name in _UNMENDABLE for name in fields)


def _unused_group(used: frozenset[str]) -> int:
    while True:
        # 31 bits: iproute2 prints and reads the number as an int.
        group = int.from_bytes(os.urandom(4), "little") >> 1
        if group and str(group) not in used:
            return group


def _put_aside(indexes: Sequence[int], group: int) -> None:
    """Put links into a link group of their own, which the kernel deletes in one go; singly each takes 30 ms."""
    try:
        rtnetlink.set_group(indexes, group)
    except OSError as exc:
        raise CfctlError(
            "the interfaces could not be put aside", exc.strerror, "Run it again; nothing was deleted."
        ) from exc


def _delete_group(expected: Mapping[str, tuple[int, str | None]], group: int) -> None:
    """Delete a link group, if it holds what we put there and nothing else.

    :param expected: index and alias by name; what has gone by itself does no harm.
    :raises ForeignObject: if it does not; nothing was deleted.
    """
    try:
        members = rtnetlink.group_members(group)
    except OSError as exc:
        raise CfctlError(
            "the interfaces could not be read back", exc.strerror, "Run it again; nothing was deleted."
        ) from exc
    strangers = [name for name, identity in members.items() if expected.get(name) != identity]
    if strangers:
        raise ForeignObject(
            f"link group {group} holds interfaces that are not ours: {', '.join(strangers)}",
            "Somebody put them there while the interfaces were about to be deleted. Nothing was deleted.",
            "Run it again: another group will be chosen.",
        )
    if members:
        try:
            rtnetlink.delete_group(group)
        except OSError as exc:
            raise CfctlError(
                "the interfaces could not be deleted", exc.strerror, "Run it again: cfctl host teardown"
            ) from exc


def _bridges(plan: Plan) -> list[Step]:
    created = [plan.desired.links[change.name] for change in plan.of("bridge", "create")]
    changed = [(plan.desired.links[c.name], c.fields) for c in plan.of("bridge", "change")]
    if not created and not changed:
        return []

    def make() -> None:
        lines: list[str] = []
        for link in created:
            temporary = link.name.replace("cvd-", TEMPORARY, 1)
            options = " ".join(f"{name} {value}" for name, value in link.options)
            lines += [
                f"link add name {temporary} type bridge {options}",
                # It gets its name when it has its mark: a kill leaves no bridge of that name without it.
                f"link set dev {temporary} alias {MARK}",
                f"link set dev {temporary} name {link.name}",
                *_configure(link, ("addresses",), plan),
                f"link set dev {link.name} up",
            ]
        for link, fields in changed:
            # One by one, stp_state first: with STP on, the kernel refuses a forward_delay of 0.
            lines += [
                f"link set dev {link.name} type bridge {name} {value}"
                for name, value in link.options
                if name in fields
            ]
            lines += [*_configure(link, fields, plan), f"link set dev {link.name} up"]
        _ip(lines)

    return [Step(_title([*(link.name for link in created), *(link.name for link, _ in changed)], "bridge"), make)]


def _taps(plan: Plan) -> list[Step]:
    changes = plan.of("tap", "create", "change")
    opening = [
        (plan.desired.links[change.name], _EVERYTHING)
        if change.action == "create" or _recreated(change.fields)
        else (plan.desired.links[change.name], change.fields)
        for change in changes
        if change.action == "create" or _OPENING.intersection(change.fields)
    ]
    others = [
        (plan.desired.links[change.name], change.fields)
        for change in changes
        if change.action == "change" and not _OPENING.intersection(change.fields)
    ]

    def make() -> None:
        gid = grp.getgrnam(GROUP).gr_gid
        size = tap.chunk_size()
        for start in range(0, len(opening), size):
            chunk = opening[start : start + size]
            with tap.opened([link.name for link, _ in chunk], gid, discard) as fds:
                _ip(line for link, fields in chunk for line in _configure(link, fields, plan))
                tap.persist(fds)

    def discard(names: Sequence[str]) -> None:
        group = _unused_group(plan.observed.link_groups)
        indexes = [index for index, name in socket.if_nameindex() if name in names]
        _put_aside(indexes, group)
        # With or without our mark, as far as it came.
        aliases = rtnetlink.group_members(group)
        expected = {name: (index, alias) for name, (index, alias) in aliases.items() if index in indexes}
        _delete_group(expected, group)

    def mend() -> None:
        _ip(line for link, fields in others for line in _configure(link, fields, plan))

    def raise_() -> None:
        # Not while we have them open: with a carrier the kernel would give each a link-local address, announce it,
        # and tell the bridges.
        _ip(f"link set dev {change.name} up" for change in changes)

    work = [Step(_title([link.name for link, _ in opening], "tap"), make)] if opening else []
    work += [Step(f"mend {_count(others, 'tap')}", mend)] if others else []
    return [*work, Step(f"bring {_count(changes, 'tap')} up", raise_)] if changes else []


def _configure(link: Link, fields: Sequence[str], plan: Plan) -> Iterable[str]:
    """Yield the lines of ``ip -batch`` that give a link what it lacks."""
    words = []
    if "alias" in fields:
        words += ["alias", MARK]
    if "mac" in fields and link.mac:
        # In the same message, and the kernel does this first: the bridge never sees the old one.
        words += ["address", link.mac]
    if "master" in fields:
        words += ["master", link.master] if link.master else ["nomaster"]
    if "mtu" in fields and link.mtu:
        words += ["mtu", str(link.mtu)]
    if "group_" in fields:
        words += ["group", link.group]
    if words:
        yield f"link set dev {link.name} {' '.join(words)}"
    # A port loses the flag with its bridge, so it goes with the bridge.
    if link.master and ("isolated" in fields or ("master" in fields and link.isolated)):
        yield f"link set dev {link.name} type bridge_slave isolated {'on' if link.isolated else 'off'}"
    if "addresses" in fields:
        missing, unwanted = _address_changes(link, fields, plan, ipv6=False)
        yield from (f"addr del {address.cidr} dev {link.name}" for address in unwanted)
        for address in missing:
            yield f"addr replace {address.cidr} broadcast {address.broadcast} dev {link.name}"


def _address_changes(
    link: Link, fields: Sequence[str], plan: Plan, *, ipv6: bool
) -> tuple[list[Address], list[Address]]:
    """Return the addresses of one family that a link lacks, and those that it has too many."""
    found = plan.observed.links.get(link.name)
    there = found.link.addresses if found and fields is not _EVERYTHING else ()
    return (
        [address for address in link.addresses if address not in there and address.is_ipv6 == ipv6],
        [address for address in there if address not in link.addresses and address.is_ipv6 == ipv6],
    )


def _ipv6_addresses(plan: Plan) -> list[Step]:
    lines = []
    for change in (*plan.of("bridge", "create", "change"), *plan.of("tap", "change")):
        if change.action == "change" and ("addresses" not in change.fields or _recreated(change.fields)):
            continue
        missing, unwanted = _address_changes(plan.desired.links[change.name], change.fields, plan, ipv6=True)
        lines += [f"addr del {address.cidr} dev {change.name}" for address in unwanted]
        # Nobody else can have it, and no guest shall be able to say so.
        lines += [f"addr replace {address.cidr} dev {change.name} nodad" for address in missing]
    return [Step("set IPv6 addresses", lambda: _ip(lines))] if lines else []


def _ip(lines: Iterable[str]) -> None:
    """Run one ``ip -batch``.

    :raises HostLacks: if the kernel knows no bridges.
    :raises CfctlError: at the first line that fails; those before it have been carried out.
    """
    script = "\n".join(lines)
    if not script:
        return
    try:
        process.run(["ip", "-batch", "-"], stdin=script + "\n", timeout=_TIMEOUT_S)
    except CommandFailed as exc:
        if "type bridge " in script and ("not supported" in exc.output or "Unknown device type" in exc.output):
            raise HostLacks(
                "the kernel knows no bridges", exc.output.strip(), "Load the module: modprobe bridge"
            ) from exc
        raise CfctlError(
            "the network interfaces could not be changed",
            _failed_line(script, exc.output),
            "Run it again to go on, or take everything down: cfctl host teardown",
        ) from exc


def _failed_line(script: str, output: str) -> str:
    """Return what ip printed, with the line that it names (``Command failed -:7``)."""
    number = output.rpartition("Command failed -:")[2].strip()
    lines = script.splitlines()
    line = f"\n  ip {lines[int(number) - 1]}" if number.isdecimal() and 0 < int(number) <= len(lines) else ""
    return f"{output.strip()}{line}"


# -- rules -----------------------------------------------------------------------------------------------


_TITLES = {"nft": "change the firewall rules"}


def _rules(plan: Plan) -> list[Step]:
    # What is wanted first: when another program takes the rules over, there are none for no moment.
    order = sorted(backends.ALL, key=lambda backend: not plan.desired.tables.keys() & set(backend.TABLES))
    scripts = [(backend, _script(plan, backend)) for backend in order]
    return [
        Step(
            _TITLES.get(backend.NAME, f"change the rules of {backend.NAME}"),
            functools.partial(backend.carry_out, script),
        )
        for backend, script in scripts
        if any(script.values())
    ]


def _script(plan: Plan, backend: Backend) -> dict[str, list[str]]:
    """Return the lines that change each table of a backend."""
    return {name: list(_transaction(plan, backend, name)) for name in backend.TABLES}


def _transaction(plan: Plan, backend: Backend, name: str) -> Iterable[str]:
    tables = {change.name: change.action for change in plan.of("table")}
    wanted_rules = {change.name for change in plan.of("rule", "create")}
    unwanted_rules = {change.name for change in plan.of("rule", "remove")}
    wanted, found = plan.desired.tables.get(name), (plan.observed.tables or {}).get(name)
    if found and tables.get(name) in ("change", "remove"):
        yield from backend.drop(found)
    if wanted and tables.get(name) in ("create", "change"):
        yield from backend.create(wanted)
    elif name not in tables:
        for rule in wanted.rules if wanted else ():
            if rule_name(name, rule) in wanted_rules:
                yield backend.add(name, rule)
        for rule, at in superfluous(wanted, found) if found else ():
            if rule_name(name, rule) in unwanted_rules:
                yield backend.delete(name, at)
    for leftover in upstream_leftovers(plan.desired, found) if found else ():
        if rule_name(name, leftover.rule) in unwanted_rules:
            yield backend.delete(name, leftover)


def _neighbours(plan: Plan) -> list[Step]:
    wanted = plan.desired
    links = bool(wanted.links and not wanted.pod)
    return [Step(title, run) for title, run in neighbours.steps(plan.observed.neighbours, wanted.needs, links=links)]


# -- servers, settings, files ------------------------------------------------------------------------------


def _stop_servers(plan: Plan) -> list[Step]:
    bridges = {change.name for change in plan.of("dnsmasq", "change", "remove")}
    doomed = [server for server in plan.observed.servers if server.bridge in bridges]
    if not doomed:
        return []
    return [Step(f"end {_count(doomed, 'DHCP server')}", lambda: dnsmasq.stop(doomed))]


def _start_servers(plan: Plan) -> list[Step]:
    servers = [plan.desired.servers[change.name] for change in plan.of("dnsmasq", "create", "change")]

    def start() -> None:
        # Each waits for its program to have its sockets and to leave for the background.
        with contextlib.ExitStack() as stack:
            work = [background.running(functools.partial(dnsmasq.start, server)) for server in servers]
            for wait in [stack.enter_context(piece) for piece in work]:
                wait()

    return [Step(f"start {_count(servers, 'DHCP server')}", start)] if servers else []


def _forwarding(plan: Plan) -> list[Step]:
    names = [change.name for change in plan.of("sysctl") if not _is_of_bridge(change.name)]

    def write() -> None:
        for name in names:
            _write_sysctl(name, plan.desired.sysctls[name])

    return [Step("switch forwarding on", write)] if names else []


def _bridge_sysctls(plan: Plan) -> list[Step]:
    made = tuple(f".{change.name}." for change in plan.of("bridge", "create"))
    changed = {change.name for change in plan.of("sysctl")}
    names = [
        name
        for name in plan.desired.sysctls
        if _is_of_bridge(name) and (name in changed or any(bridge in name for bridge in made))
    ]

    def write() -> None:
        for name in names:
            # A kernel without IPv6 has none of them.
            if observed.sysctl(name) not in (None, plan.desired.sysctls[name]):
                _write_sysctl(name, plan.desired.sysctls[name])

    return [Step("set IPv6 of the bridges", write)] if names else []


def _is_of_bridge(sysctl: str) -> bool:
    return ".cvd-" in sysctl


def _write_sysctl(name: str, value: str) -> None:
    path = observed.sysctl_path(name)
    try:
        path.write_text(value)
    except OSError as exc:
        if observed.sysctl(name) == value:
            return
        raise HostLacks(
            f"{name} cannot be set to {value}",
            f"{path}: {exc.strerror}. In a container /proc/sys is read-only.",
            f"Set it on the host (sysctl -w {name}={value}), or start the container with --sysctl {name}={value}",
        ) from exc


def _uplinks(plan: Plan) -> list[Step]:
    if not plan.of("uplink"):
        return []
    if plan.desired.links:
        uplinks = plan.observed.advertised
        return [Step("keep the routers' advertisements", lambda: safety.keep_advertisements(uplinks))]
    uplinks = plan.observed.uplinks
    return [Step("restore how advertisements are treated", lambda: safety.restore_advertisements(uplinks))]


def _files(plan: Plan) -> list[Step]:
    if not plan.of("file", "remove") and not plan.of("directory", "remove"):
        return []
    doomed = {change.name for change in plan.of("file", "remove")}

    def remove() -> None:
        dnsmasq.forget([path for path in plan.observed.files if str(path) in doomed])
        # Last of all: as long as it is there, pid and lease files are known to be ours.
        if plan.observed.directory:
            files.remove_directory(plan.observed.directory)

    return [Step("remove what the DHCP servers left", remove)]


# -- words -------------------------------------------------------------------------------------------------


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _title(names: Sequence[str], noun: str) -> str:
    return f"make {_count(names, noun)}"
