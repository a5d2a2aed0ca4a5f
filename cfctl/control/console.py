"""The guest's serial console: a terminal that the launcher links at ``<instance directory>/console``.

Upstream's forwarder makes the terminal anew when whoever had it open goes away, and a guest that boots again may do
so too: it is opened again by its link (vm_control.md section 4.4). A byte goes to one reader only, so one client has
it at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
import tty
from typing import TYPE_CHECKING, Protocol

from cfctl.control import waiting
from cfctl.control.faults import VmBusy, VmUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Ctrl-], as telnet and virsh have it.
DETACH = b"\x1d"

#: How long a terminal that went away may take to come back: a guest boots again meanwhile.
_BACK_S = 60.0
_RETRY_S = 0.05
_CHUNK = 1 << 16


class Console:
    """A console that is held open; as an asynchronous context manager it is closed at the end.

    :param link: the launcher's link to the terminal.
    :param name: of the device, for people.
    :param patience: seconds that the terminal may be away.
    """

    def __init__(self, link: Path, name: str, *, patience: float = _BACK_S) -> None:
        self._link = link
        self._name = name
        self._patience = patience
        self._size: tuple[int, int] | None = None
        self._fd = -1

    async def __aenter__(self) -> Console:
        """Open it.

        :raises VmUnreachable: if there is none.
        :raises VmBusy: if somebody else has it.
        """
        try:
            self._open()
        except OSError as exc:
            raise self._missing(exc) from exc
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let it go."""
        self._close()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal how large the client's window is. No serial line carries that to the guest."""
        self._size = rows, columns
        self._tell_size()

    async def read(self) -> bytes:
        """Return what the guest has written; waits for it, and for a terminal that went away to come back.

        :raises VmUnreachable: if it does not come back.
        """
        while True:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await waiting.ready(self._fd, to_write=False)
                continue
            except OSError:
                data = b""
            if data:
                return data
            await self._reopen()

    async def write(self, data: bytes) -> None:
        """Send what was typed to the guest; it is lost while the terminal is away."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await waiting.ready(self._fd, to_write=True)
            except OSError:
                return

    def _open(self) -> None:
        fd = os.open(self._link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise VmBusy(
                    f"somebody else has the console of {self._name}",
                    "What the guest writes goes to one reader only.",
                    f"See what it has written: cfctl logs {self._name} --which console -f",
                ) from None
            # Neither end is to change what is sent: the guest's own terminal echoes.
            tty.setraw(fd, termios.TCSANOW)
        except termios.error as exc:
            os.close(fd)
            raise OSError(errno.ENOTTY, "it is no terminal") from exc
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._tell_size()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _tell_size(self) -> None:
        if self._size and self._fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))

    async def _reopen(self) -> None:
        loop = asyncio.get_running_loop()
        self._close()
        deadline = loop.time() + self._patience
        while True:
            try:
                self._open()
            except OSError as exc:
                if loop.time() >= deadline:
                    raise self._missing(exc) from exc
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _missing(self, exc: OSError) -> VmUnreachable:
        return VmUnreachable(
            f"{self._name} has no console",
            f"{self._link}: {exc.strerror}",
            "A device of upstream's has one if it was launched with it: cfctl launch NAME -- --console=true",
        )


class Held(Protocol):
    """A console that is open, wherever the guest is."""

    async def read(self) -> bytes:
        """Return what the guest has written; waits for it."""

    async def write(self, data: bytes) -> None:
        """Send what was typed."""

    def resize(self, rows: int, columns: int) -> None:
        """Hear how large the client's window is."""


async def interact(console: Held, *, source: int, sink: int) -> None:
    """Join a terminal of this process to a console, until Ctrl-] is pressed or the terminal ends.

    :param source: the descriptor that is typed at; a terminal.
    :param sink: the descriptor that shows what the guest writes.
    :raises VmUnreachable: if the console goes away and does not come back.
    """
    loop = asyncio.get_running_loop()
    with raw(source), _watched_size(console, source, loop):
        shown = asyncio.ensure_future(_show(console, sink))
        typed = asyncio.ensure_future(_type(console, source))
        try:
            done, _ = await asyncio.wait({shown, typed}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (shown, typed):
                task.cancel()
            await asyncio.gather(shown, typed, return_exceptions=True)


async def _show(console: Held, sink: int) -> None:
    while True:
        view = memoryview(await console.read())
        while view:
            view = view[os.write(sink, view) :]


async def _type(console: Held, source: int) -> None:
    while True:
        await waiting.ready(source, to_write=False)
        try:
            data = os.read(source, _CHUNK)
        except OSError:
            return
        before, detach, _ = data.partition(DETACH)
        await console.write(before)
        if detach or not data:
            return


@contextlib.contextmanager
def raw(terminal: int) -> Iterator[None]:
    """Have every key handed on by a terminal for the block, Ctrl-C too."""
    before = termios.tcgetattr(terminal)
    try:
        # What was typed already is not lost.
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        # It may have been closed meanwhile.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _watched_size(console: Held, terminal: int, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    def tell() -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(terminal)
            console.resize(size.lines, size.columns)

    tell()
    loop.add_signal_handler(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
