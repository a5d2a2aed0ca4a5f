"""One question to a supervisor's socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds between the answer to a stop and the end of the process that gave it.
_LAST_WORDS_S = 2.0


def ask(path: Path, request: bytes, *, patience: float, until_gone: bool = False) -> bytes:
    """Send a request and return the one byte that answers it.

    :param patience: seconds; 0 waits for ever.
    :param until_gone: wait a moment for the end of the process that answered.
    :raises OSError: if nobody listens, nobody answers in time, or the connection ends without an answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience or None)
        connection.connect(os.fspath(path))
        with _end_of_peer(connection) as end:
            connection.sendall(request)
            answer = connection.recv(1)
            if until_gone and answer and end is not None:
                select.select([end], [], [], _LAST_WORDS_S)
    if not answer:
        raise ConnectionResetError("the launcher closed the connection without an answer")
    return answer


@contextlib.contextmanager
def _end_of_peer(connection: socket.socket) -> Iterator[int | None]:
    """Give a descriptor that is readable when the process that listens has ended; None if it cannot be seen."""
    pid, _, _ = struct.unpack("=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        end = os.pidfd_open(pid)
    except OSError:
        # Another pid namespace's.
        yield None
        return
    try:
        yield end
    finally:
        os.close(end)
