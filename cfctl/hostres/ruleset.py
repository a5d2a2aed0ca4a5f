"""Other people's tables as nft shows them: read as chains, changed in one transaction.

A host may have thousands of rules. So chains are listed first, without rules, and then only the tables are read in
which something can drop what guests send or ask, or can hold an opening of ours.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CommandFailed, MissingCommand
from cfctl.hostres import filtertable, firewall, nft
from cfctl.hostres.firewall import Chain, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TIMEOUT_S = 30

_TABLE = re.compile(r"^table (?P<table>\w+ \S+) \{")
_CHAIN = re.compile(r"^\tchain (?P<name>\S+) \{")
_HOOK = re.compile(r"type (?P<type>\w+) hook (?P<hook>\w+) .*?(?:policy (?P<policy>\w+);)?$")

#: iptables-nft keeps its rules here, in an own dialect of nft's expressions: both programs must go on to show them.
_IPTABLES = {"ip filter": "iptables-nft", "ip6 filter": "ip6tables-nft"}


@dataclass(slots=True)
class _Listed:
    table: str
    name: str
    hook: str = ""


def read() -> tuple[Chain, ...] | None:
    """Return the chains of all tables in which an opening may be needed, or is; None if only root may look.

    :raises CommandFailed: if nft cannot read them.
    """
    try:
        listed = _listed(process.run(["nft", "list", "chains"], timeout=_TIMEOUT_S).stdout)
    except MissingCommand:
        return None
    except CommandFailed:
        if os.geteuid() == 0:
            raise
        return None
    tables = dict.fromkeys(
        chain.table
        for chain in listed
        if (chain.hook in ("input", "forward") or chain.name == "DOCKER-USER") and chain.table not in nft.TABLES
    )
    return tuple(chain for table in tables for chain in _read_table(table))


def _listed(text: str) -> list[_Listed]:
    """Return the chains that ``nft list chains`` printed; those of type nat and route decide nothing here."""
    table, found = "", list[_Listed]()
    for line in text.splitlines():
        if match := _TABLE.match(line):
            table = match["table"]
        elif match := _CHAIN.match(line):
            found.append(_Listed(table, match["name"]))
        elif (match := _HOOK.search(line)) and found and match["type"] == "filter":
            found[-1].hook = match["hook"]
    return found


def _read_table(table: str) -> tuple[Chain, ...]:
    program = _IPTABLES.get(table)
    if program and process.find(program) and (chains := filtertable.read(program)) is not None:
        return chains
    # -t: sets can have more members than there is patience for.
    listed = process.run(["nft", "-a", "-s", "-t", "list", "table", *table.split()], timeout=_TIMEOUT_S, success=None)
    # Gone since the chains were listed: nothing is in the way.
    return parse(table, listed.stdout) if listed.returncode == 0 else ()


def parse(table: str, text: str) -> tuple[Chain, ...]:
    """Return the chains that ``nft -a -s -t list table`` printed."""
    found = nft.parse(table, text)
    chains = []
    for chain in found.chains:
        match = _HOOK.search(chain.hook)
        filters = match is not None and match["type"] == "filter"
        lines = (
            Line(rule.rule.text, rule.handle, rule.marked) for rule in found.rules if rule.rule.chain == chain.name
        )
        chains.append(
            Chain(
                firewall.NFT,
                table,
                chain.name,
                match["hook"] if match and filters else "",
                (match["policy"] if match else "") or "accept",
                tuple(lines),
            )
        )
    return tuple(chains)


def write(edits: Sequence[firewall.Edit], chains: Sequence[Chain]) -> None:
    """Carry out the edits of all backends, each backend's in one transaction.

    :param chains: as they were read.
    :raises CfctlError: if one is refused; its rules are as before.
    """
    lines = list(_lines((edit for edit in edits if edit.chain.backend == firewall.NFT), chains))
    if lines:
        nft.transaction(lines)
    for program in dict.fromkeys(edit.chain.backend for edit in edits if edit.chain.backend != firewall.NFT):
        filtertable.write(program, [edit for edit in edits if edit.chain.backend == program], chains)


def _lines(edits: Iterable[firewall.Edit], chains: Sequence[Chain]) -> Iterable[str]:
    for edit in edits:
        chain = edit.chain
        if edit.add:
            rule = f'{edit.opening.rule} comment "{firewall.MARK}"'
            end = firewall.end(chain, chains)
            if end < len(chain.rules):
                yield f"insert rule {chain} position {chain.rules[end].at} {rule}"
            else:
                yield f"add rule {chain} {rule}"
        for line in edit.remove:
            yield f"delete rule {chain} handle {line.at}"
