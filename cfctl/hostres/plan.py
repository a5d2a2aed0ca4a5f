"""The difference between the desired and the observed state: a list of changes with a reason each.

Nothing here touches the host. What stands in the way and is not ours comes out as conflicts, never as changes.
"""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cfctl.hostres import backends, desired, neighbours, nft
from cfctl.hostres.desired import GROUP, Link, State
from cfctl.hostres.observed import FoundLink, Observed, number_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

Action = Literal["create", "change", "remove"]

_MISSING = "it is missing"
_NO_INSTANCES = "the host is to serve no instances"
#: The tables that keep guests from each other, and do nothing else.
_APART = {nft.ISOLATION, *(table for one in backends.ALL for table in one.TABLES if table.endswith(" filter"))}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do.

    :param kind: bridge, tap, table, rule, dnsmasq, sysctl, file, directory, group, uplink, mode, pod, opening or
        manager.
    :param name: which one of its kind.
    :param reason: why, in words.
    :param fields: of a link: what differs.
    """

    action: Action
    kind: str
    name: str
    reason: str
    fields: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        """Kind and name, ``tap cvd-etap-01``."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that is not ours, where we want to build.

    :param adoptable: it is exactly what upstream's script makes, so ``--adopt`` may make it ours.
    """

    object: str
    reason: str
    adoptable: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What leads from the observed to the desired state, in any order; apply.py knows the safe one.

    :param changes: empty when the host is as it should be.
    :param conflicts: what must be cleared away first; a plan with conflicts is not to be applied.
    :param in_use: taps that would have to be opened or deleted while a device has them.
    :param left: what will stay although it is in a table of ours, because somebody else put it there.
    """

    desired: State
    observed: Observed
    changes: tuple[Change, ...]
    conflicts: tuple[Conflict, ...] = ()
    in_use: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def of(self, kind: str, *actions: Action) -> list[Change]:
        """Return the changes of one kind of object."""
        return [c for c in self.changes if c.kind == kind and (not actions or c.action in actions)]

    @property
    def state(self) -> Literal["ready", "absent", "drift"]:
        """``absent``: nothing of ours is there. ``ready``: all is. ``drift``: anything between."""
        if not anything_of_ours(self.observed):
            return "absent"
        return "drift" if self.changes or self.conflicts else "ready"


def anything_of_ours(observed: Observed) -> bool:
    """Tell whether a set-up left anything on the host (forwarding apart, which stays on)."""
    return bool(
        observed.ours
        or any(table.marked for table in (observed.tables or {}).values())
        or any(server.marked for server in observed.servers)
        or observed.uplinks
        or observed.neighbours.ours
        # Made before the first server starts, removed after everything else: pid and lease files are ours as long
        # as it is there.
        or observed.directory
        or observed.lazy is not None
    )


def compute(wanted: State, observed: Observed, *, adopt: bool = False) -> Plan:
    """Return the plan.

    :param wanted: the empty state takes everything down that is ours.
    :param adopt: treat what upstream's script has made as ours.
    """
    work = _Work(wanted, observed, adopt=adopt)
    work.group()
    work.mode()
    work.pod()
    work.links()
    for table in backends.TABLES:
        work.table(table)
    work.neighbours()
    work.servers()
    work.sysctls()
    work.uplinks()
    work.files()
    return Plan(wanted, observed, tuple(work.changes), tuple(work.conflicts), tuple(work.in_use), tuple(work.left))


