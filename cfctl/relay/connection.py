"""One connection to the front: where it comes from, and what it has shown."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: What one subscriber usually has of IPv6 (RFC 6177).
_SUBSCRIBER = 64


def nothing() -> None:
    """Do nothing."""


@dataclass(eq=False, slots=True)
class Connection:
    """A caller's connection, from its acceptance to its end.

    :param id: counts up.
    :param inside: what it is called behind the front.
    :param address: the caller's, for people: ``unix`` or ``192.0.2.1:40000``.
    :param peer: those that come from the same place share a limit.
    :param uid: the user at the other end of a unix socket, by the kernel's word; None over TCP.
    :param behind: what answers it.
    :param close: ends it at once.
    :param received: bytes that he has sent.
    :param welcome: called when a call was let through: it is no stranger any more.
    """

    id: int
    address: str
    peer: str
    uid: int | None
    behind: str = ""
    inside: str = ""
    close: Callable[[], None] = nothing
    welcome: Callable[[], None] = nothing
    known: bool = False
    refusals: int = 0
    received: int = 0

    @property
    def host(self) -> str:
        """The caller's address without its port."""
        return self.address.rpartition(":")[0].strip("[]")


def peer_of(host: str) -> str:
    """Return what an address is counted as: itself, or the /64 that an IPv6 address is in."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _SUBSCRIBER << _SUBSCRIBER)) + f"/{_SUBSCRIBER}"
    return str(address)
