"""What a VM's screen shows, as a picture that everything can read.

QEMU writes PNG since 7.1 and where it was built with a library for it; PPM it has always written. So PPM it is, and
the other is made here (PNG specification, third edition).
"""

from __future__ import annotations

import re
import struct
import zlib

from cfctl.errors import CfctlError

_PPM = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")


def size(ppm: bytes) -> tuple[int, int]:
    """Return width and height of a PPM picture (three bytes a pixel).

    :raises CfctlError: if it is none.
    """
    return _head(ppm)[:2]


def _head(ppm: bytes) -> tuple[int, int, int]:
    """Return width, height, and where the pixels begin."""
    head = _PPM.match(ppm)
    width, height = (int(head[1]), int(head[2])) if head else (0, 0)
    if head is None or not width or not height or len(ppm) - head.end() != 3 * width * height:
        raise CfctlError("QEMU's picture cannot be read", f"It begins with {ppm[:16]!r} and has {len(ppm)} bytes.")
    return width, height, head.end()


def png(ppm: bytes) -> bytes:
    """Return a PPM picture (three bytes a pixel) as PNG.

    :raises CfctlError: if it is none.
    """
    width, height, start = _head(ppm)
    # Each row begins with the number of its filter: none.
    rows = b"".join(b"\0" + ppm[at : at + 3 * width] for at in range(start, len(ppm), 3 * width))
    # Eight bits, colours without a palette (2), the only compression and filter method, not interlaced.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND")


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
