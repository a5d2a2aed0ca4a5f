"""Firewall rules as data, and what must be known of a program that makes them.

Two sorts of program do: ``nft``, and ``iptables`` where there is no nft. The plan compares data and knows neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The comment of what is ours.
COMMENT = "cfctl"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours.

    :param hook: how packets come into it: in nft what the braces say (type, hook, priority, policy), in iptables the
        built-in chain that leads into it.
    """

    name: str
    hook: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of ours, without its comment, in the program's own words.

    :param text: what the program prints for it.
    """

    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its chains and rules, as it should be.

    :param id: family and name; ``ip cuttlefish_nat``, ``iptables-legacy nat``.
    """

    id: str
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundRule:
    """A rule in the kernel.

    :param handle: nft's number of it within the table, for deletion; iptables has none.
    :param marked: it carries our comment.
    """

    rule: Rule
    handle: int
    marked: bool


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table in the kernel; of iptables, which has one for everybody, only the chains of ours.

    :param marked: it carries our comment, or holds a rule that does: kernels before 5.10 keep no comment of a table.
        A chain of iptables carries no comment: its name is the mark.
    :param others: what it holds beside chains and rules (sets, maps): never ours.
    :param jumps: of iptables, the rules that lead into our chains.
    :param leftovers: rules without a mark in chains of everybody, of the form that upstream's script once made.
    """

    id: str
    chains: tuple[Chain, ...]
    rules: tuple[FoundRule, ...]
    marked: bool
    others: tuple[str, ...] = ()
    jumps: tuple[Rule, ...] = ()
    leftovers: tuple[FoundRule, ...] = ()


class Backend(Protocol):
    """A program that makes rules: the module :mod:`cfctl.hostres.nft`, or one of :mod:`cfctl.hostres.iptables`."""

    @property
    def NAME(self) -> str:
        """What people call it."""

    @property
    def TABLES(self) -> tuple[str, ...]:
        """Every table that cfctl ever makes with it, in the order in which they are to be made."""

    def tables(self, subnets: Sequence[str], *, routed: Sequence[Rule] = (), guest_isolation: bool) -> list[Table]:
        """Return the tables of a host whose guests live in ``subnets``."""

    def create(self, table: Table) -> list[str]:
        """Return the lines that make a table with all that is in it."""

    def add(self, table: str, rule: Rule) -> str:
        """Return the line that appends a rule."""

    def delete(self, table: str, found: FoundRule) -> str:
        """Return the line that deletes a rule."""

    def drop(self, found: FoundTable) -> list[str]:
        """Return the lines that delete what is ours of a table."""

    def carry_out(self, script: Mapping[str, Sequence[str]]) -> None:
        """Carry out the lines of each table, all of one table or none.

        :raises CfctlError: if the kernel refuses.
        """