class _Work:
    """A plan in the making."""

    def __init__(self, wanted: State, observed: Observed, *, adopt: bool) -> None:
        self.wanted = wanted
        self.observed = observed
        self.adopt = adopt
        self.changes: list[Change] = []
        self.conflicts: list[Conflict] = []
        self.in_use: list[str] = []
        self.left: list[str] = []

    def _add(self, action: Action, kind: str, name: str, reason: str, fields: tuple[str, ...] = ()) -> None:
        self.changes.append(Change(action, kind, name, reason, fields))

    def group(self) -> None:
        """Look at the group that owns the taps; it stays when they go."""
        if self.wanted.links and not self.observed.group_exists:
            self._add("create", "group", GROUP, _MISSING)

    def mode(self) -> None:
        """Look at what is written down about taps that are made on request."""
        wanted, found = self.wanted.lazy, self.observed.lazy
        if wanted and not found:
            self._add("create", "mode", "lazy", "taps are to be made when a device is launched")
        elif wanted and found != wanted:
            self._add("change", "mode", "lazy", "taps that are made on request are to be made differently")
        elif found is not None and not wanted:
            reason = "the taps of all instances are to be there" if self.wanted.instances else _NO_INSTANCES
            self._add("remove", "mode", "lazy", reason)

    def pod(self) -> None:
        """Look at the interface of a pod whose address is the VM's."""
        wanted, found = self.wanted.pod, self.observed.pod
        if wanted and not (found and found.taken and found.master and not found.addresses):
            self._add("change", "pod", wanted.interface, f"{wanted.address} is to be the VM's")
        elif not wanted and found and found.taken:
            self._add("change", "pod", found.pod.interface, f"it gets {found.pod.address} back")

    # -- links ---------------------------------------------------------------------------------------

    def links(self) -> None:
        """Look at bridges and taps."""
        for name, link in self.wanted.links.items():
            found = self.observed.links.get(name)
            if found is None:
                self._add("create", link.kind, name, _MISSING)
            elif found.ours and found.link.kind == link.kind:
                self._mend(link, found)
            elif as_upstream_makes_it(found, link):
                self._adopt(link, found)
            else:
                self.conflicts.append(Conflict(f"{link.kind} {name}", _why_foreign(link, found), adoptable=False))
        for name, found in self.observed.links.items():
            if name in self.wanted.links:
                continue
            if found.ours or found.temporary or (self.adopt and as_upstream_makes_it(found)):
                self._remove(found)

    def _mend(self, link: Link, found: FoundLink) -> None:
        differences = dict(_differences(link, found.link))
        if link.mtu and found.mtu != link.mtu:
            differences["mtu"] = f"its MTU is {found.mtu}, not {link.mtu}"
        if not differences:
            return
        if found.carrier and needs_opening(differences):
            self.in_use.append(link.name)
        else:
            self._look_for_users(link, found)
        self._add("change", link.kind, link.name, "; ".join(differences.values()), tuple(differences))

    def _adopt(self, link: Link, found: FoundLink) -> None:
        if not self.adopt:
            reason = "it is not marked as cfctl's, and just as upstream's script makes it"
            self.conflicts.append(Conflict(f"{link.kind} {link.name}", reason, adoptable=True))
            return
        self._look_for_users(link, found)
        differences = {"alias": "it is upstream's and becomes cfctl's", **dict(_differences(link, found.link))}
        self._add("change", link.kind, link.name, "; ".join(differences.values()), tuple(differences))

    def _look_for_users(self, link: Link, found: FoundLink) -> None:
        """Note which taps in use would lose their network because a link moves: itself, or the ports of a bridge."""
        if _moves(link, found.link):
            taps = (port for port in self.observed.links.values() if link.name in (port.link.name, port.link.master))
            self.in_use += [tap.link.name for tap in taps if tap.carrier]

    def _remove(self, found: FoundLink) -> None:
        name = found.link.name
        number = number_of(name)
        if found.temporary:
            reason = "a set-up that was killed left it"
        elif not self.wanted.instances:
            reason = _NO_INSTANCES
        elif number and self.wanted.lazy and number <= self.wanted.instances:
            reason = f"no device of instance {number} is up, and its taps are made when one is launched"
        elif number and number <= self.wanted.instances:
            reason = f"it is of instance {number}, which host.numbers does not name"
        elif number:
            reason = f"it is of instance {number}, and the host is to serve {self.wanted.instances}"
        else:
            reason = "it is cfctl's, but no longer needed"
        if found.carrier:
            self.in_use.append(name)
        self._add("remove", found.link.kind, name, reason)

    # -- rules ---------------------------------------------------------------------------------------

    def table(self, name: str) -> None:
        """Look at one table with its rules."""
        if self.observed.tables is None:
            return
        wanted, found = self.wanted.tables.get(name), self.observed.tables.get(name)
        if found and found.leftovers:
            self._leftovers(found)
            found = found if found.marked else None
        if wanted and found is None:
            self._create_table(wanted, "create", _MISSING)
        elif wanted and found and found.marked:
            self._mend_table(wanted, found)
        elif wanted and found and table_as_upstream_makes_it(found, wanted):
            if self.adopt:
                self._create_table(wanted, "change", "it is upstream's and becomes cfctl's")
            else:
                reason = "it is not marked as cfctl's, and just as upstream's script makes it"
                self.conflicts.append(Conflict(f"table {name}", reason, adoptable=True))
        elif wanted and found:
            reason = f"it is not marked as cfctl's, and holds what cfctl does not make: {_strange(found, wanted)}"
            self.conflicts.append(Conflict(f"table {name}", reason, adoptable=False))
        elif found and (found.marked or (self.adopt and table_as_upstream_makes_it(found))):
            self._remove_table(found)

    def _leftovers(self, found: nft.FoundTable) -> None:
        """Look at what upstream's script left when it used iptables: no newer one of it removes that."""
        if not self.wanted.links:
            return
        ours = upstream_leftovers(self.wanted, found)
        for rule in ours:
            name = rule_name(found.id, rule.rule)
            if self.adopt:
                self._add("remove", "rule", name, "upstream's script made it; cfctl has its own")
            else:
                self.conflicts.append(Conflict(f"rule {name}", "upstream's script made it", adoptable=True))

    def _create_table(self, wanted: nft.Table, action: Action, reason: str) -> None:
        self._add(action, "table", wanted.id, reason)
        for rule in wanted.rules:
            self._add("create", "rule", rule_name(wanted.id, rule), _MISSING)

    def _mend_table(self, wanted: nft.Table, found: nft.FoundTable) -> None:
        chains = {chain.name: chain.hook for chain in found.chains}
        wrong = [chain.name for chain in wanted.chains if chains.get(chain.name) != chain.hook]
        strangers = _strange(found, marked_is_ours=True)
        if wrong and strangers:
            reason = f"chain {wrong[0]} is not as it should be, and there is what cfctl did not make: {strangers}"
            self.conflicts.append(Conflict(f"table {wanted.id}", reason, adoptable=False))
            return
        if wrong:
            self._create_table(wanted, "change", f"chain {wrong[0]} is not as it should be")
            return
        there = Counter(found_rule.rule for found_rule in found.rules if found_rule.marked)
        for rule in wanted.rules:
            if not there[rule]:
                self._add("create", "rule", rule_name(found.id, rule), _MISSING)
        for rule, _ in superfluous(wanted, found):
            twice = rule in wanted.rules
            self._add("remove", "rule", rule_name(found.id, rule), "it is there twice" if twice else "not needed")

    def _remove_table(self, found: nft.FoundTable) -> None:
        strangers = _strange(found, marked_is_ours=found.marked)
        if not strangers:
            self._add("remove", "table", found.id, self._why_no_table(found.id))
            return
        self.left.append(f"table {found.id} stays: it holds what cfctl did not make: {strangers}")
        for rule in found.rules:
            if rule.marked:
                self._add("remove", "rule", rule_name(found.id, rule.rule), "not needed")

    def _why_no_table(self, name: str) -> str:
        if not self.wanted.instances:
            return _NO_INSTANCES
        now = next((one for one in backends.ALL if set(one.TABLES) & self.wanted.tables.keys()), None)
        if now and name not in now.TABLES:
            return f"the rules are made with {now.NAME} now"
        return "guests may reach each other" if name in _APART else "not needed"

    def neighbours(self) -> None:
        """Look at other people's firewalls, and at what configures interfaces by itself."""
        found, links = self.observed.neighbours, bool(self.wanted.links and not self.wanted.pod)
        for action, kind, name, reason in neighbours.changes(found, self.wanted.needs, links=links):
            self._add(action, kind, name, reason)

    # -- the rest ------------------------------------------------------------------------------------

    def servers(self) -> None:
        """Look at the DHCP servers: one per bridge."""
        bridges = {**dict.fromkeys(self.wanted.servers), **dict.fromkeys(s.bridge for s in self.observed.servers)}
        made_anew = {change.name for change in self.changes if change.kind == "bridge" and change.action == "create"}
        for bridge in bridges:
            running = [server for server in self.observed.servers if server.bridge == bridge]
            strangers = [server for server in running if not server.marked]
            wanted = self.wanted.servers.get(bridge)
            if wanted is None:
                if any(server.marked for server in running) or (self.adopt and running):
                    reason = "the guests are to be on somebody else's bridge"
                    self._add(
                        "remove",
                        "dnsmasq",
                        bridge,
                        reason if self.wanted.instances else _NO_INSTANCES,
                    )
            elif strangers and not self.adopt:
                reason = f"upstream's runs as process {strangers[0].pid}; it would be replaced by cfctl's"
                self.conflicts.append(Conflict(f"dnsmasq {bridge}", reason, adoptable=True))
            elif not running:
                self._add("create", "dnsmasq", bridge, "it is not running")
            elif strangers:
                self._add("change", "dnsmasq", bridge, "upstream's is replaced by cfctl's")
            elif len(running) > 1:
                self._add("change", "dnsmasq", bridge, f"{len(running)} of them run")
            elif running[0].argv[1:] != wanted.argv[1:]:
                self._add("change", "dnsmasq", bridge, _options(running[0].argv[1:], wanted.argv[1:]))
            elif self.observed.pid_files.get(bridge) != running[0].pid:
                self._add("change", "dnsmasq", bridge, "its pid file does not name it")
            elif bridge in made_anew:
                self._add("change", "dnsmasq", bridge, "it serves a bridge that is gone")
            elif wanted.hosts_file and self.observed.hosts != wanted.hosts:
                self._add("change", "dnsmasq", bridge, f"{wanted.hosts_file} is not as it should be")

    def sysctls(self) -> None:
        """Look at forwarding, and at the IPv6 settings of the bridges."""
        for name, value in self.wanted.sysctls.items():
            now = self.observed.sysctls.get(name)
            # Missing: the kernel has no IPv6, or the bridge is about to be made, which sets up its own.
            if now is not None and now != value:
                self._add("change", "sysctl", name, f"it is {now}, not {value}")

    def uplinks(self) -> None:
        """Look at the interfaces that would stop to listen to their routers."""
        if self.wanted.links:
            for uplink in self.observed.advertised:
                reason = "its router's advertisements would be ignored when the host forwards: accept_ra = 2"
                self._add("change", "uplink", uplink.interface, reason)
        else:
            for uplink in self.observed.uplinks:
                reason = f"as before the set-up: forwarding = {uplink.forwarding}, accept_ra = {uplink.accept_ra}"
                self._add("change", "uplink", uplink.interface, reason)

    def files(self) -> None:
        """Look at what servers leave that are not wanted any more; one that is not ours keeps its files."""
        if self.wanted.servers or not anything_of_ours(self.observed):
            return
        if self.wanted.links and not self.observed.directory:
            return  # On somebody else's bridge there never was a server of ours.
        kept = {server.bridge for server in self.observed.servers if not server.marked and not self.adopt}
        for path, bridge in self.observed.files.items():
            if bridge not in kept:
                self._add("remove", "file", str(path), "the server that wrote it ends")
        if self.observed.directory and not self.wanted.links:
            self._add("remove", "directory", str(self.observed.directory), "there is nothing to remember")


