"""The one message of rtnetlink(7) that is sent by the hundred: put a link into a link group.

``ip -batch`` looks every name up before it changes it, which takes three times as long, and a link that bears the
name by then may be another one. The index cannot be given to another link in the meantime.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
_NETLINK_ROUTE = 0
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
_RTM_SETLINK = 19
_IFLA_GROUP = 27

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_INTERFACE = struct.Struct("=BxHiII")  # family, type, index, flags, which flags change
_ATTRIBUTE = struct.Struct("=HHI")  # length, type, a 32-bit value
_ERROR = struct.Struct("=i")

#: Well below the default send buffer (net.core.wmem_default, 212992).
_MESSAGES_PER_SEND = 256


def set_group(indexes: Iterable[int], group: int) -> None:
    """Put links into a link group; one that is gone by now is left out.

    :param indexes: the links' interface indexes.
    :raises OSError: if the kernel refuses one; others may have been moved.
    """
    pending = list(indexes)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        for start in range(0, len(pending), _MESSAGES_PER_SEND):
            chunk = pending[start : start + _MESSAGES_PER_SEND]
            sock.send(b"".join(_message(number, index, group) for number, index in enumerate(chunk)))
            _acknowledged(sock, len(chunk))


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
