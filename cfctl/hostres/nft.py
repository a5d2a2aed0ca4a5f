"""The firewall rules: which tables, read back with ``nft list``, changed in one ``nft -f -`` transaction.

nft's own text is compared, not its JSON: nft 1.0.6 (Debian 12) leaves the comment of a table out of the JSON, and the
comment is how we know our tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed, HostLacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TIMEOUT_S = 30
_COMMENT = "cfctl"

#: Upstream's two tables. The bridge one is empty unless a bridge of somebody else is not to pass a protocol;
#: upstream makes it all the same.
NAT = "ip cuttlefish_nat"
BRIDGE = "bridge cuttlefish_bridge"
#: Ours alone: keeps guests from meeting by routing through the host.
ISOLATION = "inet cfctl"
TABLES = (NAT, BRIDGE, ISOLATION)

#: Ethertypes as nft prints them with -n.
IPV4 = "0x0800"
IPV6 = "0x86dd"

_ISOLATE = 'iifname "cvd-*" oifname "cvd-*" drop'


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain.

    :param hook: what the braces say: type, hook and priority, with the policy.
    """

    name: str
    hook: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of ours, without its comment, in nft's own words.

    :param text: what ``nft list`` prints for it.
    """

    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its chains and rules, as it should be.

    :param id: family and name.
    """

    id: str
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundRule:
    """A rule in the kernel.

    :param handle: its number within the table, for deletion.
    :param marked: it carries our comment.
    """

    rule: Rule
    handle: int
    marked: bool


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table in the kernel.

    :param marked: it carries our comment, or holds a rule that does: kernels before 5.10 keep no comment of a table.
    :param others: what it holds beside chains and rules (sets, maps): never ours.
    """

    id: str
    chains: tuple[Chain, ...]
    rules: tuple[FoundRule, ...]
    marked: bool
    others: tuple[str, ...] = ()


def masquerade(subnet: str) -> str:
    """Return the rule that gives a subnet's packets the host's own address."""
    return f"ip saddr {subnet} masquerade"


def route(tap: str, ethertype: str) -> tuple[Rule, Rule]:
    """Return the rules that make the host route a tap's frames of one protocol, instead of bridging them."""
    return (
        Rule("prerouting", f'iifname "{tap}" ether type {ethertype} meta broute set 1 accept'),
        Rule("forward", f'oifname "{tap}" ether type {ethertype} drop'),
    )


def tables(subnets: Sequence[str], *, routed: Sequence[Rule] = (), guest_isolation: bool) -> list[Table]:
    """Return the tables of a host whose guests live in ``subnets``.

    :param routed: what :func:`route` returned, for all taps.
    """
    nat = Table(
        NAT,
        (Chain("postrouting", "type nat hook postrouting priority 100; policy accept;"),),
        tuple(Rule("postrouting", masquerade(subnet)) for subnet in subnets),
    )
    bridge = Table(
        BRIDGE,
        (
            Chain("prerouting", "type filter hook prerouting priority -250; policy accept;"),
            Chain("forward", "type filter hook forward priority 0; policy accept;"),
        ),
        tuple(routed),
    )
    isolation = Table(
        ISOLATION,
        (Chain("forward", "type filter hook forward priority 0; policy accept;"),),
        (Rule("forward", _ISOLATE),),
    )
    return [nat, bridge, isolation] if guest_isolation else [nat, bridge]


# -- reading -------------------------------------------------------------------------------------------


def read() -> dict[str, FoundTable]:
    """Return those of our three tables that exist.

    :raises CommandFailed: if nft cannot read them; an ordinary user may not.
    """
    found = {}
    for table in TABLES:
        result = process.run(
            ["nft", "-a", "-n", "-s", "list", "table", *table.split()], timeout=_TIMEOUT_S, success=None
        )
        if result.returncode == 0:
            found[table] = parse(table, result.stdout)
        elif "No such file or directory" not in result.stderr:
            raise CommandFailed(result.argv, result.returncode, result.stdout + result.stderr)
    nat, bridge = found.get(NAT), found.get(BRIDGE)
    if nat and bridge and nat.marked and not bridge.marked and not bridge.rules:
        # It has no rule that could carry the mark; both tables are made in one transaction.
        found[BRIDGE] = FoundTable(BRIDGE, bridge.chains, (), marked=True, others=bridge.others)
    return found