# -- comparing ------------------------------------------------------------------------------------------


def _differences(wanted: Link, found: Link) -> Iterator[tuple[str, str]]:
    """Yield what differs, and how to say so; the alias is compared by the caller."""
    now = dict(found.options)
    for name, value in wanted.options:
        if now.get(name) != value:
            yield name, f"{name} is {_word(now.get(name))}, not {_word(value)}"
    if wanted.mac and found.mac != wanted.mac:
        yield "mac", f"its MAC is {_word(found.mac)}, not {wanted.mac}, which no bridge takes as its own"
    if found.master != wanted.master:
        yield "master", f"its bridge is {_word(found.master)}, not {_word(wanted.master)}"
    if found.isolated != wanted.isolated and (found.master == wanted.master or wanted.isolated):
        yield "isolated", f"the port is {'' if found.isolated else 'not '}isolated from other guests"
    if found.addresses != wanted.addresses:
        yield "addresses", f"its address is {_addresses(found)}, not {_addresses(wanted)}"
    if not found.up:
        yield "up", "it is down"
    if found.group != wanted.group:
        yield "group_", f"a tear-down that was killed left it in link group {found.group}"


def _options(there: Sequence[str], wanted: Sequence[str]) -> str:
    """Say how the options of a server differ from those that it should have."""
    extra = shlex.join(option for option in there if option not in wanted)
    missing = shlex.join(option for option in wanted if option not in there)
    if extra and missing:
        return f"its options differ: {extra} instead of {missing}"
    if not (extra or missing):
        return "its options differ: their order"
    return f"its options differ: {extra} is too much" if extra else f"its options differ: {missing} is missing"


