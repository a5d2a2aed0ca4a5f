"""What the supervisor carries between host and guest: the ADB port, and the console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address
    from pathlib import Path

ADBD_PORT = 5555

_CHUNK = 1 << 18

#: Between two attempts to reach an adbd that has not come up yet.
_RETRY_S = 0.05
_CONNECT_S = 1.0


class AdbForwarder:
    """Leads a loopback port to the guest's adbd.

    A client that comes before adbd is waited for, not turned away: ``adb connect`` right after the launch works.

    :param port: on 127.0.0.1.
    :param guest: the guest's address.
    :param reachable: set once the guest has its address.
    """

    def __init__(self, port: int, guest: IPv4Address, reachable: asyncio.Event) -> None:
        self._port = port
        self._guest = str(guest)
        self._reachable = reachable
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        :raises OSError: if the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def close(self) -> None:
        """Stop listening, and drop all connections."""
        if self._server is not None:
            self._server.close()
        self.drop()

    def drop(self) -> None:
        """Drop all connections: the VM that they led to is gone."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine that runs has one)
        self._tasks.add(task)
        try:
            guest_reader, guest_writer = await self._connect()
            try:
                await asyncio.gather(_carry(reader, guest_writer), _carry(guest_reader, writer))
            finally:
                guest_writer.close()
        except asyncio.CancelledError:
            pass  # Only drop() cancels.
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            await self._reachable.wait()
            with contextlib.suppress(OSError, TimeoutError):
                return await asyncio.wait_for(
                    asyncio.open_connection(self._guest, ADBD_PORT, limit=_CHUNK), _CONNECT_S
                )
            await asyncio.sleep(_RETRY_S)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class Console:
    """A terminal, linked at a path, whose other end is the guest's console.

    :param link: the link to the terminal that people open.
    :param base: QEMU's pipe: ``base.in`` and ``base.out``.
    """

    def __init__(self, link: Path, base: Path) -> None:
        self._to_guest = _open_fifo(base.with_name(base.name + ".in"))
        self._from_guest = _open_fifo(base.with_name(base.name + ".out"))
        # Our own hold on the terminal's side keeps it alive while nobody has it open.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._link = link
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._slave))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry bytes from now on."""
        loop.add_reader(self._master, _pump, self._master, self._to_guest)
        loop.add_reader(self._from_guest, _pump, self._from_guest, self._master)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the terminal away."""
        for fd in (self._master, self._from_guest):
            loop.remove_reader(fd)
        for fd in (self._master, self._slave, self._to_guest, self._from_guest):
            os.close(fd)
        self._link.unlink(missing_ok=True)


def _pump(source: int, target: int) -> None:
    """Move what is there; what the other side has no room for is lost, as on a serial line."""
    with contextlib.suppress(BlockingIOError, OSError):
        data = os.read(source, 4096)
        os.write(target, data)


def make_fifo(path: Path) -> None:
    """Make a named pipe."""
    os.mkfifo(path, 0o660)


def _open_fifo(path: Path) -> int:
    """Make a named pipe and open it so that neither side ever sees its end."""
    make_fifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def watch_fifo(loop: asyncio.AbstractEventLoop, path: Path, take: Callable[[bytes], None]) -> int:
    """Make a named pipe and hand on what is written to it; return its descriptor."""
    fd = _open_fifo(path)

    def ready() -> None:
        with contextlib.suppress(BlockingIOError):
            take(os.read(fd, 1 << 16))

    loop.add_reader(fd, ready)
    return fd
