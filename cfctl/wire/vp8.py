"""What a frame of VP8 says of itself, without decoding it (RFC 6386 section 9.1)."""

from __future__ import annotations


def is_key(data: bytes) -> bool:
    """Tell whether a frame is a whole key frame's beginning: it can be understood by itself."""
    return len(data) >= 10 and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a"


def size(data: bytes) -> tuple[int, int]:
    """Return width and height of a key frame, in pixels."""
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