def needs_opening(differences: Container[str]) -> bool:
    """Tell whether mending means to open the tap, which fails while a VMM has it."""
    return any(name in differences for name, _ in desired.TAP_OPTIONS)


def _moves(wanted: Link, found: Link) -> bool:
    """Tell whether mending takes the link to another bridge or subnet: a guest there loses its network.

    What is only missing can be added under a running guest.
    """
    there, needed = {cidr for cidr, _ in found.addresses}, {cidr for cidr, _ in wanted.addresses}
    return bool(there - needed and needed - there) or found.master not in (None, wanted.master)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _addresses(link: Link) -> str:
    return ", ".join(map(_address, link.addresses)) or "none"


def _address(address: desired.Address) -> str:
    return address.cidr if address.is_ipv6 else f"{address.cidr} broadcast {address.broadcast or 'none'}"


def as_upstream_makes_it(found: FoundLink, wanted: Link | None = None) -> bool:
    """Tell whether an unmarked link is exactly what upstream's script leaves: name, kind, flags, master, address.

    :param wanted: how it should be: with the same settings, upstream makes it a port of the same bridge.
    """
    like = desired.catalogue().links.get(found.link.name)
    if like is None or found.link.alias is not None:
        return False
    # A running device takes the carrier up, an administrator the link down: neither says who made it. Nor do IPv6
    # addresses, which upstream gives to bridges by settings of its own.
    link = replace(found.link, addresses=tuple(a for a in found.link.addresses if not a.is_ipv6))
    same_bridge = wanted is not None and wanted.master is not None and link.master == wanted.master
    return link == replace(
        like,
        alias=None,
        isolated=link.isolated,
        up=link.up,
        group=link.group,
        mac=link.mac,
        master=link.master if same_bridge else like.master,
    )


