"""What the supervisor carries between host and guest: the ADB port, and the console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tty
from typing import TYPE_CHECKING

from cfctl.wire import pump

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address
    from pathlib import Path

ADBD_PORT = 5555

#: Between two attempts to reach an adbd that has not come up yet.
_RETRY_S = 0.05
_CONNECT_S = 1.0


#: A guest that boots again forgets its connections without a word. It is asked after so many idle seconds, and says
#: then that it knows nothing of them.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 6}


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
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        :raises OSError: if the port is taken.
        """
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=100)
        self._socket.settimeout(0)
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def close(self) -> None:
        """Stop listening, and drop all connections."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self.drop()

    def drop(self) -> None:
        """Drop all connections: the VM that they led to is gone."""
        for task in self._tasks:
            task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone again, or there are too many
            client, _ = listener.accept()
            task = asyncio.get_running_loop().create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        # Only drop() cancels.
        with client, contextlib.suppress(asyncio.CancelledError), await self._connect() as guest:
            await pump.join(client, guest)

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            await self._reachable.wait()
            guest = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                await asyncio.wait_for(loop.sock_connect(guest, (self._guest, ADBD_PORT)), _CONNECT_S)
            except (OSError, TimeoutError):
                guest.close()
            except asyncio.CancelledError:
                guest.close()
                raise
            else:
                guest.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE.items():
                    guest.setsockopt(socket.IPPROTO_TCP, option, value)
                return guest
            await asyncio.sleep(_RETRY_S)


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
