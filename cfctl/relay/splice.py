"""Bytes between a caller and gRPC: each side reads no faster than the other one writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

#: What every HTTP/2 connection begins with (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


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
    """The caller's side: nothing is handed on before it has said that it speaks HTTP/2.

    :param greeted: called once with its first bytes; reading is paused until :meth:`join`.
    :param lost: called when it is gone.
    """

    def __init__(
        self,
        buffer: int,
        count: Callable[[int], None],
        greeted: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(buffer, count)
        self._greeted = greeted
        self._lost = lost
        self._first = b""

    @property
    def stammers(self) -> bool:
        """Whether the caller has begun to say something that is not, or not yet, HTTP/2."""
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
        if self._first[: len(PREFACE)] != PREFACE[: len(self._first)]:
            self.transport.abort()
        elif len(self._first) >= len(PREFACE):
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
