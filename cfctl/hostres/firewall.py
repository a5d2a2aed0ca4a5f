"""Openings in other people's firewalls: which rules drop what guests need, and what lets it through there.

A packet must be let through by every base chain of a hook, so an accept in a table of ours does not help: an opening
belongs where the drop is. It comes after everything that the administrator has written there, and only before what
drops the rest, so that it never overrules a drop that somebody meant.

Pure: :mod:`cfctl.hostres.ruleset` and :mod:`cfctl.hostres.filtertable` read chains and write edits. One of another
backend (iptables-legacy) takes part by being read as :class:`Chain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: The comment of a rule of ours.
MARK = "cfctl"

#: The backend that ``nft`` itself speaks; every other is the name of an iptables program.
NFT = "nft"

Action = Literal["create", "change", "remove"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What guests need to be let through.

    :param dhcp: bridges where the host gives addresses (UDP port 67 to the host).
    :param ipv6: those of them with a prefix: router solicitation, neighbour discovery, stateless DHCPv6.
    :param apart: iptables keeps guests from each other: Docker's chain may come before the rule that does.
    """

    dhcp: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A rule in a chain of somebody else.

    :param text: in the backend's words, without our comment.
    :param at: its handle (nft), or its number counted from 1 (iptables).
    """

    text: str
    at: int
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain in a table of somebody else.

    :param backend: ``nft``, or the iptables program that shows it.
    :param table: family and name.
    :param hook: of a base chain: ``input``, ``forward`` or another; empty for what only rules jump to.
    :param policy: of a base chain.
    """

    backend: str
    table: str
    name: str
    hook: str = ""
    policy: str = "accept"
    rules: tuple[Line, ...] = ()

    def __str__(self) -> str:
        # What iptables-nft shows is nft's table, and has its name; iptables-legacy has tables of its own.
        table = self.table if self.backend == NFT or self.backend.endswith("-nft") else f"{self.backend} filter"
        return f"{table} {self.name}"

    @property
    def family(self) -> str:
        """Return ``ip``, ``ip6``, ``inet`` or ``bridge``."""
        return self.table.split()[0]


@dataclass(frozen=True, slots=True)
class Opening:
    """What lets something of the guests through.

    :param where: which firewall, and which place in it.
    :param rule: in that firewall's words.
    """

    where: str
    rule: str
    reason: str

    @property
    def name(self) -> str:
        """How a plan calls it."""
        return f"{self.where}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Edit:
    """A rule to add to a chain, or to take out.

    :param chain: as it was read.
    :param remove: lines of ours that go.
    :param add: the rule is appended, before what drops the rest.
    """

    action: Action
    opening: Opening
    chain: Chain
    remove: tuple[Line, ...] = ()
    add: bool = False


# -- what rules say ----------------------------------------------------------------------------------------

_NFT_ALWAYS = re.compile(
    r"(?:counter |log(?: (?:prefix \"[^\"]*\"|level \w+|flags [\w ,]+?|group \d+))* )*"
    r"(?P<verdict>accept|drop|reject|return|queue|jump|goto)\b ?(?P<target>\S*).*"
)
_NFT_VERDICT = re.compile(r"\b(?P<verdict>accept|drop|reject|return|queue|jump|goto)\b(?: (?P<target>\S+))?[^\"]*$")
_IPTABLES_ALWAYS = re.compile(r"(?:-m comment --comment (?:\"[^\"]*\"|\S+) )?-(?P<kind>[jg]) (?P<target>\S+).*")
_IPTABLES_VERDICT = re.compile(r"(?:^| )-(?P<kind>[jg]) (?P<target>\S+)")


def _verdict(chain: Chain, line: Line, *, always: bool) -> tuple[str, str]:
    """Return what a rule does with a packet, and where it sends it to.

    :param always: only what it does with every packet: ``""`` for a rule with a condition.
    """
    if chain.backend == NFT:
        match = _NFT_ALWAYS.fullmatch(line.text) if always else _NFT_VERDICT.search(line.text)
        return (match["verdict"], match["target"] or "") if match else ("", "")
    match = _IPTABLES_ALWAYS.fullmatch(line.text) if always else _IPTABLES_VERDICT.search(line.text)
    if not match:
        return "", ""
    word = match["target"].lower()
    if word in ("accept", "drop", "reject", "return", "queue"):
        return word, ""
    if word in ("log", "nflog", "mark", "connmark", "tos", "ttl"):
        return "", ""
    return ("goto" if match["kind"] == "g" else "jump"), match["target"]


