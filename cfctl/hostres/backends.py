"""Which program makes the firewall rules: nft, or iptables where there is none; and what either has made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cfctl import process
from cfctl.errors import HostLacks
from cfctl.hostres import iptables, nfnetlink, nft
from cfctl.hostres.iptables import Iptables

if TYPE_CHECKING:
    from collections.abc import Collection

    from cfctl.config import Settings
    from cfctl.hostres.rules import Backend, FoundTable

#: The module is its own only instance.
WITH_NFT = cast("Backend", nft)
ALL: tuple[Backend, ...] = (WITH_NFT, iptables.LEGACY, iptables.NFT)
TABLES = tuple(table for backend in ALL for table in backend.TABLES)

_SETTING = "host.rules"


@dataclass(frozen=True, slots=True)
class Choice:
    """What makes the rules in this run.

    :param reason: why it is not nft, in words; empty if it is.
    """

    backend: Backend
    reason: str = ""

    @property
    def with_nft(self) -> bool:
        """Nothing of iptables is needed."""
        return self.backend is WITH_NFT


def choose(settings: Settings) -> Choice:
    """Return what makes the rules: as the settings say, else nft where it works.

    :raises MissingCommand: if the settings name a program that is not installed, or none is; naming nft then.
    """
    wanted = settings[_SETTING]
    if wanted != "iptables":
        lack = _why_not_nft()
        if not lack:
            return Choice(WITH_NFT)
        if wanted == "nft":
            process.require("nft")
            return Choice(WITH_NFT)  # It will say itself what the kernel lacks.
    else:
        lack = f"{_SETTING} = iptables ({settings.origin(_SETTING)})"
    for variant in _variants():
        if iptables.installed("iptables", variant):
            return Choice(Iptables(variant, ipv6=_ipv6(variant)), lack)
    process.require("iptables" if wanted == "iptables" else "nft")
    return Choice(WITH_NFT)


def _why_not_nft() -> str:
    if not process.find("nft"):
        return "the program nft is not installed"
    try:
        if nfnetlink.names() is None:
            return "this kernel has no nf_tables"
    except OSError:
        pass  # An ordinary user may not ask.
    return ""


def _variants() -> tuple[iptables.Variant, ...]:
    """Return the sorts of iptables, best first: what the host uses already, then what ``iptables`` is."""
    if iptables.legacy_tables() or iptables.plain() != "nft":
        return "legacy", "nft"
    return "nft", "legacy"


def _ipv6(variant: iptables.Variant) -> bool:
    return Path("/proc/net/if_inet6").exists() and iptables.installed("ip6tables", variant)


def require(choice: Choice, *, routed: bool) -> None:
    """Make sure that the program can make all that is wanted.

    :param routed: the host is to route frames that arrive on a bridge.
    :raises HostLacks: if iptables would have to; nothing was changed.
    """
    if routed and not choice.with_nft:
        raise HostLacks(
            "iptables cannot route what arrives on a bridge",
            f"host.ipv4_bridge and host.ipv6_bridge need nft when they are false, and {choice.reason}.",
            "Install nftables 1.0.8 or later. Or let the bridge pass these frames: host.ipv4_bridge = true, "
            "host.ipv6_bridge = true",
        )


def read(names: Collection[str], backend: Backend | None = None) -> Mapping[str, FoundTable] | None:
    """Return what any backend has made here; None for an ordinary user, who may not ask.

    Costs no program for what the kernel does not have.

    :param names: which tables of nft to look for.
    :param backend: the chosen one: what others have in its tables counts as well.
    :raises MissingCommand: if there are rules of ours, and not the program that made them.
    :raises CommandFailed: if the rules cannot be read.
    """
    try:
        kernel = nfnetlink.names() or nfnetlink.Names(frozenset(), frozenset())
    except PermissionError:
        if os.geteuid() != 0:
            return None
        # A container without CAP_NET_ADMIN: nft says so in its own words.
        kernel = nfnetlink.Names(frozenset(names), frozenset())
    there = [name for name in names if name in kernel.tables]
    tables = dict(nft.read(there, alone=len(there) == len(kernel.tables)) if there else {})
    for family, nft_family in (("iptables", "ip"), ("ip6tables", "ip6")):
        if iptables.legacy_tables(family) and iptables.installed(family, "legacy"):
            _read(family, "legacy", tables)
        ours = any(table.startswith(f"{nft_family} ") and name.startswith("CFCTL_") for table, name in kernel.chains)
        if ours or (backend is not None and backend.NAME == iptables.NFT.NAME and _has(kernel, nft_family)):
            _read(family, "nft", tables)
    return tables


def _has(kernel: nfnetlink.Names, family: str) -> bool:
    return any(f"{family} {table}" in kernel.tables for table in ("nat", "filter", "mangle"))


def _read(family: str, variant: iptables.Variant, tables: dict[str, FoundTable]) -> None:
    for name, saved in iptables.save(family, variant).items():
        table = f"{family}-{variant} {name}"
        if table in TABLES and (found := iptables.ours(table, saved)):
            tables[table] = found
