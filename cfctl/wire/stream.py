"""Carries bytes between a stream socket and a stream of messages, as both ends of a tunnel do.

Nothing is held but one piece in each direction: the socket is not read while a piece of it has not been taken by the
other end of the stream, and no message is asked for while the socket has not taken the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, Protocol

from cfctl.wire import pump

if TYPE_CHECKING:
    from collections.abc import Coroutine

#: The largest piece (proto/cfctl/v1/tunnel.proto). Smaller ones cost more of gRPC's work per byte.
PIECE = 1 << 18

#: Seconds that a piece may wait for a reader at the other end. A suspended program may go on again after minutes.
STALL_S = 600.0

#: Times that are looked at in each of them.
_LOOKS = 4


class Stalled(TimeoutError):
    """One end did not read for too long, or said nothing after the other had finished."""


class BadMessage(OSError):
    """The other end does not keep to the protocol."""


class Messages(Protocol):
    """The stream's side."""

    async def read(self) -> bytes | None:
        """Return what comes next; None when nothing more will."""

    async def write(self, data: bytes) -> None:
        """Send a piece; returns when there is room for another."""

    async def finish(self) -> None:
        """Say that nothing more will be sent."""


class _Watch:
    """Knows since when something is waited for, at no cost per message."""

    def __init__(self) -> None:
        self.forth = 0
        self.back = 0
        self.finished = 0
        self.writing_since: dict[str, float] = {}
        self.last = time.monotonic()

    def count(self, *, forth: int = 0, back: int = 0) -> None:
        self.forth += forth
        self.back += back

    async def look(self, stall: float, linger: float) -> None:
        """Return only by raising.

        :raises Stalled: when somebody is gone.
        """
        seen, since = -1, time.monotonic()
        while True:
            await asyncio.sleep(min(stall, linger) / _LOOKS)
            now = time.monotonic()
            for who, started in self.writing_since.items():
                if now - started > stall:
                    raise Stalled(f"{who} did not read for {stall:g} s")
            if not self.finished or self.forth + self.back != seen:
                seen, since = self.forth + self.back, now
            elif now - since > linger:
                raise Stalled(f"one end had finished, and the other was silent for {linger:g} s")


async def carry(
    end: socket.socket,
    messages: Messages,
    *,
    names: tuple[str, str] = ("the one end", "the other end"),
    linger: float = pump.LINGER_S,
    stall: float = STALL_S,
) -> pump.Carried:
    """Carry bytes both ways until both ends have finished, one breaks, or the caller cancels.

    :param end: a stream socket; it is made non-blocking, and is still the caller's to close.
    :param messages: the stream.
    :param names: of whoever is behind the socket and behind the stream, for people.
    :param linger: seconds that one end may be silent after the other has finished.
    :param stall: seconds that a piece may wait for its reader.
    :return: with ``broken`` as what ended it early, where an end broke: bytes from the socket count as ``forth``.
    :raises Exception: whatever ``messages`` raises.
    """
    end.settimeout(0)
    with contextlib.suppress(OSError):  # not TCP
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    watch = _Watch()
    work = [_from_socket(end, messages, watch, names[1]), _to_socket(end, messages, watch, names[0])]
    broken: OSError | None = None
    try:
        await _first_error(work, watch.look(stall, linger))
    except OSError as exc:
        broken = exc
    return pump.Carried(watch.forth, watch.back, broken)


async def _first_error(work: list[Coroutine[None, None, None]], watcher: Coroutine[None, None, None]) -> None:
    """Wait until all work is done, or one piece of it or the watcher fails; nothing of it goes on after that."""
    tasks = {asyncio.ensure_future(one) for one in work}
    watching = asyncio.ensure_future(watcher)
    try:
        left = set(tasks)
        while left:
            done, _ = await asyncio.wait({*left, watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            left -= done
    finally:
        for task in {*tasks, watching}:
            task.cancel()
        await asyncio.gather(*tasks, watching, return_exceptions=True)


async def _from_socket(end: socket.socket, messages: Messages, watch: _Watch, reader: str) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(end, PIECE):
        watch.writing_since[reader] = time.monotonic()
        await messages.write(data)
        del watch.writing_since[reader]
        watch.count(forth=len(data))
    await messages.finish()
    watch.finished += 1


async def _to_socket(end: socket.socket, messages: Messages, watch: _Watch, reader: str) -> None:
    loop = asyncio.get_running_loop()
    while (data := await messages.read()) is not None:
        if len(data) > PIECE:
            raise BadMessage(f"a message had {len(data)} bytes; {PIECE} are the most")
        watch.writing_since[reader] = time.monotonic()
        await loop.sock_sendall(end, data)
        del watch.writing_since[reader]
        watch.count(back=len(data))
    with contextlib.suppress(OSError):  # it has closed altogether
        end.shutdown(socket.SHUT_WR)
    watch.finished += 1
