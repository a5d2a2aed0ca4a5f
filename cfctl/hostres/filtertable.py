"""The filter table of an iptables program: read as chains, changed with its ``-restore`` in one transaction.

Written with nft, a rule that looks at the state of a connection makes iptables-nft refuse to list the chain
("incompatible, use 'nft' tool"), and whoever manages it (Docker, ufw) would fail. So its rules are made by its own
program.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed
from cfctl.hostres import firewall, iptables, nfnetlink
from cfctl.hostres.firewall import Chain, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TIMEOUT_S = 30
#: Seconds that it may wait for another iptables to end (iptables-legacy has a lock).
_LOCK_S = 20

_COMMENT = f"-m comment --comment {firewall.MARK} "
#: Chains that the iptables backend has made are no other people's, nor is what leads there an opening.
_OUR_CHAIN = re.compile(r"(?:-j |^)CFCTL_")
#: Both names are in use for protocol 58, by version.
_ICMPV6 = re.compile(r"-p icmpv6\b")


def read(program: str) -> tuple[Chain, ...] | None:
    """Return the chains of the filter table.

    :param program: ``iptables-nft``, ``ip6tables-nft``.
    :return: None if the program cannot show them: somebody has put rules there with nft.
    """
    # -w: a program without a lock takes the option all the same.
    done = process.run([program, "-w", str(_LOCK_S), "-S"], timeout=_TIMEOUT_S + _LOCK_S, success=None)
    return parse(program, done.stdout) if done.returncode == 0 and "incompatible" not in done.stderr else None


def others(*, nft: bool) -> tuple[Chain, ...]:
    """Return the chains that nft does not show: of iptables-legacy, where the kernel has its table; it is not made.

    :param nft: there is the program; without it, those of iptables-nft are read as well.
    :raises CommandFailed: if the kernel's tables cannot be listed.
    """
    programs = [
        iptables.program(family, "legacy")
        for family in iptables.FAMILIES
        if "filter" in iptables.legacy_tables(family) and iptables.installed(family, "legacy")
    ]
    if not nft and (kernel := nfnetlink.names()):
        programs += [
            iptables.program(family, "nft")
            for family, table in zip(iptables.FAMILIES, ("ip filter", "ip6 filter"), strict=True)
            if table in kernel.tables and iptables.installed(family, "nft")
        ]
    return tuple(chain for program in programs for chain in read(program) or ())


def table_of(program: str) -> str:
    """Return the table that a program shows."""
    return "ip6 filter" if program.startswith("ip6") else "ip filter"


def parse(program: str, text: str) -> tuple[Chain, ...]:
    """Return the chains that ``iptables -S`` printed."""
    heads: dict[str, tuple[str, str]] = {}
    lines: dict[str, list[Line]] = {}
    for raw in text.splitlines():
        word, _, rest = raw.partition(" ")
        name, _, rest = rest.partition(" ")
        if word == "-P":
            heads[name] = name.lower(), rest.lower()
        elif word == "-N":
            heads[name] = "", "accept"
        elif word == "-A":
            there = lines.setdefault(name, [])
            marked = _COMMENT in f"{rest} " and not _OUR_CHAIN.search(rest)
            rule = _ICMPV6.sub("-p ipv6-icmp", rest.replace(_COMMENT, "", 1) if marked else rest)
            there.append(Line(rule, len(there) + 1, marked))
    table = table_of(program)
    return tuple(
        Chain(program, table, name, hook, policy, tuple(lines.get(name, ())))
        for name, (hook, policy) in heads.items()
        if not _OUR_CHAIN.match(name)
    )


def write(program: str, edits: Sequence[firewall.Edit], chains: Sequence[Chain]) -> None:
    """Carry out edits of one program's table, all or none.

    :raises CfctlError: if it refuses; the rules are as before.
    """
    script = "\n".join(["*filter", *script_lines(edits, chains), "COMMIT"]) + "\n"
    argv = [f"{program}-restore", "--noflush", "-w", str(_LOCK_S)]
    try:
        process.run(argv, stdin=script, timeout=_TIMEOUT_S + _LOCK_S)
    except CommandFailed as exc:
        raise CfctlError(
            f"the rules of {program} could not be changed; they are as before",
            exc.output.strip(),
            'Run it again. To leave other people\'s firewalls alone: host.firewall = "leave" in config.toml',
        ) from exc


def script_lines(edits: Iterable[firewall.Edit], chains: Sequence[Chain]) -> Iterable[str]:
    """Yield the lines between ``*filter`` and ``COMMIT``."""
    by_chain: dict[str, list[firewall.Edit]] = {}
    for edit in edits:
        by_chain.setdefault(edit.chain.name, []).append(edit)
    for name, several in by_chain.items():
        chain = several[0].chain
        gone = sorted({line.at for edit in several for line in edit.remove}, reverse=True)
        # From the last to the first: what is deleted moves the numbers of what follows.
        yield from (f"-D {name} {number}" for number in gone)
        at = firewall.end(chain, chains) + 1
        at -= sum(number < at for number in gone)
        for edit in several:
            if edit.add:
                yield f"-I {name} {at} {_marked(edit.opening.rule)}"
                at += 1


def _marked(rule: str) -> str:
    match, _, verdict = rule.rpartition("-j ")
    return f"{match}{_COMMENT}-j {verdict}"
