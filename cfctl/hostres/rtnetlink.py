"""Link groups by rtnetlink(7): put links into one, read its members back, delete them all at once.

``ip -batch`` looks every name up before it changes it, which takes three times as long, and a link that bears the
name by then may be another one. The index cannot be given to another link in the meantime. The read-back stands
between two changes: no program is started for it, so that it is short.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
_NETLINK_ROUTE = 0
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_SETLINK = 19
_IFLA_IFNAME = 3
_IFLA_IFALIAS = 20
_IFLA_GROUP = 27
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_INTERFACE = struct.Struct("=BxHiII")  # family, type, index, flags, which flags change
_ATTRIBUTE = struct.Struct("=HHI")  # length, type, a 32-bit value
_ATTRIBUTE_HEADER = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

#: Well below the default send buffer (net.core.wmem_default, 212992).
_MESSAGES_PER_SEND = 256

#: A list that others change while it is read is asked for again.
_TRIES = 20


def set_group(indexes: Iterable[int], group: int) -> None:
    """Put links into a link group; one that is gone by now is left out.

    :param indexes: the links' interface indexes.
    :raises OSError: if the kernel refuses one; others may have been moved.
    """
    pending = list(indexes)
    with _socket() as sock:
        for start in range(0, len(pending), _MESSAGES_PER_SEND):
            chunk = pending[start : start + _MESSAGES_PER_SEND]
            sock.send(b"".join(_message(number, index, group) for number, index in enumerate(chunk)))
            _acknowledged(sock, len(chunk))


def delete_group(group: int) -> None:
    """Delete all links of a group; a group without any does no harm.

    :raises OSError: if the kernel refuses.
    """
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size, _IFLA_GROUP, group)
    with _socket() as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), _RTM_DELLINK, _NLM_F_REQUEST | _NLM_F_ACK, 0, 0) + body)
        _acknowledged(sock, 1)


def group_members(group: int) -> dict[str, tuple[int, str | None]]:
    """Return the members of a link group: name -> index and alias.

    :raises OSError: if the kernel cannot be asked, or its links change without end.
    """
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    question = _HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + body
    with _socket() as sock:
        for _ in range(_TRIES):
            sock.send(question)
            found, disturbed = _links(sock)
            if not disturbed:
                return {name: (index, alias) for name, index, alias, theirs in found if theirs == group}
    raise OSError(errno.EAGAIN, "the host's interfaces change all the time")


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    sock.bind((0, 0))
    return sock


def _links(sock: socket.socket) -> tuple[list[tuple[str, int, str | None, int]], bool]:
    """Read the answers to a dump: name, index, alias and group of each link; and whether links changed meanwhile."""
    found: list[tuple[str, int, str | None, int]] = []
    disturbed = False
    while True:
        answer = sock.recv(1 << 18)
        at = 0
        while at < len(answer):
            length, kind, flags, *_ = _HEADER.unpack_from(answer, at)
            disturbed = disturbed or bool(flags & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_DONE:
                return found, disturbed
            if kind == _NLMSG_ERROR:
                code = -_ERROR.unpack_from(answer, at + _HEADER.size)[0]
                raise OSError(code, os.strerror(code))
            if kind == _RTM_NEWLINK:
                found.append(_link(answer, at + _HEADER.size, at + length))
            at += (length + 3) & ~3


def _link(answer: bytes, at: int, end: int) -> tuple[str, int, str | None, int]:
    index: int = _INTERFACE.unpack_from(answer, at)[2]
    values: dict[int, bytes] = {}
    at += _INTERFACE.size
    while at + _ATTRIBUTE_HEADER.size <= end:
        length, kind = _ATTRIBUTE_HEADER.unpack_from(answer, at)
        if kind in (_IFLA_IFNAME, _IFLA_IFALIAS, _IFLA_GROUP):
            values[kind] = answer[at + _ATTRIBUTE_HEADER.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE_HEADER.size)
    texts = {kind: value.rstrip(b"\0").decode(errors="replace") for kind, value in values.items()}
    group = int.from_bytes(values.get(_IFLA_GROUP, b""), sys.byteorder)
    return texts.get(_IFLA_IFNAME, ""), index, texts.get(_IFLA_IFALIAS), group


def _message(number: int, index: int, group: int) -> bytes:
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size, _IFLA_GROUP, group)
    flags = _NLM_F_REQUEST | _NLM_F_ACK
    return _HEADER.pack(_HEADER.size + len(body), _RTM_SETLINK, flags, number, 0) + body


def _acknowledged(sock: socket.socket, count: int) -> None:
    """Read the answer to each message."""
    while count:
        answer = sock.recv(65536)
        while answer:
            length, kind, *_ = _HEADER.unpack_from(answer)
            if kind == _NLMSG_ERROR:
                count -= 1
                code = -_ERROR.unpack_from(answer, _HEADER.size)[0]
                if code not in (0, errno.ENODEV):
                    raise OSError(code, os.strerror(code))
            answer = answer[(length + 3) & ~3 :]
