"""Taking the kernel proper out of a bzImage."""

from __future__ import annotations

import gzip
import lzma
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.guest import kernel

ELF = b"\x7fELF\x02\x01" + bytes(range(256)) * 20


def bzimage(payload: bytes) -> bytes:
    """Return an image as the x86 boot protocol has it."""
    header = bytearray(5 * 512)
    header[0x1F1] = 4
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x20F)
    struct.pack_into("<II", header, 0x248, 64, len(payload))
    return bytes(header) + bytes(64) + payload + b"behind"


def lz4_literals(data: bytes) -> bytes:
    """Return one lz4 block that copies nothing."""
    length = len(data)
    token = bytes([min(length, 15) << 4])
    extra = b""
    if length >= 15:
        rest = length - 15
        extra = b"\xff" * (rest // 255) + bytes([rest % 255])
    return token + extra + data


def legacy(*blocks: bytes) -> bytes:
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def test_gzip_xz_and_lz4() -> None:
    size = struct.pack("<I", len(ELF))
    assert kernel.uncompressed(bzimage(gzip.compress(ELF) + size)) == ELF
    assert kernel.uncompressed(bzimage(lzma.compress(ELF) + size)) == ELF
    assert kernel.uncompressed(bzimage(legacy(lz4_literals(ELF)) + size)) == ELF


@pytest.mark.parametrize(
    "image",
    [b"", b"MZ" + bytes(4096), bzimage(b"\x28\xb5\x2f\xfd" + bytes(99)), bzimage(gzip.compress(ELF)[:40] + bytes(4))],
    ids=["empty", "no bzImage", "zstd", "cut off"],
)
def test_others_are_left_alone(image: bytes) -> None:
    assert kernel.uncompressed(image) is None


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_lz4_literals(one: bytes, two: bytes) -> None:
    assert kernel.lz4_legacy(legacy(lz4_literals(one), lz4_literals(two))) == one + two


def test_lz4_copies() -> None:
    # "abc", then 9 bytes from 3 back (an overlap), then a literal.
    block = bytes([0x35]) + b"abc" + struct.pack("<H", 3) + bytes([0x10]) + b"!"
    assert kernel.lz4_legacy(legacy(block)) == b"abcabcabcabc!"


def test_lz4_damage() -> None:
    with pytest.raises(ValueError, match="before its own beginning"):
        kernel.lz4_legacy(legacy(bytes([0x10]) + b"a" + struct.pack("<H", 9) + b"\0"))
