"""The same rules for hosts without nft: chains of our own in the tables of iptables.

iptables has one table for everybody, so what is ours lives in chains called ``CFCTL_...``, to which one rule each
leads. Everything is read with ``iptables-save`` and changed with ``iptables-restore --noflush``, which changes a
table at once or not at all and touches no other chain.

There are two programs of that name: iptables-legacy has tables of its own in the kernel, iptables-nft keeps them in
nftables. A packet goes through both. ``/proc/net/ip_tables_names`` lists the first one's without making them; running
iptables-legacy would load them into the kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cfctl import distro, process
from cfctl.errors import CfctlError, CommandFailed, MissingCommand
from cfctl.hostres.rules import COMMENT, Chain, FoundRule, FoundTable, Rule, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Variant = Literal["legacy", "nft"]
#: The programs of IPv4 and IPv6.
FAMILIES = ("iptables", "ip6tables")

_TIMEOUT_S = 30
#: How long iptables-legacy waits for another one to end (/run/xtables.lock).
_LOCK_S = 20

#: The name is the mark: a chain of iptables carries no comment.
_PREFIX = "CFCTL_"
_NAT = "CFCTL_POSTROUTING"
_FORWARD = "CFCTL_FORWARD"
#: Which rule leads to a chain of ours.
_JUMPS = {_NAT: "POSTROUTING", _FORWARD: "FORWARD"}

_ISOLATE = "-i cvd-+ -o cvd-+ -j DROP"
#: Packets of the host itself have no checksum where the tap is to compute it. DHCP clients that read raw packets (old
#: versions of dhclient and udhcpc) find it wrong, and ignore their lease.
_FILL_CHECKSUM = "-o cvd-+ -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill"

_MARK = f"-m comment --comment {COMMENT}"


@dataclass(slots=True)
class Saved:
    """A table as ``iptables-save`` prints it.

    :param policies: by chain; ``-`` of a chain that somebody has made.
    :param rules: by chain, without ``-A CHAIN``.
    """

    policies: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Iptables:
    """iptables-legacy or iptables-nft.

    :param ipv6: guests are kept apart over IPv6 too; a host may have neither ip6tables nor IPv6.
    """

    variant: Variant
    ipv6: bool = True

    @property
    def NAME(self) -> str:
        """What people call it."""
        return f"iptables-{self.variant}"

    @property
    def TABLES(self) -> tuple[str, ...]:
        """Every table with chains of ours: guests are kept apart before anything else."""
        four, six = f"iptables-{self.variant}", f"ip6tables-{self.variant}"
        return f"{four} filter", f"{six} filter", f"{four} nat", f"{four} mangle"

    def tables(self, subnets: Sequence[str], *, routed: Sequence[Rule] = (), guest_isolation: bool) -> list[Table]:
        """Return the tables of a host whose guests live in ``subnets``.

        :param routed: iptables does not see frames: :func:`cfctl.hostres.backends.require` has refused them.
        """
        filter4, filter6, nat, mangle = self.TABLES
        forward = (Chain(_FORWARD, hook(_FORWARD, [0])),), (Rule(_FORWARD, _ISOLATE),)
        postrouting = (Chain(_NAT, hook(_NAT, [0])),)
        isolated = [filter4, filter6] if self.ipv6 else [filter4]
        return [
            *(Table(table, *forward) for table in isolated if guest_isolation),
            Table(nat, postrouting, tuple(Rule(_NAT, masquerade(subnet)) for subnet in subnets)),
            Table(mangle, postrouting, (Rule(_NAT, _FILL_CHECKSUM),)),
        ]

    # -- changing ------------------------------------------------------------------------------------------

    def create(self, table: Table) -> list[str]:
        """Return the lines that make our chains, empty or new, with all that is in them and what leads there."""
        return [
            *(f":{chain.name} - [0:0]" for chain in table.chains),
            *(self.add(table.id, rule) for rule in table.rules),
            # At the top nothing that accepts stands before it; a drop there overrules nobody. The others come
            # last: what an administrator has decided about an address stands.
            *(f"-I {_FORWARD_OF} 1 {_jump(c.name)}" for c in table.chains if c.name == _FORWARD),
            *(f"-A {_JUMPS[c.name]} {_jump(c.name)}" for c in table.chains if c.name != _FORWARD),
        ]

    def add(self, table: str, rule: Rule) -> str:
        """Return the line that appends a rule."""
        return f"-A {rule.chain} {marked(rule.text)}"

    def delete(self, table: str, found: FoundRule) -> str:
        """Return the line that deletes a rule, or one of its like."""
        return f"-D {found.rule.chain} {marked(found.rule.text) if found.marked else found.rule.text}"

    def drop(self, found: FoundTable) -> list[str]:
        """Return the lines that delete our chains and what leads there."""
        chains = [chain.name for chain in found.chains]
        return [
            *(f"-D {jump.chain} {jump.text}" for jump in found.jumps),
            *(f"-F {chain}" for chain in chains),
            *(f"-X {chain}" for chain in chains),
        ]

    def carry_out(self, script: Mapping[str, Sequence[str]]) -> None:
        """Carry out the lines of each table, all of one table or none.

        :raises CfctlError: if the kernel refuses a table; those before it have been changed.
        :raises MissingCommand: without the program.
        """
        for family in FAMILIES:
            tables = {table.partition(" ")[2]: lines for table, lines in script.items() if table.startswith(family)}
            text = "".join(f"*{table}\n{_joined(lines)}COMMIT\n" for table, lines in tables.items() if lines)
            if text:
                _restore(program(family, self.variant, "-restore"), text)


_FORWARD_OF = _JUMPS[_FORWARD]
LEGACY = Iptables("legacy")
NFT = Iptables("nft")


def masquerade(subnet: str) -> str:
    """Return the rule that gives a subnet's packets the host's own address; upstream's old script had the same."""
    return f"-s {subnet} -j MASQUERADE"


