"""For which processor a guest's images are: the kernel in their ``boot.img`` tells.

The layout of ``boot.img`` is Android's (system/tools/mkbootimg, ``boot_img_hdr``): versions 0 to 2 name the page size
at byte 36, from 3 on a page has 4096 bytes; the kernel follows the header's page. Kernels: an x86 one has ``HdrS`` at
byte 0x202, an arm64 one ``ARM\\x64`` at 0x38 (Linux, Documentation/arch/x86/boot.rst and arm64/booting.rst).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"ANDROID!"
_PAGE = 4096
#: Enough of a kernel to see its header.
_HEAD = 4096
_GZIP, _LZ4_LEGACY = b"\x1f\x8b", b"\x02\x21\x4c\x18"


def processor(images: Path) -> str | None:
    """Return the processor, as ``uname -m`` calls it, that the images in a directory are for; None if unknown.

    Never raises for what is in the files: images that cannot be understood are the launcher's to refuse.
    """
    try:
        with (images / "boot.img").open("rb") as file:
            header = file.read(64)
            if not header.startswith(_MAGIC) or len(header) < 64:
                return None
            (version,) = struct.unpack_from("<I", header, 40)
            (page,) = struct.unpack_from("<I", header, 36)
            file.seek(_PAGE if version >= 3 else page)
            return _kernel(file.read(4 * _HEAD))
    except OSError:
        return None


def _kernel(head: bytes) -> str | None:
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
        except zlib.error:
            return None
    elif head.startswith(_LZ4_LEGACY):
        head = _lz4(head[8:], _HEAD)
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "aarch64"
    if head[0x38:0x3C] == b"RSC\x05":
        return "riscv64"
    return None


def _lz4(block: bytes, size: int) -> bytes:
    """Return the first bytes of an LZ4 block, as far as they can be read (lz4's doc/lz4_Block_format.md)."""
    out = bytearray()
    position = 0
    try:
        while len(out) < size:
            token = block[position]
            position += 1
            length, position = _length(block, position, token >> 4)
            out += block[position : position + length]
            position += length
            offset = block[position] | block[position + 1] << 8
            length, position = _length(block, position + 2, token & 15)
            if not 0 < offset <= len(out):
                break
            for _ in range(length + 4):
                out.append(out[-offset])
                if len(out) >= size:
                    break
    except IndexError:
        pass  # the block goes on where we have not read
    return bytes(out)


def _length(block: bytes, position: int, length: int) -> tuple[int, int]:
    if length == 15:
        more = 255
        while more == 255:
            more = block[position]
            length, position = length + more, position + 1
    return length, position
