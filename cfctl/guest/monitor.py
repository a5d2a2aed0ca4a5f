"""The supervisor's socket, ``launcher_monitor.sock``: one byte asks, one byte answers (launcher.md section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from cfctl.errors import DevicesUp
from cfctl.guest.layout import GROUP

if TYPE_CHECKING:
    from pathlib import Path

OK = b"S"
ERROR = b"E"

#: Upstream's listen(2) backlog.
_BACKLOG = 4

#: Longest extended request that is read; real ones have tens of bytes.
_LONGEST = 1 << 16

#: Seconds in which the rest of a request must follow its first byte.
_PATIENCE_S = 10.0

#: Fields of ``ExtendedLauncherAction.actions`` (run_cvd.proto).
_SUSPEND, _RESUME = 5, 6

_SO_PEERGROUPS = 59  # asm-generic/socket.h


class Supervisor(Protocol):
    """What can be asked for; each returns whether it was done."""

    async def stop(self, *, code: int) -> bool:
        """Stop the VM; the process ends with ``code`` after the answer."""

    async def restart(self) -> bool:
        """Stop the VM and start it again."""

    async def booted(self) -> int:
        """Wait for the end of the boot that is under way: 0, or what went wrong."""

    async def pause(self) -> bool:
        """Stop the VM's processors."""

    async def resume(self) -> bool:
        """Let the VM's processors go on."""


class Server:
    """Answers every client by itself: one that stays silent hinders nobody, unlike upstream's.

    :param path: the socket.
    :param supervisor: who does the work.
    """

    def __init__(self, path: Path, supervisor: Supervisor) -> None:
        self._path = path
        self._supervisor = supervisor
        self._server: asyncio.Server | None = None
        self._working = asyncio.Lock()
        self.ended = asyncio.Event()

    async def start(self) -> None:
        """Listen.

        :raises DevicesUp: if another supervisor answers there; its socket is left alone.
        """
        refuse_live(self._path)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server = await asyncio.start_unix_server(self._serve, self._path, backlog=_BACKLOG)
        self._path.chmod(0o666)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client that has gone must not take the device with it; upstream's supervisor dies of SIGPIPE here.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                if not _trusted(writer.get_extra_info("socket")):
                    writer.write(ERROR)
                else:
                    while (request := await reader.read(1)) and await self._answer(request, reader, writer):
                        await writer.drain()
                await writer.drain()
        finally:
            writer.close()

    async def _answer(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the client may ask again."""
        if request == b"I":
            writer.write(OK)
        elif request in (b"X", b"F"):
            async with self._working:
                done = await self._supervisor.stop(code=0 if request == b"X" else 11)
                writer.write(OK if done else ERROR)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            if done:
                self.ended.set()
        elif request == b"R":
            async with self._working:
                done = await self._supervisor.restart()
                writer.write(OK if done else ERROR)
            if done:
                await writer.drain()
                writer.write(struct.pack("=i", await self._supervisor.booted()))
                return False
        elif request == b"P":
            # There are no disks that could be reset.
            writer.write(ERROR)
        else:
            await self._extended(reader, writer)
            return False
        return True

    async def _extended(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer an extended request, whose length and message follow."""
        (length,) = struct.unpack("=I", await asyncio.wait_for(reader.readexactly(4), _PATIENCE_S))
        message = b""
        if 0 < length <= _LONGEST:
            message = await asyncio.wait_for(reader.readexactly(length), _PATIENCE_S)
        wanted = action(message)
        if wanted is None and message:
            return
        async with self._working:
            if wanted == _SUSPEND:
                done = await self._supervisor.pause()
            elif wanted == _RESUME:
                done = await self._supervisor.resume()
            else:
                done = False
        writer.write(OK if done else ERROR)


def refuse_live(path: Path) -> None:
    """Make sure that nobody listens on a supervisor's socket.

    :raises DevicesUp: if somebody does; the socket is left alone.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except (BlockingIOError, TimeoutError):
            pass  # It is there, and too busy to accept.
        except OSError:
            return
    raise DevicesUp(
        f"{path.parent.name} is running already",
        f"Its launcher answers on {path}.",
        "Stop it first, from its own HOME: stop_cvd",
    )


def action(message: bytes) -> int | None:
    """Return which action a serialized ``ExtendedLauncherAction`` asks for; None if it is not well formed.

    The action is the only field of the message with a length, apart from a verbosity.
    """
    wanted = 0
    position = 0
    try:
        while position < len(message):
            tag, position = _varint(message, position)
            if tag & 7 == 2:
                length, position = _varint(message, position)
                if tag >> 3 != 20:
                    wanted = tag >> 3
                position += length
            elif tag & 7 == 0:
                _, position = _varint(message, position)
            else:
                return None
    except IndexError:
        return None
    return wanted if position == len(message) else None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _trusted(connection: socket.socket) -> bool:
    """Tell whether the peer may command the device: its owner, root, or a member of the group.

    The socket itself is open to all, as upstream's is.
    """
    _, uid, gid = struct.unpack("=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid in (0, os.getuid()):
        return True
    with contextlib.suppress(KeyError, OSError):
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * 4096)
        groups = {gid, *(entry[0] for entry in struct.iter_unpack("=I", raw))}
        return grp.getgrnam(GROUP).gr_gid in groups
    return False
