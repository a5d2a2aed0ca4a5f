"""One packet to crosvm and one back: SOCK_SEQPACKET, a connection for each request (vm_control.md 1.1, 2, 7).

A packet is a message: it is sent whole and read whole, never joined or split. crosvm answers nothing to what it does
not understand, so every exchange has a deadline; when it has passed the connection is closed, so that a late answer
cannot meet the next request.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from cfctl.control import waiting
from cfctl.control.faults import VmBusy, VmRefused, VmSilent, VmUnreachable
from cfctl.control.operations import LONGEST_PACKET
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

#: sun_path of unix(7), without the closing zero.
_LONGEST_PATH = 107

#: Far more than any answer; what is longer is not read.
_LARGEST_REPLY = 16 << 20

#: crosvm sends at most so many descriptors with a packet. None is wanted; what comes is closed.
_MOST_FDS = 32

#: Between two tries, while the VM starts anew and its socket is not there, or its backlog is full.
_RETRY_S = 0.05

#: How long the socket may be missing while the guest reboots: crosvm is run again, and makes it anew.
_GONE_S = 5.0


async def exchange(path: Path, packet: bytes, *, seconds: float, fds: Sequence[int] = ()) -> bytes:
    """Send one packet and return the one that answers it.

    :param seconds: for everything.
    :param fds: descriptors that go with it.
    :raises UsageError: for an empty packet, which crosvm takes for the end of the connection, or too long a one.
    :raises VmUnreachable: if nobody listens; nothing was sent.
    :raises VmBusy: if crosvm takes no more clients; nothing was sent.
    :raises VmRefused: if it closes the connection without an answer.
    :raises VmSilent: if it does not answer in time.
    """
    if not 0 < len(packet) <= LONGEST_PACKET:
        raise UsageError(f"a request of {len(packet)} bytes cannot be sent", f"1 to {LONGEST_PACKET} can.")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with connected(path, deadline=deadline) as connection:
        try:
            async with asyncio.timeout_at(deadline):
                await _send(connection, packet, fds)
                return await _receive(connection)
        except TimeoutError as exc:
            raise VmSilent(
                f"crosvm did not answer within {seconds:g} s",
                "The connection was closed; whether it is still done is not known. crosvm answers nothing to what "
                "its version does not know, and nobody while it is busy.",
            ) from exc
        except OSError as exc:
            raise VmRefused("crosvm closed the connection", exc.strerror, reply=None) from exc


async def peer(path: Path, *, seconds: float) -> tuple[int, int]:
    """Return the process that listens, and its user: the running crosvm itself.

    The process is 0 if it is in a PID namespace that is not seen.

    :raises VmUnreachable, VmBusy: as :func:`exchange`.
    """
    async with connected(path, deadline=asyncio.get_running_loop().time() + seconds) as connection:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("=iII", raw)
        return int(pid), int(uid)


@contextlib.asynccontextmanager
async def connected(path: Path, *, deadline: float) -> AsyncIterator[socket.socket]:
    """Have a connection for the block.

    :param deadline: of the loop's clock, for the connection to be made.
    """
    connection = await _connect(path, deadline)
    try:
        yield connection
    finally:
        connection.close()


async def _connect(path: Path, deadline: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    gone = loop.time() + _GONE_S
    with _short(path) as address:
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            try:
                # Not the loop's: on a full backlog it returns as if it were connected (vm_control.md section 7).
                connection.connect(address)
                connection.getpeername()
            except OSError as exc:
                connection.close()
                missing = isinstance(exc, FileNotFoundError | ConnectionRefusedError)
                full = isinstance(exc, BlockingIOError) or exc.errno == errno.ENOTCONN
                if not missing and not full:
                    raise _unreachable(path, exc) from exc
                now = loop.time()
                if now >= min(deadline, gone) if missing else now >= deadline:
                    raise _unreachable(path, exc) if missing else _full(path) from exc
                await asyncio.sleep(_RETRY_S)
            else:
                return connection


def _unreachable(path: Path, exc: OSError) -> VmUnreachable:
    why = "It is no socket of crosvm's." if exc.errno == errno.EPROTOTYPE else exc.strerror
    return VmUnreachable(f"crosvm is not reached on {path}", why)


def _full(path: Path) -> VmBusy:
    return VmBusy("crosvm takes no more clients", f"As many as it lets wait do so on {path}. Nothing was sent.")


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for a socket that fits into an address, however long its path is."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield os.fspath(path)
        return
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise _unreachable(path, exc) from exc
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def _send(connection: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send a packet whole: the kernel takes all of it or nothing."""
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    while True:
        try:
            connection.sendmsg([packet], extra)
        except BlockingIOError:
            await waiting.ready(connection.fileno(), to_write=True)
        else:
            return


async def _receive(connection: socket.socket) -> bytes:
    """Receive a packet whole, however long it is, and close the descriptors that came with it."""
    while True:
        try:
            # The kernel tells how long the next packet is without taking it (recv(2), MSG_TRUNC).
            length = connection.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
        except BlockingIOError:
            await waiting.ready(connection.fileno(), to_write=False)
            continue
        if length == 0:
            raise VmRefused(
                "crosvm closed the connection without an answer",
                "It ended, or starts anew. Whether it was done is not known.",
                reply=None,
            )
        if length > _LARGEST_REPLY:
            raise VmRefused(
                f"crosvm's answer has {length} bytes", f"More than {_LARGEST_REPLY} are not read.", reply=None
            )
        packet, extra, flags, _ = connection.recvmsg(length, socket.CMSG_SPACE(4 * _MOST_FDS))
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i", data[: len(data) - len(data) % 4])
                for fd in received:
                    os.close(fd)
        if flags & socket.MSG_TRUNC:
            raise VmRefused("crosvm's answer was cut off", None, reply=None)
        return packet
