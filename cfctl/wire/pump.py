"""The pump: carries bytes between two places until both have said all that they have to say.

Between two stream sockets (:func:`join`) one piece is held in each direction: it is read and sent at once, and a
reader that is slow keeps its source from being read. One large read and one large write are faster than splice(2),
which copies nothing (bench/relay.py). Threads that can only block (an SSH channel has no descriptor to be waited for)
have :func:`join_blocking`.

Half a connection is a connection: an end that has finished is told to the other, which may go on. But whoever neither
finishes nor sends anything then is gone, and is not waited for for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that one end may be silent after the other has finished.
LINGER_S = 60.0

#: What is read at once as long as little comes; a message of adb's protocol is mostly smaller.
_SMALL = 1 << 14

#: What is read at once from then on, and so what one direction holds at most (bench/relay.py: a quarter of it is
#: slower by a third).
_LARGE = 1 << 20

#: What threads that block read at once.
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of it.

    :param forth: bytes from the left to the right.
    :param back: bytes from the right to the left.
    :param broken: what broke the connection; None if both ends have finished.
    """

    forth: int
    back: int
    broken: OSError | None = None


class _Flow:
    """One direction, driven by an event loop; never blocks.

    :param ended: called once, when the source has finished and all of it was sent, or with what broke it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        target: socket.socket,
        ended: Callable[[OSError | None], None],
    ) -> None:
        self.carried = 0
        self._loop = loop
        self._source = source
        self._target = target
        self._ended = ended
        self._buffer = memoryview(bytearray(_SMALL))
        self._rest = self._buffer[:0]
        self._over = False

    def begin(self) -> None:
        """Carry from now on."""
        self._loop.add_reader(self._source, self._read)

    def end(self) -> None:
        """Carry nothing more; the sockets stay as they are."""
        if self._over:
            return
        self._over = True
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)

    def _read(self) -> None:
        try:
            got = self._source.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as exc:
            self._finish(exc)
            return
        if not got:
            with contextlib.suppress(OSError):  # the other end has closed altogether
                self._target.shutdown(socket.SHUT_WR)
            self._finish(None)
            return
        self.carried += got
        self._rest = self._buffer[:got]
        if got == len(self._buffer) < _LARGE:
            # Most connections never carry much.
            self._buffer = memoryview(bytearray(_LARGE))
        if not self._send():
            # The target's pace from here on: what has not left keeps more from coming.
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._resume)

    def _send(self) -> bool:
        """Send what can be sent now; return whether nothing more is to be waited for."""
        try:
            self._rest = self._rest[self._target.send(self._rest) :]
        except BlockingIOError:
            return False
        except OSError as exc:
            self._finish(exc)
            return True
        return not self._rest

    def _resume(self) -> None:
        if self._send() and not self._over:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._read)

    def _finish(self, broken: OSError | None) -> None:
        self.end()
        self._ended(broken)


async def join(left: socket.socket, right: socket.socket, *, linger: float = LINGER_S) -> Carried:
    """Carry bytes both ways until both ends have finished, one breaks, or the caller cancels.

    :param left: a stream socket; it is made non-blocking, and is still the caller's to close.
    :param right: likewise.
    :param linger: seconds that one end may be silent after the other has finished.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[OSError | None] = loop.create_future()
    going = 2  # there and back

    def ended(broken: OSError | None) -> None:
        nonlocal going
        going -= 1
        if (broken or not going) and not done.done():
            done.set_result(broken)

    for end in (left, right):
        end.settimeout(0)
        with contextlib.suppress(OSError):  # not TCP
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    forth, back = _Flow(loop, left, right, ended), _Flow(loop, right, left, ended)
    watch: asyncio.TimerHandle | None = None
    seen = -1

    def look() -> None:
        """End it if one end has finished, and the other was silent since the last look."""
        nonlocal seen, watch
        now = forth.carried + back.carried if going == 1 else -1
        if now == seen != -1 and not done.done():
            done.set_result(_silent(linger))
        seen = now
        watch = loop.call_later(linger, look)

    try:
        forth.begin()
        back.begin()
        look()
        broken = await done
    finally:
        if watch is not None:
            watch.cancel()
        forth.end()
        back.end()
    return Carried(forth.carried, back.carried, broken)


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"one end had finished, and the other was silent for {seconds:g} s")


# -- threads that can only block ---------------------------------------------------------------------------


class End(Protocol):
    """What a blocking socket is, and a channel of an SSH connection."""

    def recv(self, nbytes: int, /) -> bytes:
        """Return what comes; nothing at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send it, however long that takes."""

    def shutdown(self, how: int, /) -> None:
        """Send (SHUT_WR) nothing more, or do nothing more at all (SHUT_RDWR)."""


def join_blocking(left: End, right: End, *, linger: float = LINGER_S) -> Carried:
    """Do the same as :func:`join` in two threads: this one and one more."""
    count = {True: 0, False: 0}
    results: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def carry(source: End, target: End, *, forth: bool) -> None:
        broken: OSError | None = None
        try:
            while data := source.recv(_CHUNK):
                target.sendall(data)
                count[forth] += len(data)
            with contextlib.suppress(OSError):  # the other end has closed altogether
                target.shutdown(socket.SHUT_WR)
        except EOFError as exc:  # an SSH connection that has ended
            broken = ConnectionResetError(str(exc))
        except OSError as exc:
            broken = exc
        results.put(broken)

    threads = [
        threading.Thread(target=carry, args=(source, target), kwargs={"forth": forth}, daemon=True)
        for source, target, forth in ((left, right, True), (right, left, False))
    ]
    for thread in threads:
        thread.start()
    broken = results.get()
    seen = -1
    while broken is None:
        try:
            broken = results.get(timeout=linger)
            break
        except queue.Empty:
            if sum(count.values()) == seen:
                broken = _silent(linger)
            seen = sum(count.values())
    for end in (left, right):
        with contextlib.suppress(OSError, EOFError):
            end.shutdown(socket.SHUT_RDWR)  # wakes whoever still reads
    for thread in threads:
        thread.join()
    return Carried(count[True], count[False], broken)
