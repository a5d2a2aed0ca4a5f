"""A client of QEMU's VNC server (RFC 6143): the picture as it is now, and news of what has changed.

Only the plain encoding is asked for: between two processes of one host copying is cheaper than packing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_VERSION = b"RFB 003.008\n"
_NO_SECURITY = 1

#: 32 bits, little endian, blue first: what libswscale calls bgr0.
_PIXELS = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
BYTES = 4

_RAW = 0
_DESKTOP_SIZE = -223

#: From the server (RFC 6143, 7.6).
_UPDATE, _COLOURS, _BELL, _CUT_TEXT = range(4)

#: No screen that QEMU has is larger; a length that is more is no length.
_MOST_PIXELS = 16384

#: QEMU looks at its screen ever more rarely while nothing changes, up to once in 3 s, and every 30 ms again after
#: a message that is input (vnc.c, protocol_client_msg). F12, let go once more, is nothing to the guest.
_NUDGE = struct.pack(">BBxxI", 4, 0, 0xFFC9)

_SHAKE_S = 5.0


class NotVnc(ValueError):
    """The other end does not speak RFB, or wants a password."""


class Screen:
    """A connection to the server.

    :ivar width, height: of the picture, in pixels.
    :ivar pixels: the picture, row by row, four bytes each.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.width = self.height = 0
        self.pixels = bytearray()

    async def greet(self) -> None:
        """Agree on everything; afterwards the size is known.

        :raises NotVnc, EOFError, OSError: if that fails.
        """
        if not (await self._reader.readexactly(12)).startswith(b"RFB 003."):
            raise NotVnc("it does not speak RFB")
        self._writer.write(_VERSION)
        (count,) = await self._reader.readexactly(1)
        if _NO_SECURITY not in await self._reader.readexactly(count):
            raise NotVnc("it wants a password")
        self._writer.write(bytes((_NO_SECURITY,)))
        if await self._reader.readexactly(4) != bytes(4):
            raise NotVnc("it turned us away")
        # Others may look too.
        self._writer.write(b"\1")
        width, height = struct.unpack(">HH", await self._reader.readexactly(4))
        (length,) = struct.unpack(">16xI", await self._reader.readexactly(20))
        await self._reader.readexactly(min(length, 1 << 16))
        self._resize(width, height)
        self._writer.write(b"\0\0\0\0" + _PIXELS)
        self._writer.write(struct.pack(">BxH2i", 2, 2, _RAW, _DESKTOP_SIZE))
        self._ask(whole=True)

    def nudge(self) -> None:
        """Have the server look at its screen now."""
        self._writer.write(_NUDGE)

    async def changed(self) -> None:
        """Wait for the next change, and take it into the picture.

        :raises NotVnc, EOFError, OSError: if the server goes away or sends what was not asked for.
        """
        while True:
            (kind,) = await self._reader.readexactly(1)
            if kind == _UPDATE:
                if await self._update():
                    return
            elif kind == _COLOURS:
                (count,) = struct.unpack(">3xH", await self._reader.readexactly(5))
                await self._reader.readexactly(6 * count)
            elif kind == _CUT_TEXT:
                (length,) = struct.unpack(">3xI", await self._reader.readexactly(7))
                await self._reader.readexactly(min(length, 1 << 20))
            elif kind != _BELL:
                raise NotVnc(f"a message of kind {kind}")

    async def _update(self) -> bool:
        """Take an update; tell whether there was a picture in it."""
        (count,) = struct.unpack(">xH", await self._reader.readexactly(3))
        painted = whole = False
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", await self._reader.readexactly(12))
            if encoding == _DESKTOP_SIZE:
                self._resize(width, height)
                whole = True
            elif encoding == _RAW:
                await self._paint(x, y, width, height)
                painted = True
            else:
                raise NotVnc(f"a rectangle of encoding {encoding}")
        self._ask(whole=whole)
        return painted

    async def _paint(self, x: int, y: int, width: int, height: int) -> None:
        if x + width > self.width or y + height > self.height:
            raise NotVnc(f"a rectangle of {width}x{height} at {x},{y} on {self.width}x{self.height}")
        data = memoryview(await self._reader.readexactly(width * height * BYTES))
        row, stride = width * BYTES, self.width * BYTES
        place = y * stride + x * BYTES
        if width == self.width:
            self.pixels[place : place + len(data)] = data
            return
        for start in range(0, len(data), row):
            self.pixels[place : place + row] = data[start : start + row]
            place += stride

    def _resize(self, width: int, height: int) -> None:
        if not (0 < width <= _MOST_PIXELS and 0 < height <= _MOST_PIXELS):
            raise NotVnc(f"a screen of {width}x{height}")
        self.width, self.height = width, height
        self.pixels = bytearray(width * height * BYTES)

    def _ask(self, *, whole: bool) -> None:
        self._writer.write(struct.pack(">BB4H", 3, not whole, 0, 0, self.width, self.height))


@contextlib.asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Screen]:
    """Be connected for the block.

    :raises NotVnc, EOFError, OSError: if there is no server, or it goes away.
    """
    async with asyncio.timeout(_SHAKE_S):
        reader, writer = await asyncio.open_unix_connection(os.fspath(socket), limit=1 << 22)
    try:
        screen = Screen(reader, writer)
        async with asyncio.timeout(_SHAKE_S):
            await screen.greet()
        yield screen
    finally:
        writer.close()


async def size(socket: Path) -> tuple[int, int]:
    """Return how large the picture is.

    :raises NotVnc, EOFError, OSError: as :func:`connected`.
    """
    async with connected(socket) as screen:
        return screen.width, screen.height
