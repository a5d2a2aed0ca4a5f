"""Whose program made a loopback connection: a port of 127.0.0.1 is open to everybody on the machine."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_TABLE = Path("/proc/net/tcp")

#: Columns of the table (proc_net_tcp in the kernel's documentation).
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9

#: The inode of a socket that no program has open any more.
_NOBODYS = "0"


def owner(connection: socket.socket) -> int | None:
    """Return the user id of whoever made a connection that was accepted here; None if it is gone already.

    Of a socket that its program has closed the kernel says that it is root's, while what was sent before can still be
    read: who sends and closes at once would be taken for root.
    """
    ours, theirs = _hex(connection.getsockname()), _hex(connection.getpeername())
    with _TABLE.open() as table:
        for line in table:
            fields = line.split()
            if fields[_LOCAL] == theirs and fields[_REMOTE] == ours:
                return int(fields[_UID]) if fields[_INODE] != _NOBODYS else None
    return None


def is_ours(connection: socket.socket) -> bool:
    """Tell whether a connection comes from this user's program, or from root's."""
    try:
        return owner(connection) in (0, os.geteuid())
    except OSError:
        return False


def _hex(address: tuple[str, int]) -> str:
    """Return an address as the kernel writes it: the bytes of the IPv4 address as a number of this machine."""
    host, port = address
    (number,) = struct.unpack("=I", bytes(map(int, host.split("."))))
    return f"{number:08X}:{port:04X}"
