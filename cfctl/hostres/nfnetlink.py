"""Asks the kernel which nftables there are: one socket instead of one program for each table."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

# linux/netlink.h
_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
# linux/netfilter/nfnetlink.h, nf_tables.h
_SUBSYSTEM = 10 << 8
_GETTABLE = _SUBSYSTEM | 1
_GETCHAIN = _SUBSYSTEM | 4
_TABLE_NAME = 1
_CHAIN_TABLE = 1
_CHAIN_NAME = 3
#: linux/netfilter.h, by number.
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_GENERIC = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")

#: A dump that others disturb is asked for again; whoever changes rules without end may have what was seen last.
_TRIES = 5


class Chain(NamedTuple):
    """A chain, by name.

    :param table: family and name of its table, ``ip filter``.
    """

    table: str
    name: str


class Names(NamedTuple):
    """What there is, by name.

    :param tables: family and name.
    """

    tables: frozenset[str]
    chains: frozenset[Chain]


def names() -> Names | None:
    """Return all tables and chains; None if the kernel has no nftables.

    :raises PermissionError: for an ordinary user.
    :raises OSError: if the kernel cannot be asked.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
            sock.bind((0, 0))
            tables = _dump(sock, _GETTABLE)
            chains = _dump(sock, _GETCHAIN)
    except OSError as exc:
        # Without nfnetlink, or without nf_tables in it (net/netfilter/nfnetlink.c answers EINVAL).
        if exc.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            return None
        raise
    return Names(
        frozenset(f"{family} {found[_TABLE_NAME]}" for family, found in tables if _TABLE_NAME in found),
        frozenset(
            Chain(f"{family} {found[_CHAIN_TABLE]}", found[_CHAIN_NAME])
            for family, found in chains
            if _CHAIN_TABLE in found and _CHAIN_NAME in found
        ),
    )


def _dump(sock: socket.socket, kind: int) -> list[tuple[str, dict[int, str]]]:
    """Return the family and the names of each object of one kind."""
    found: list[tuple[str, dict[int, str]]] = []
    for _ in range(_TRIES):
        body = _GENERIC.pack(socket.AF_UNSPEC, 0, 0)
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + body)
        found, disturbed = _answers(sock)
        if not disturbed:
            break
    return found


def _answers(sock: socket.socket) -> tuple[list[tuple[str, dict[int, str]]], bool]:
    found: list[tuple[str, dict[int, str]]] = []
    disturbed = False
    while True:
        answer = sock.recv(65536)
        while answer:
            length, kind, flags, *_ = _HEADER.unpack_from(answer)
            disturbed = disturbed or bool(flags & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_DONE:
                return found, disturbed
            if kind == _NLMSG_ERROR:
                code = -_ERROR.unpack_from(answer, _HEADER.size)[0]
                raise OSError(code, os.strerror(code))
            family = _FAMILIES.get(_GENERIC.unpack_from(answer, _HEADER.size)[0], "unknown")
            found.append((family, dict(_strings(answer[_HEADER.size + _GENERIC.size : length]))))
            answer = answer[(length + 3) & ~3 :]


def _strings(data: bytes) -> list[tuple[int, str]]:
    found = []
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if kind in (_TABLE_NAME, _CHAIN_NAME):
            found.append((kind, data[_ATTRIBUTE.size : length].rstrip(b"\0").decode(errors="replace")))
        data = data[max((length + 3) & ~3, _ATTRIBUTE.size) :]
    return found