def _why_foreign(link: Link, found: FoundLink) -> str:
    if found.link.alias:
        return f"its alias says that it belongs to {found.link.alias!r}"
    if found.link.kind != link.kind:
        return f"it is not marked as cfctl's, and its kind is {found.link.kind}"
    like = desired.catalogue().links[link.name]
    ignored = ("isolated", "up", "group_", "mac")
    differences = [text for name, text in _differences(like, found.link) if name not in ignored]
    return f"it is not marked as cfctl's, and not as upstream's script makes it: {'; '.join(differences)}"


def table_as_upstream_makes_it(found: nft.FoundTable, wanted: nft.Table | None = None) -> bool:
    """Tell whether an unmarked table holds only what upstream's script makes, for whatever number of instances."""
    return not _strange(found, wanted)


def _strange(found: nft.FoundTable, wanted: nft.Table | None = None, *, marked_is_ours: bool = False) -> str:
    """Return the first thing in a table that cfctl would not make itself; empty if there is none."""
    chains = _chains()[found.id]
    for chain in found.chains:
        if chain.name not in {like.name for like in chains} or (not marked_is_ours and chain not in chains):
            return f"chain {chain.name}"
    # Upstream knows no pods.
    known: set[nft.Rule] = set()
    if not marked_is_ours and found.id in desired.catalogue().tables:
        known = {*desired.catalogue().tables[found.id].rules, *(wanted.rules if wanted else ())}
    for rule in found.rules:
        if not (rule.marked and marked_is_ours) and (marked_is_ours or rule.rule not in known):
            return f"rule {rule.rule.text!r}"
    return found.others[0] if found.others else ""


@functools.cache
def _chains() -> dict[str, tuple[nft.Chain, ...]]:
    """Return the chains of every table; those of a pod's are the same in every pod."""
    made = (table for backend in backends.ALL for table in backend.tables([], guest_isolation=True))
    return {table.id: table.chains for table in (nft.pod_table("", "", ""), *made)}


def superfluous(wanted: nft.Table | None, found: nft.FoundTable) -> list[tuple[nft.Rule, nft.FoundRule]]:
    """Return our rules that are not wanted, or there more than once."""
    needed = set(wanted.rules) if wanted else set()
    extra = []
    for rule in found.rules:
        if not rule.marked:
            continue
        if rule.rule in needed:
            needed.discard(rule.rule)
        else:
            extra.append((rule.rule, rule))
    return extra


def upstream_leftovers(wanted: State, found: nft.FoundTable) -> list[nft.FoundRule]:
    """Return the unmarked rules for subnets that upstream's script has, or that the settings name."""
    if not found.leftovers:
        return []
    texts = {
        rule.text
        for state in (desired.catalogue(), wanted)
        for table in state.tables.values()
        for rule in table.rules
    }
    return [rule for rule in found.leftovers if {rule.rule.text, nft.masquerade(_saddr(rule))} & texts]


def _saddr(rule: nft.FoundRule) -> str:
    return rule.rule.text.split()[1]


def rule_name(table: str, rule: nft.Rule) -> str:
    """Return how a rule is called in a plan."""
    return f"{table} {rule.chain}: {rule.text}"