_HANDLE = re.compile(r"^(?P<text>.*?) # handle (?P<handle>\d+)$")
_COMMENTED = re.compile(r'^(?P<text>.*?) comment "(?P<comment>[^"]*)"$')


def parse(table: str, text: str) -> FoundTable:
    """Return a table as ``nft -a -n -s list table`` printed it."""
    chains: list[Chain] = []
    rules: list[FoundRule] = []
    others: list[str] = []
    marked = False
    chain: str | None = None
    for line in text.splitlines()[1:]:
        depth = len(line) - len(line.lstrip("\t"))
        match = _HANDLE.match(line.strip())
        body = match["text"] if match else line.strip()
        if depth == 1 and body == f'comment "{_COMMENT}"':
            marked = True
        elif depth == 1 and body.startswith("chain "):
            chain = body.split()[1]
            chains.append(Chain(chain, ""))
        elif depth == 1 and body not in ("}", ""):
            chain = None
            others.append(body.removesuffix(" {"))
        elif depth == 2 and chain and not match and body.startswith("type "):
            chains[-1] = Chain(chain, body)
        elif depth == 2 and chain and match:
            commented = _COMMENTED.match(body)
            ours = commented is not None and commented["comment"] == _COMMENT
            rule = Rule(chain, commented["text"] if commented and ours else body)
            rules.append(FoundRule(rule, int(match["handle"]), marked=ours))
    marked = marked or any(rule.marked for rule in rules)
    return FoundTable(table, tuple(chains), tuple(rules), marked, tuple(others))


# -- changing ------------------------------------------------------------------------------------------


def create(table: Table) -> list[str]:
    """Return the lines of a transaction that make a table with all that is in it."""
    chains = " ".join(f"chain {chain.name} {{ {chain.hook} }};" for chain in table.chains)
    return [
        f'table {table.id} {{ comment "{_COMMENT}"; {chains} }};',
        *(add(table.id, rule) for rule in table.rules),
    ]


def add(table: str, rule: Rule) -> str:
    """Return the line that appends a rule."""
    return f'add rule {table} {rule.chain} {rule.text} comment "{_COMMENT}"'


def delete(table: str, found: FoundRule) -> str:
    """Return the line that deletes a rule."""
    return f"delete rule {table} {found.rule.chain} handle {found.handle}"


def drop(table: str) -> str:
    """Return the line that deletes a table with all that is in it."""
    return f"delete table {table}"


def transaction(lines: Iterable[str]) -> None:
    """Carry out all lines, or none.

    :raises CfctlError: if the kernel refuses; the rules are as before then.
    """
    script = "\n".join(lines) + "\n"
    try:
        process.run(["nft", "-f", "-"], stdin=script, timeout=_TIMEOUT_S)
    except CommandFailed as exc:
        raise CfctlError(
            "the firewall rules could not be changed; they are as before",
            exc.output.strip(),
            "If the kernel lacks nf_tables or its NAT: modprobe -a nf_tables nft_masq nft_chain_nat",
        ) from exc


def require_broute() -> None:
    """Make sure that nft and the kernel know ``meta broute``: asked first, so that no host is left half configured.

    :raises HostLacks: if one of them does not; nothing was changed.
    """
    chain = "type filter hook prerouting priority -250;"
    script = f"table bridge {_COMMENT}_check {{ chain prerouting {{ {chain} meta broute set 1 accept; }}; }}\n"
    try:
        # --check: the kernel looks at it as well, and then forgets it.
        process.run(["nft", "--check", "-f", "-"], stdin=script, timeout=_TIMEOUT_S)
    except CommandFailed as exc:
        raise HostLacks(
            "this host cannot route what arrives on a bridge (meta broute)",
            f"host.ipv4_bridge and host.ipv6_bridge need it when they are false.\n{exc.output.strip()[:300]}",
            "It needs nftables 1.0.8 and Linux 6.4 with nft_meta_bridge (modprobe nft_meta_bridge).\n"
            "Or let the bridge pass these frames: host.ipv4_bridge = true, host.ipv6_bridge = true",
        ) from exc
