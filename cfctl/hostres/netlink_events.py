"""What the kernel tells by itself: that links, addresses, forwarding or firewall rules have changed.

Nothing more than that something has changed is taken from it; how things are now, is then read as ever. So a message
that is lost, or of a kind that this does not know, does no harm.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING

from cfctl.errors import HostLacks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# linux/netlink.h
_NETLINK_ROUTE = 0
_NETLINK_NETFILTER = 12

# linux/rtnetlink.h; bind(2) takes a bit per group
_GROUPS = (
    (1 << 0)  # RTNLGRP_LINK
    | (1 << 4)  # RTNLGRP_IPV4_IFADDR
    | (1 << 8)  # RTNLGRP_IPV6_IFADDR
    | (1 << 23)  # RTNLGRP_IPV4_NETCONF: forwarding
    | (1 << 24)  # RTNLGRP_IPV6_NETCONF
)
_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_RTM_NEWNETCONF, _RTM_DELNETCONF = 80, 81
_IFLA_IFNAME = 3

# linux/netconf.h: which interface; -1 is the switch for all
_NETCONFA_IFINDEX = 1
_ALL_INTERFACES = -1

# linux/netfilter/nfnetlink.h, nf_tables.h
_NFT_GROUP = 1 << 6  # NFNLGRP_NFTABLES
_NFTA_TABLE = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_INTERFACE = struct.Struct("=BxHiII")  # family, type, index, flags, which flags change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_NETCONF = struct.Struct("=B3x")  # family
_NFGEN = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type

#: A set-up of 128 instances makes some thousand messages; what does not fit is told as ENOBUFS.
_BUFFER_BYTES = 1 << 20
_READ_BYTES = 65536

#: What interfaces of ours are called.
_PREFIX = "cvd-"


def messages(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of the messages in what was read; what is cut off is left out."""
    while len(raw) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(raw)
        if not _HEADER.size <= length <= len(raw):
            return
        yield kind, raw[_HEADER.size : length]
        raw = raw[(length + 3) & ~3 :]


def attribute(raw: bytes, wanted: int) -> bytes | None:
    """Return the content of the first attribute of a kind; None if there is none."""
    while len(raw) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(raw)
        if length < _ATTRIBUTE.size:
            return None
        if kind == wanted:
            return raw[_ATTRIBUTE.size : length]
        raw = raw[(length + 3) & ~3 :]
    return None


def of_links(raw: bytes, names: Collection[str]) -> bool:
    """Tell whether messages of rtnetlink may be about interfaces of ours.

    :param names: others that matter: somebody else's bridge.
    """
    for kind, body in messages(raw):
        name = _interface(kind, body)
        if name is None or name.startswith(_PREFIX) or name in names:
            return True
    return False


def _interface(kind: int, body: bytes) -> str | None:
    """Return the name of the interface that a message is about; None if it is about all, or nobody knows."""
    index = 0
    if kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(body) >= _INTERFACE.size:
        return _text(attribute(body[_INTERFACE.size :], _IFLA_IFNAME))
    if kind in (_RTM_NEWADDR, _RTM_DELADDR) and len(body) >= _ADDRESS.size:
        index = _ADDRESS.unpack_from(body)[4]
    if kind in (_RTM_NEWNETCONF, _RTM_DELNETCONF):
        raw = attribute(body[_NETCONF.size :], _NETCONFA_IFINDEX)
        index = int.from_bytes(raw, sys.byteorder, signed=True) if raw else _ALL_INTERFACES
        if index < _ALL_INTERFACES:
            return "default"  # What interfaces begin with that are not there yet.
    try:
        return socket.if_indextoname(index) if index > 0 else None
    except OSError:
        return None  # It is gone.


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.rstrip(b"\0").decode(errors="replace")


def of_tables(raw: bytes, names: Collection[str]) -> bool:
    """Tell whether messages of nf_tables may be about one of the tables ``names``."""
    for _, body in messages(raw):
        table = _text(attribute(body[_NFGEN.size :], _NFTA_TABLE))
        # A generation has a number there. It ends each transaction, whoever's.
        if table in names:
            return True
    return False


class Listener:
    """The two sockets; everything that happens from their opening on is told."""

    def __init__(self, links: socket.socket, rules: socket.socket) -> None:
        self._links = links
        self._rules = rules

    def register(self, poll: select.poll) -> None:
        """Have ``poll`` wait for news."""
        for sock in (self._links, self._rules):
            poll.register(sock, select.POLLIN)

    def read(self, *, interfaces: Collection[str], tables: Collection[str]) -> tuple[bool, bool]:
        """Take all news that are there.

        :param interfaces: those that matter beside ``cvd-*``.
        :param tables: names of firewall tables.
        :return: whether something has happened to ours; whether to somebody else's rules.
        """
        ours = others = False
        for raw in _all(self._links):
            ours = ours or raw is None or of_links(raw, interfaces)
        for raw in _all(self._rules):
            mine = raw is None or of_tables(raw, tables)
            ours, others = ours or mine, others or not mine
        return ours, others


def _all(sock: socket.socket) -> Iterator[bytes | None]:
    """Yield what can be read without waiting; None where messages were lost."""
    while True:
        try:
            yield sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            yield None


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Listen for the block.

    :raises HostLacks: if the kernel has no netfilter to tell of.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for family, groups in ((_NETLINK_ROUTE, _GROUPS), (_NETLINK_NETFILTER, _NFT_GROUP)):
            try:
                sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
                stack.enter_context(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
                sock.settimeout(0)
                sock.bind((0, groups))
            except OSError as exc:
                raise HostLacks(
                    "the kernel does not tell of changes of the network",
                    f"netlink family {family}: {exc.strerror}.",
                    "Load the modules: modprobe -a nfnetlink nf_tables",
                ) from exc
            opened.append(sock)
        yield Listener(*opened)
