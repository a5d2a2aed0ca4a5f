"""Bytes between a caller and what answers him: each side reads no faster than the other one writes."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

#: What every HTTP/2 connection begins with (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: The head of a request of HTTP/1.1, with room for cookies of other programs of the host.
_LONGEST_HEAD = 32 << 10

_REQUEST = re.compile(rb"[A-Z]{1,10}( .*)?", re.DOTALL)


def begins_http2(first: bytes) -> bool | None:
    """Tell whether somebody speaks HTTP/2; None if that cannot be said yet."""
    if first[: len(PREFACE)] != PREFACE[: len(first)]:
        return False
    return True if len(first) >= len(PREFACE) else None


def begins_http1(first: bytes) -> bool | None:
    """Tell whether the head of a request of HTTP/1.1 is there; None if it may yet come."""
    if not _REQUEST.fullmatch(first) or len(first) > _LONGEST_HEAD:
        return False
    return True if b"\r\n\r\n" in first else None


class Side(asyncio.Protocol):
    """One side of a spliced connection.

    :param buffer: bytes that may wait to be written here before the other side stops reading.
    :param count: called with the length of what has come from here.
    """

    def __init__(self, buffer: int, count: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._count = count
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self._buffer)

    def data_received(self, data: bytes) -> None:
        """Hand it on."""
        self._count(len(data))
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Have the other side wait: nobody reads here."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Have the other side go on."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too, with what is still to be written there."""
        del exc
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Caller(Side):
    """The caller's side: nothing is handed on before it has begun as whoever answers wants it.

    :param begins: tells of the first bytes whether they are a beginning; None while that cannot be said.
    :param greeted: called once with its first bytes; reading is paused until :meth:`join`.
    :param lost: called when it is gone.
    """

    def __init__(
        self,
        buffer: int,
        count: Callable[[int], None],
        begins: Callable[[bytes], bool | None],
        greeted: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(buffer, count)
        self._begins = begins
        self._greeted = greeted
        self._lost = lost
        self._first = b""

    @property
    def stammers(self) -> bool:
        """Whether the caller has begun to say something that is not, or not yet, what is spoken here."""
        return bool(self._first)

    def data_received(self, data: bytes) -> None:
        """Compare the first bytes, hand on the others."""
        if self.other is not None:
            super().data_received(data)
            return
        self._count(len(data))
        self._first += data
        if self.transport is None:
            return
        begins = self._begins(self._first)
        if begins is False:
            self.transport.abort()
        elif begins:
            self.transport.pause_reading()
            first, self._first = self._first, b""
            self._greeted(first)

    def join(self, other: Side) -> None:
        """Go on with the other side connected."""
        if self.transport is None:
            if other.transport is not None:
                other.transport.abort()
            return
        self.other, other.other = other, self
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._lost()
