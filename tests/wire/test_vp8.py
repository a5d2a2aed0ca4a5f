"""What a frame of VP8 says of itself."""

from __future__ import annotations

from cfctl.wire import vp8

KEY = b"\x10\x00\x00\x9d\x01\x2a\x40\x01\xf0\x00"


def test_a_key_frame_of_vp8_is_told_by_its_first_bytes() -> None:
    assert vp8.is_key(KEY)
    assert vp8.size(KEY) == (320, 240)
    assert not vp8.is_key(b"\x11" + KEY[1:])
    assert not vp8.is_key(KEY[:9])
    assert not vp8.is_key(b"\x10" + bytes(20))
