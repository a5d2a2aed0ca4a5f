"""What guests need where iptables drops by default: their DHCP, what they send, and the answers to it.

A packet must be let through by every table of the kernel, so rules in tables of ours do not help (host_resources.md
section 8, B17 and B18): the opening belongs into the chain that drops. It comes after everything that is there: what
an administrator drops stays dropped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.hostres.iptables import marked, without_mark
from cfctl.hostres.rules import Rule
from cfctl.instance import BRIDGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfctl.hostres.iptables import Saved

#: Docker's chain for rules of others, which it asks first and leaves alone.
_DOCKER = "DOCKER-USER"
_CHAINS = ("INPUT", "FORWARD", _DOCKER)

_OUT_ISOLATED = "-i cvd-+ ! -o cvd-+ -j ACCEPT"
_OUT = "-i cvd-+ -j ACCEPT"
_BACK = "-o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"


@dataclass(frozen=True, slots=True)
class Opening:
    """A rule of ours in a chain of somebody else.

    :param table: ``iptables-legacy filter``.
    """

    table: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.table} {self.rule.chain}: {self.rule.text}"


def dhcp(bridge: str) -> str:
    """Return the rule that lets guests ask for their address."""
    return f"-i {bridge} -p udp -m udp --dport 67 -j ACCEPT"


def wanted(filters: Mapping[str, Saved], *, servers: Sequence[str], isolated: bool) -> list[Opening]:
    """Return the openings that a host needs.

    :param filters: the tables ``filter`` that there are, by id.
    :param servers: the bridges with a DHCP server of ours.
    :param isolated: guests are not to reach each other: Docker's chain may come before ours.
    """
    found = []
    for table, saved in filters.items():
        if not table.startswith("iptables-"):
            continue
        if saved.policies.get("FORWARD") == "DROP":
            chain = _DOCKER if _DOCKER in saved.policies else "FORWARD"
            out = _OUT_ISOLATED if isolated else _OUT
            found += [Opening(table, Rule(chain, text)) for text in (out, _BACK)]
        if saved.policies.get("INPUT") == "DROP":
            found += [
                Opening(table, Rule("INPUT", dhcp(bridge.name))) for bridge in BRIDGES if bridge.name in servers
            ]
    return found


def there(filters: Mapping[str, Saved]) -> list[Opening]:
    """Return the openings that there are, as often as they are there."""
    found = []
    for table, saved in filters.items():
        for chain in _CHAINS:
            for text in saved.rules.get(chain, ()):
                bare, mark = without_mark(text)
                if mark and bare.endswith("-j ACCEPT"):
                    found.append(Opening(table, Rule(chain, bare)))
    return found


def difference(needed: Sequence[Opening], found: Sequence[Opening]) -> tuple[list[Opening], list[Opening]]:
    """Return what is missing, and what is too much, as often as it is."""
    missing = [opening for opening in needed if opening not in found]
    return missing, list((Counter(found) - Counter(dict.fromkeys(needed, 1))).elements())


def lines(
    filters: Mapping[str, Saved], added: Sequence[Opening], removed: Sequence[Opening]
) -> Iterator[tuple[str, str]]:
    """Yield the lines of ``iptables-restore`` that make and remove openings, each with its table."""
    before_return: dict[tuple[str, str], int] = {}
    for opening in added:
        table, rule = opening.table, opening.rule
        key = table, rule.chain
        if key not in before_return:
            rules = filters[table].rules.get(rule.chain, [])
            # Docker ends its chain with one; what comes after it is never asked.
            before_return[key] = len(rules) if rules and rules[-1] == "-j RETURN" else 0
        if before_return[key]:
            yield table, f"-I {rule.chain} {before_return[key]} {marked(rule.text)}"
            before_return[key] += 1
        else:
            yield table, f"-A {rule.chain} {marked(rule.text)}"
    for opening in removed:
        yield opening.table, f"-D {opening.rule.chain} {marked(opening.rule.text)}"
