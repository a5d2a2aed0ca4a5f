"""What the screen shows, as a picture that everything can read.

QEMU writes PNG since 7.1 and where it was built with a library for it; PPM it has always written. So PPM it is, and
the other is made here (PNG specification, third edition).
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import zlib
from typing import TYPE_CHECKING

from cfctl.errors import CfctlError
from cfctl.guest import qmp

if TYPE_CHECKING:
    from pathlib import Path

_PPM = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")


async def screenshot(monitor: Path, scratch: Path, target: Path) -> None:
    """Save what the screen shows.

    :param monitor: QEMU's.
    :param scratch: a directory of the device's.
    :param target: a file with the ending ``.png``.
    :raises CfctlError: if QEMU cannot, the ending is another, or the file cannot be written; nothing is left then.
    """
    if target.suffix.lower() != ".png":
        raise CfctlError(f"a screenshot of the embedded guest is a .png, not {target.suffix or 'without an ending'}")
    raw = scratch / f"screen-{secrets.token_hex(4)}.ppm"
    part = target.with_name(f".{target.name}.part")
    try:
        await qmp.execute(monitor, "screendump", filename=os.fspath(raw))
        part.write_bytes(png(raw.read_bytes()))
        part.replace(target)
    except OSError as exc:
        raise CfctlError(f"{target} cannot be written", exc.strerror) from exc
    finally:
        raw.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def png(ppm: bytes) -> bytes:
    """Return a PPM picture (three bytes a pixel) as PNG.

    :raises CfctlError: if it is none.
    """
    head = _PPM.match(ppm)
    width, height = (int(head[1]), int(head[2])) if head else (0, 0)
    if head is None or not width or not height or len(ppm) - head.end() != 3 * width * height:
        raise CfctlError("QEMU's picture cannot be read", f"It begins with {ppm[:16]!r} and has {len(ppm)} bytes.")
    # Each row begins with the number of its filter: none.
    rows = b"".join(b"\0" + ppm[at : at + 3 * width] for at in range(head.end(), len(ppm), 3 * width))
    # Eight bits, colours without a palette (2), the only compression and filter method, not interlaced.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND")


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