def hook(chain: str, positions: Sequence[int]) -> str:
    """Return how packets come into a chain of ours.

    :param positions: where in the built-in chain the rules are that lead there.
    """
    if not positions:
        return "nothing leads there"
    first = "" if chain != _FORWARD else ", at its top" if positions[0] == 0 else ", below other rules"
    twice = f", {len(positions)} times" if len(positions) > 1 else ""
    return f"from {_JUMPS.get(chain)}{first}{twice}"


def marked(text: str) -> str:
    """Return a rule with our comment in it."""
    match, _, target = text.partition("-j ")
    return f"{match}{_MARK} -j {target}"


def without_mark(text: str) -> tuple[str, bool]:
    """Return a rule as printed without our comment, and whether it had it."""
    for mark in (f"{_MARK} ", f'-m comment --comment "{COMMENT}" '):
        if mark in text:
            return text.replace(mark, "", 1), True
    return text, False


def _jump(chain: str) -> str:
    return f"{_MARK} -j {chain}"


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _restore(command: str, text: str) -> None:
    try:
        process.run([command, "--noflush", "-w", str(_LOCK_S)], stdin=text, timeout=_TIMEOUT_S + _LOCK_S)
    except CommandFailed as exc:
        if "xtables lock" in exc.output:
            raise CfctlError(
                "another program is changing the firewall rules",
                f"It has held /run/xtables.lock for {_LOCK_S} s.\n{exc.output.strip()[:300]}",
                "See who it is: fuser -v /run/xtables.lock\nThen run it again.",
            ) from exc
        raise CfctlError(
            "the firewall rules could not be changed",
            exc.output.strip()[:600],
            "If the kernel lacks a part: modprobe -a iptable_nat iptable_filter iptable_mangle xt_MASQUERADE "
            "xt_CHECKSUM xt_comment\nThen run it again.",
        ) from exc


# -- the programs ------------------------------------------------------------------------------------------


def program(family: str, variant: Variant, tool: str = "") -> str:
    """Return the name of a program, ``iptables-legacy-save``; ``iptables-save`` where that is the same.

    :raises MissingCommand: if there is none.
    """
    named = f"{family}-{variant}{tool}"
    if process.find(named):
        return named
    if process.find(f"{family}{tool}") and plain() == variant:
        return f"{family}{tool}"
    raise MissingCommand(named, distro.install_command("iptables"))


def installed(family: str, variant: Variant) -> bool:
    """Tell whether rules of that sort can be read and changed."""
    try:
        program(family, variant, "-save")
        program(family, variant, "-restore")
    except MissingCommand:
        return False
    return True


@functools.cache
def plain() -> Variant | None:
    """Return what the program called just ``iptables`` is; None if there is none."""
    if not process.find("iptables"):
        return None
    said = process.run(["iptables", "--version"], timeout=_TIMEOUT_S, success=None).stdout
    # Versions before 1.8 know one sort and do not say which.
    return "nft" if "nf_tables" in said else "legacy"


def legacy_tables(family: str = "iptables") -> list[str]:
    """Return the tables of iptables-legacy that the kernel has; an ordinary user sees none."""
    name = "ip_tables_names" if family == "iptables" else "ip6_tables_names"
    try:
        return Path("/proc/net", name).read_text().split()
    except OSError:
        return []


# -- reading -----------------------------------------------------------------------------------------------


def save(family: str, variant: Variant) -> dict[str, Saved]:
    """Return all tables of a family.

    :raises CommandFailed: if they cannot be read.
    :raises MissingCommand: without the program.
    """
    return parse(process.run([program(family, variant, "-save")], timeout=_TIMEOUT_S).stdout)


def parse(text: str) -> dict[str, Saved]:
    """Return the tables that ``iptables-save`` printed, by name."""
    tables: dict[str, Saved] = {}
    table = Saved()
    for line in text.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), Saved())
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            table.policies[chain] = policy
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            table.rules.setdefault(chain, []).append(rule.strip())
    return tables


def ours(table: str, saved: Saved) -> FoundTable | None:
    """Return what is ours in a table of iptables, or upstream's; None if nothing is."""
    chains, jumps = [], []
    for chain in saved.policies:
        if not chain.startswith(_PREFIX):
            continue
        leading = [
            (builtin, at, text)
            for builtin, at, text in _rules(saved)
            if text.split()[-2:] in (["-j", chain], ["-g", chain])
        ]
        chains.append(Chain(chain, hook(chain, [at for builtin, at, _ in leading if builtin == _JUMPS.get(chain)])))
        jumps += [Rule(builtin, text) for builtin, _, text in leading]
    rules = []
    for chain, _, text in _rules(saved):
        if chain.startswith(_PREFIX):
            bare, mark = without_mark(text)
            rules.append(FoundRule(Rule(chain, bare), 0, marked=mark))
    leftovers = [
        FoundRule(Rule("POSTROUTING", text), 0, marked=False)
        for text in saved.rules.get("POSTROUTING", ())
        if table.endswith(" nat") and text.startswith("-s ") and text == masquerade(text.split()[1])
    ]
    if not chains and not leftovers:
        return None
    return FoundTable(
        table, tuple(chains), tuple(rules), marked=bool(chains), jumps=tuple(jumps), leftovers=tuple(leftovers)
    )


def _rules(saved: Saved) -> Iterator[tuple[str, int, str]]:
    for chain, rules in saved.rules.items():
        for at, text in enumerate(rules):
            yield chain, at, text
