"""The supervisor's socket, ``launcher_monitor.sock``: one byte asks, one byte answers (launcher.md section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from cfctl.errors import DevicesUp
from cfctl.guest.layout import GROUP

OK = b"S"
ERROR = b"E"

#: Upstream's listen(2) backlog.
_BACKLOG = 4

#: Longest extended request that is read; real ones have tens of bytes.
_LONGEST = 1 << 16

#: Seconds in which the rest of a request must follow its first byte.
_PATIENCE_S = 10.0


class Extended(IntEnum):
    """Fields of ``ExtendedLauncherAction.actions`` (run_cvd.proto)."""

    SUSPEND = 5
    RESUME = 6
    START_RECORDING = 7
    STOP_RECORDING = 8
    SNAPSHOT = 9
    SCREENSHOT = 10


#: They write files with the owner's rights, wherever they are told: not for other members of the group.
_OWNERS_ALONE = (Extended.SNAPSHOT, Extended.SCREENSHOT)

#: The field beside the actions that has a length as well.
_VERBOSITY = 20

_SO_PEERGROUPS = 59  # asm-generic/socket.h

#: Python takes no more (Modules/socketmodule.c, sock_getsockopt).
_LONGEST_OPTION = 1024


class Supervisor(Protocol):
    """What can be asked for; each returns whether it was done."""

    async def stop(self, *, code: int) -> bool:
        """Stop the VM; the process ends with ``code`` after the answer."""

    async def restart(self, *, wipe: bool = False) -> bool:
        """Stop the VM and start it again, with a blank disk if asked to."""

    async def booted(self) -> int:
        """Wait for the end of the boot that is under way: 0, or what went wrong."""

    async def pause(self) -> bool:
        """Stop the VM's processors."""

    async def resume(self) -> bool:
        """Let the VM's processors go on."""

    async def snapshot(self, meta: Path) -> bool:
        """Save the VM, which is paused, as the file ``meta`` says."""

    async def screenshot(self, display: int, path: Path) -> bool:
        """Save what a display shows."""


@dataclass(frozen=True, slots=True)
class Request:
    """An extended request.

    :param action: the field's number; one that is not in :class:`Extended` cannot be done.
    :param number: of a display.
    :param path: of a file.
    """

    action: int = 0
    number: int = 0
    path: str = ""


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
        elif request in (b"R", b"P"):
            async with self._working:
                done = await self._supervisor.restart(wipe=request == b"P")
                writer.write(OK if done else ERROR)
            if done:
                await writer.drain()
                writer.write(struct.pack("=i", await self._supervisor.booted()))
                return False
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
        wanted = parse(message)
        if wanted is None:
            return
        if wanted.action in _OWNERS_ALONE and not _owner(writer.get_extra_info("socket")):
            writer.write(ERROR)
            return
        async with self._working:
            done = await self._do(wanted)
        writer.write(OK if done else ERROR)

    async def _do(self, wanted: Request) -> bool:
        if wanted.action == Extended.SUSPEND:
            return await self._supervisor.pause()
        if wanted.action == Extended.RESUME:
            return await self._supervisor.resume()
        if not wanted.path.startswith("/"):
            return False
        if wanted.action == Extended.SNAPSHOT:
            return await self._supervisor.snapshot(Path(wanted.path))
        if wanted.action == Extended.SCREENSHOT:
            return await self._supervisor.screenshot(wanted.number, Path(wanted.path))
        return False


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


def parse(message: bytes) -> Request | None:
    """Return what a serialized ``ExtendedLauncherAction`` asks for; None if it is not well formed.

    The action is the only field of the message with a length, apart from a verbosity.
    """
    outer = _fields(message)
    if outer is None:
        return None
    action, inner = 0, b""
    for field, value in outer:
        if isinstance(value, bytes) and field != _VERBOSITY:
            action, inner = field, value
    arguments = _fields(inner)
    if arguments is None:
        return None
    numbers = [value for _, value in arguments if isinstance(value, int)]
    texts = [value for _, value in arguments if isinstance(value, bytes)]
    try:
        return Request(action, numbers[-1] if numbers else 0, texts[-1].decode() if texts else "")
    except UnicodeDecodeError:
        return None


def _fields(message: bytes) -> list[tuple[int, int | bytes]] | None:
    """Return the fields of a protobuf message that are numbers or have a length; None if it is not one."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    try:
        while position < len(message):
            tag, position = _varint(message, position)
            if tag & 7 == 2:
                length, position = _varint(message, position)
                if position + length > len(message):
                    return None
                found.append((tag >> 3, message[position : position + length]))
                position += length
            elif tag & 7 == 0:
                value, position = _varint(message, position)
                found.append((tag >> 3, value))
            else:
                return None
    except IndexError:
        return None
    return found


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
    if _owner(connection):
        return True
    groups: set[int] = {struct.unpack("=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[2]}
    # A peer with more groups than fit is known by its first group alone.
    with contextlib.suppress(OSError):
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LONGEST_OPTION)
        groups |= {entry[0] for entry in struct.iter_unpack("=I", raw)}
    with contextlib.suppress(KeyError):
        return grp.getgrnam(GROUP).gr_gid in groups
    return False


def _owner(connection: socket.socket) -> bool:
    """Tell whether the peer is the device's owner, or root."""
    uid: int = struct.unpack("=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return uid in (0, os.getuid())