def _end(chain: Chain, chains: Sequence[Chain], seen: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Return where a chain is over for every packet: the index of that rule, and its verdict.

    Without such a rule, the index behind the last and the policy (of what is jumped to: ``return``).
    """
    for index, line in enumerate(chain.rules):
        verdict, target = _verdict(chain, line, always=True)
        if verdict in ("jump", "goto"):
            inner = _target(chain, target, chains)
            ends = _end(inner, chains, seen | {chain.name})[1] if inner and target not in seen else "return"
            if ends in ("drop", "reject", "accept", "queue"):
                return index, ends
            if verdict == "goto":
                return index, "return"
        elif verdict:
            return index, "drop" if verdict == "reject" else verdict
    return len(chain.rules), chain.policy if chain.hook else "return"


def _target(chain: Chain, name: str, chains: Sequence[Chain]) -> Chain | None:
    same = (c for c in chains if c.backend == chain.backend and c.table == chain.table and c.name == name)
    return next(same, None)


def drops(chain: Chain, chains: Sequence[Chain]) -> bool:
    """Tell whether a base chain drops what none of its rules accepts."""
    if chain.hook not in ("input", "forward"):
        return False
    verdict = _end(chain, chains)[1]
    return verdict == "drop" or (verdict == "return" and chain.policy == "drop")


#: Whose rules are rewritten by their owner at every reload: the opening is made through the owner.
_OWNED = (
    ("ufw", re.compile(r"\bufw6?-")),
    ("firewalld", re.compile(r"\b(?:INPUT|FORWARD)_(?:direct|ZONES|IN_ZONES|POLICIES)")),
)


def owner(chain: Chain) -> str:
    """Return the program that a base chain belongs to: ufw, firewalld, or nobody's that is known."""
    if chain.table.split()[1] == "firewalld":
        return "firewalld"
    names = (name for name, sign in _OWNED if any(sign.search(line.text) for line in chain.rules))
    return next(names, "")


def place(chain: Chain, chains: Sequence[Chain]) -> Chain:
    """Return the chain in which what a base chain drops is let through.

    Docker leaves DOCKER-USER to the administrator; it writes the others anew.
    """
    user = _target(chain, "DOCKER-USER", chains) if chain.hook == "forward" else None
    jumps = any(_verdict(chain, line, always=False)[1] == "DOCKER-USER" for line in chain.rules)
    return user if user and jumps else chain


# -- what is wanted ----------------------------------------------------------------------------------------


def rules(chain: Chain, hook: str, needs: Needs, bridges: Sequence[str] = ()) -> list[str]:
    """Return the openings that guests need in a chain that drops, in its backend's words and in their order.

    :param bridges: those that have a name like one of Docker's, and are not.
    """
    ipv4, ipv6 = chain.family in ("ip", "inet"), chain.family in ("ip6", "inet") and bool(needs.ipv6)
    if not (ipv4 or ipv6):
        return []
    nft = chain.backend == NFT
    if hook == "forward":
        # Not to containers: Docker's own rules go on to say which of their ports guests reach.
        containers, bridges = (_CONTAINERS, bridges) if chain.name == "DOCKER-USER" else ((), ())
        if nft:
            return [
                *(f'iifname "cvd-*" oifname "{name}" counter accept' for name in bridges),
                *(f'iifname "cvd-*" oifname "{name}" counter return' for name in containers),
                'iifname "cvd-*" counter accept',
                'oifname "cvd-*" ct state established,related counter accept',
            ]
        return [
            *(f"-i cvd-+ -o {name} -j ACCEPT" for name in bridges),
            *(f"-i cvd-+ -o {name.replace('*', '+')} -j RETURN" for name in containers),
            "-i cvd-+ ! -o cvd-+ -j ACCEPT" if needs.apart else "-i cvd-+ -j ACCEPT",
            "-o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]
    wanted = []
    if ipv4:
        wanted += [_udp(bridge, 67, nft=nft) for bridge in needs.dhcp]
    if ipv6:
        for bridge in needs.ipv6:
            wanted += [_udp(bridge, 547, nft=nft), *(_icmpv6(bridge, type_, nft=nft) for type_ in _DISCOVERY)]
    return wanted


#: Docker's first bridge, and those of its other networks.
_CONTAINERS = ("docker0", "br-*")
_OF_DOCKER = re.compile(r"br-[0-9a-f]{12}")


def like_docker(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Return the interfaces that Docker has not made, although they begin like its bridges."""
    return tuple(sorted(name for name in interfaces if name.startswith("br-") and not _OF_DOCKER.fullmatch(name)))


#: RFC 4861 section 4: a guest looks for its router, and for the MAC of the router's address; both sides answer.
_DISCOVERY = {133: "nd-router-solicit", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert"}


def _udp(bridge: str, port: int, *, nft: bool) -> str:
    if nft:
        return f'iifname "{bridge}" udp dport {port} counter accept'
    return f"-i {bridge} -p udp -m udp --dport {port} -j ACCEPT"


def _icmpv6(bridge: str, type_: int, *, nft: bool) -> str:
    if nft:
        return f'iifname "{bridge}" icmpv6 type {_DISCOVERY[type_]} counter accept'
    return f"-i {bridge} -p ipv6-icmp -m icmp6 --icmpv6-type {type_} -j ACCEPT"


def edits(chains: Sequence[Chain], needs: Needs | None, bridges: Sequence[str] = ()) -> list[Edit]:
    """Return what leads from the rules as they are to those that guests need, and none of ours beside.

    :param needs: None takes every opening out.
    :param bridges: see :func:`rules`.
    """
    wanted: dict[tuple[str, str, str], list[Opening]] = {}
    for chain in chains:
        if needs is None or owner(chain) or not drops(chain, chains):
            continue
        where = place(chain, chains)
        reason = _reason(chain, where)
        wanted.setdefault(_key(where), []).extend(
            Opening(str(where), rule, reason) for rule in rules(where, chain.hook, needs, bridges)
        )
    return [edit for chain in chains for edit in _edits(chain, wanted.get(_key(chain), ()), chains)]


def _key(chain: Chain) -> tuple[str, str, str]:
    return chain.backend, chain.table, chain.name


def _reason(chain: Chain, where: Chain) -> str:
    who = f"Docker's {chain.name}" if where is not chain else str(chain)
    lost = "reach the outside" if chain.hook == "forward" else "get an address"
    return f"{who} drops what no rule accepts: guests would not {lost}"


def _edits(chain: Chain, wanted: Iterable[Opening], chains: Sequence[Chain]) -> Iterator[Edit]:
    ours: dict[str, list[Line]] = {}
    for line in chain.rules:
        if line.marked:
            ours.setdefault(line.text, []).append(line)
    wanted = list(wanted)
    # Among rules that all accept, the order says nothing.
    ordered = len({_verdict(chain, Line(opening.rule, 0), always=False)[0] for opening in wanted}) > 1
    reached = -1
    for opening in wanted:
        lines = ours.pop(opening.rule, [])
        if not lines and _by_hand(chain, opening.rule, chains):
            continue
        if not lines:
            # What is added comes last, and all that is to follow it has to move.
            reached = len(chain.rules) if ordered else -1
            yield Edit("create", opening, chain, add=True)
            continue
        at = chain.rules.index(lines[0])
        late = _too_early(chain, lines[0], chains) or (
            "it belongs after another of cfctl's" if at < reached else None
        )
        reached = (len(chain.rules) if late else at) if ordered else -1
        if late:
            moved = Opening(opening.where, opening.rule, late)
            yield Edit("change", moved, chain, tuple(lines), add=True)
        elif len(lines) > 1:
            twice = Opening(opening.where, opening.rule, "it is there twice")
            yield Edit("remove", twice, chain, tuple(lines[1:]))
    for text, lines in ours.items():
        yield Edit("remove", Opening(str(chain), text, "not needed"), chain, tuple(lines))


def _by_hand(chain: Chain, rule: str, chains: Sequence[Chain]) -> bool:
    """Tell whether somebody has made an opening himself: it is his, and no second one is needed."""
    return any(line.text == rule for line in chain.rules[: _end(chain, chains)[0]])


def _too_early(chain: Chain, ours: Line, chains: Sequence[Chain]) -> str | None:
    """Tell why a rule of ours stands at the wrong place; None if it does not."""
    index, end = chain.rules.index(ours), _end(chain, chains)[0]
    if index > end:
        return "no packet gets as far"
    later = [line for line in chain.rules[index + 1 : end] if not line.marked]
    if any(_verdict(chain, line, always=False)[0] in ("drop", "reject", "jump", "goto") for line in later):
        return "it stands before somebody else's rule, which it would overrule"
    return None


def end(chain: Chain, chains: Sequence[Chain]) -> int:
    """Return the index in a chain at which an opening is put: before what ends the chain for every packet."""
    return _end(chain, chains)[0]


def meant(chains: Iterable[Chain]) -> list[str]:
    """Return the drops that somebody has written for the guests' interfaces: they stay, and are in force."""
    return [
        f"{chain}: {line.text}"
        for chain in chains
        for line in chain.rules
        if "cvd-" in line.text and not line.marked and _verdict(chain, line, always=False)[0] in ("drop", "reject")
    ]


# -- what keeps DHCP from the host -------------------------------------------------------------------------

_NFT_ASKS = re.compile(
    r"(?:iifname (?P<device>\"[^\"]+\"|\S+) )?(?:meta l4proto udp |ip protocol udp )?"
    r"(?:udp dport (?P<ports>\{[^}]*\}|[\w-]+) )?(?:counter |log(?: (?:prefix \"[^\"]*\"|level \w+))* )*"
    r"(?:accept|drop|reject|return|jump|goto)\b.*"
)
_IPTABLES_ASKS = re.compile(
    r"(?:-i (?P<device>\S+) )?(?:-p udp )?(?:-m udp )?(?:--dport (?P<port>[\d:]+) )?"
    r"(?:-m multiport --dports (?P<ports>[\d:,]+) )?(?:-m comment --comment (?:\"[^\"]*\"|\S+) )?-[jg] .*"
)
#: Of DHCP servers (RFC 2131 section 4.1), and its name in /etc/services.
_DHCP, _BOOTPS = 67, "bootps"


def shut(chains: Sequence[Chain], needs: Needs) -> list[str]:
    """Return the rules that somebody has written which drop DHCP before an opening is reached.

    Only those of which that is certain: a rule with any other condition than an interface and a UDP port is passed
    over, and so are chains of ufw and firewalld.
    """
    found: dict[str, None] = {}
    for chain in chains:
        if chain.hook != "input" or chain.family not in ("ip", "inet") or owner(chain):
            continue
        # What comes after drops everything, and the opening is put before it.
        before = chain.rules[: _end(chain, chains)[0]]
        for bridge in needs.dhcp:
            where, line, verdict = _fate(chain, before, bridge, chains)
            if line and not line.marked and verdict in ("drop", "reject"):
                found[f"{where}: {line.text}"] = None
    return list(found)


def _fate(
    chain: Chain, lines: Sequence[Line], bridge: str, chains: Sequence[Chain], seen: frozenset[str] = frozenset()
) -> tuple[Chain, Line | None, str]:
    """Return the first rule that decides about DHCP of a bridge: its chain, itself (None if none does), its verdict.

    The verdict is empty where a rule may let it through: what comes later is not certain.
    """
    for line in lines:
        asks = _asks(chain, line, bridge)
        verdict, target = _verdict(chain, line, always=False)
        if asks is False or not verdict or (asks is None and verdict in ("drop", "reject")):
            continue
        if verdict in ("accept", "drop", "reject", "queue"):
            return chain, line, verdict if asks else ""
        inner = _target(chain, target, chains) if verdict in ("jump", "goto") and target not in seen else None
        if asks is None or (inner is None and verdict != "return"):
            return chain, line, ""
        if inner and (fate := _fate(inner, inner.rules, bridge, chains, seen | {target}))[1]:
            return fate
        if verdict in ("return", "goto"):
            break
    return chain, None, ""


#: Conditions that no first question of a DHCP client fulfils: it is UDP, from 0.0.0.0, and of no connection.
_NEVER_ASKS = re.compile(
    r"\btcp\b|icmp|ct state (?!.*\bnew\b)|--ctstate (?!\S*NEW)|ip saddr (?!\S*\b0\.0\.0\.0|[@{])|-s (?!0\.0\.0\.0)"
    r"|iif(?:name)? \"(?!cvd-|\*)|-i (?!cvd-|\+)"
)


def _asks(chain: Chain, line: Line, bridge: str) -> bool | None:
    """Tell whether a rule is about what guests of a bridge ask the DHCP server; None if that is not certain."""
    match = (_NFT_ASKS if chain.backend == NFT else _IPTABLES_ASKS).fullmatch(line.text)
    if not match:
        negated = "!" in line.text
        return False if _NEVER_ASKS.search(line.text) and not negated else None
    groups = match.groupdict()
    device = (groups["device"] or bridge).strip('"')
    ports = groups.get("port") or groups["ports"]
    anything = "*" if chain.backend == NFT else "+"
    named = bridge.startswith(device[:-1]) if device.endswith(anything) else device == bridge
    return named and (ports is None or any(map(_is_dhcp, re.findall(r"[\w:-]+", ports))))


def _is_dhcp(port: str) -> bool:
    """Tell whether a port or a range of ports, in nft's words or those of iptables, has the DHCP server's in it."""
    if port == _BOOTPS:
        return True
    low, _, high = port.replace(":", "-").partition("-")
    return low.isdecimal() and (high or low).isdecimal() and int(low) <= _DHCP <= int(high or low)
