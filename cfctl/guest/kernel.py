"""Takes the kernel proper out of a bzImage, so that the guest does not have to decompress it.

QEMU starts an uncompressed x86 kernel that has a PVH entry directly (xen ``docs/misc/pvh``; Debian's cloud kernel
has one). Under emulation that saves half a second of each boot, and costs the VGA console: only the first stage tells
the kernel that there is a screen.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib

from cfctl import elf

#: Offsets in the x86 boot protocol's header (kernel Documentation/x86/boot.rst).
_SETUP_SECTORS, _MAGIC, _VERSION, _PAYLOAD_OFFSET = 0x1F1, 0x202, 0x206, 0x248
_LZ4_LEGACY = b"\x02\x21\x4c\x18"


def uncompressed(image: bytes) -> bytes | None:
    """Return the ELF kernel inside a bzImage, or None if this is none or is compressed with something else."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS" or struct.unpack_from("<H", image, _VERSION)[0] < 0x208:
        return None
    sectors = image[_SETUP_SECTORS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_OFFSET)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    try:
        if payload.startswith(b"\x1f\x8b"):
            kernel = gzip.decompress(payload[: len(payload) - 4])
        elif payload.startswith(b"\xfd7zXZ"):
            kernel = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(_LZ4_LEGACY):
            kernel = lz4_legacy(payload[:-4])
        else:
            return None
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError, IndexError):
        return None
    return kernel if elf.is_elf(kernel) else None


def lz4_legacy(data: bytes) -> bytes:
    """Decompress the ``lz4 -l`` format that kernels use (lz4 doc/lz4_Frame_format.md, legacy frame).

    :param data: magic number, then blocks, each with its size in front.
    :raises ValueError: if it is damaged.
    """
    if not data.startswith(_LZ4_LEGACY):
        raise ValueError("not an lz4 legacy frame")
    out = []
    position = 4
    while position + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        if size == 0 or position + size > len(data):
            break
        out.append(_lz4_block(data[position : position + size]))
        position += size
    return b"".join(out)


def _lz4_block(data: bytes) -> bytes:
    """Decompress one block (lz4 doc/lz4_Block_format.md): literals, then a copy of what was written before."""
    out = bytearray()
    position, end = 0, len(data)
    while position < end:
        token = data[position]
        position += 1
        literals = token >> 4
        if literals == 15:
            while True:
                more = data[position]
                position += 1
                literals += more
                if more != 255:
                    break
        out += data[position : position + literals]
        position += literals
        if position >= end:
            break
        distance = data[position] | data[position + 1] << 8
        position += 2
        length = token & 15
        if length == 15:
            while True:
                more = data[position]
                position += 1
                length += more
                if more != 255:
                    break
        length += 4
        start = len(out) - distance
        if distance == 0 or start < 0:
            raise ValueError("an lz4 block points before its own beginning")
        if distance >= length:
            out += out[start : start + length]
        else:
            # The copy overlaps what it writes: a pattern that repeats.
            pattern = bytes(out[start:])
            out += (pattern * (length // distance + 1))[:length]
    return bytes(out)
