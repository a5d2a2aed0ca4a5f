"""The firewall rules: which tables, read back with ``nft list``, changed in one ``nft -f -`` transaction.

nft's own text is compared, not its JSON: nft 1.0.6 (Debian 12) leaves the comment of a table out of the JSON, and the
comment is how we know our tables.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed, HostLacks
from cfctl.hostres.rules import COMMENT as _COMMENT
from cfctl.hostres.rules import Chain as Chain
from cfctl.hostres.rules import FoundRule as FoundRule
from cfctl.hostres.rules import FoundTable as FoundTable
from cfctl.hostres.rules import Rule as Rule
from cfctl.hostres.rules import Table as Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

#: What people call it (see :class:`cfctl.hostres.rules.Backend`).
NAME = "nft"

_TIMEOUT_S = 30

#: Upstream's two tables. The bridge one is empty unless a bridge of somebody else is not to pass a protocol;
#: upstream makes it all the same.
NAT = "ip cuttlefish_nat"
BRIDGE = "bridge cuttlefish_bridge"
#: Ours alone: keeps guests from meeting by routing through the host.
ISOLATION = "inet cfctl"
#: Ours alone, and only in a pod: gives the VM's frames the pod's MAC.
POD = "bridge cfctl_pod"
TABLES = (NAT, BRIDGE, ISOLATION, POD)

#: Ethertypes as nft prints them with -n.
IPV4 = "0x0800"
IPV6 = "0x86dd"

_ISOLATE = 'iifname "cvd-*" oifname "cvd-*" drop'


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


def pod_table(interface: str, outside: str, guest: str) -> Table:
    """Return the table that puts the pod's MAC in the place of the guest's, and keeps both sides' DHCP apart.

    :param interface: the port that leads out of the pod.
    :param outside: the MAC by which the network outside knows the pod.
    :param guest: the MAC that the guest has.
    """
    # Not in chains of the hooks `forward` and `output`: there are kernels that never call them, and say nothing.
    chains = (
        # Before the bridge looks where a frame is to go.
        Chain("prerouting", "type filter hook prerouting priority -300; policy accept;"),
        Chain("input", "type filter hook input priority 0; policy accept;"),
        Chain("postrouting", "type filter hook postrouting priority 300; policy accept;"),
    )
    into, out = f'iifname "{interface}"', f'oifname "{interface}"'
    rules = (
        # One server for one client: the VM hears no other server, and no other server hears the VM.
        Rule("prerouting", f"{into} udp sport 67 drop"),
        Rule("postrouting", f"{out} udp dport 67 drop"),
        Rule("prerouting", f"{into} ether daddr {outside} ether daddr set {guest}"),
        Rule("prerouting", f"{into} arp daddr ether {outside} arp daddr ether set {guest}"),
        # The pod itself and the network outside do not meet: its only address there is the VM's.
        Rule("input", f"{into} drop"),
        Rule("postrouting", f"{out} ether saddr != {guest} drop"),
        Rule("postrouting", f"{out} arp saddr ether set {outside}"),
        Rule("postrouting", f"{out} ether saddr set {outside}"),
        # IPv4 and ARP: IPv6 carries MACs where no rule can change them.
        Rule("postrouting", f"{out} ether type 0x0800 accept"),
        Rule("postrouting", f"{out} ether type 0x0806 accept"),
        Rule("postrouting", f"{out} drop"),
    )
    return Table(POD, chains, rules)


# -- reading -------------------------------------------------------------------------------------------


def read(names: Collection[str] = TABLES, *, alone: bool = False) -> dict[str, FoundTable]:
    """Return those of our tables that exist.

    :param alone: the host has no others: all are read at once, which nft 1.0.6 can do with everything only.
    :raises CommandFailed: if nft cannot read them; an ordinary user may not.
    """
    found = _read_all(names) if alone else _read_singly(names)
    nat, bridge = found.get(NAT), found.get(BRIDGE)
    if nat and bridge and nat.marked and not bridge.marked and not bridge.rules:
        # It has no rule that could carry the mark; both tables are made in one transaction.
        found[BRIDGE] = FoundTable(BRIDGE, bridge.chains, (), marked=True, others=bridge.others)
    return found


def _read_all(names: Collection[str]) -> dict[str, FoundTable]:
    text = process.run(["nft", "-a", "-n", "-s", "list", "ruleset"], timeout=_TIMEOUT_S).stdout
    parts = re.split(r"^table (.+) \{.*\n", text, flags=re.MULTILINE)
    tables = zip(parts[1::2], parts[2::2], strict=True)
    return {table: parse(table, f"\n{body}") for table, body in tables if table in names}


def _read_singly(names: Iterable[str]) -> dict[str, FoundTable]:
    found = {}
    for table in names:
        argv = ["nft", "-a", "-n", "-s", "list", "table", *table.split()]
        result = process.run(argv, timeout=_TIMEOUT_S, success=None)
        if result.returncode == 0:
            found[table] = parse(table, result.stdout)
        elif "No such file or directory" not in result.stderr:
            raise CommandFailed(result.argv, result.returncode, result.stdout + result.stderr)
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


def drop(found: FoundTable) -> list[str]:
    """Return the line that deletes a table with all that is in it."""
    return [f"delete table {found.id}"]


def carry_out(script: Mapping[str, Sequence[str]]) -> None:
    """Carry out the lines of all tables, or none; see :func:`transaction`."""
    transaction(line for lines in script.values() for line in lines)


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
