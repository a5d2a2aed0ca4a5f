"""What the kernel says about a tap's address; who has one is tested with real taps."""

from __future__ import annotations

import fcntl
import struct

import pytest

from cfctl.errors import HostLacks
from cfctl.hostres import addresses
from cfctl.instance import Instance


def test_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {0x8915: bytes([10, 0, 97, 5]), 0x891B: bytes([255, 255, 255, 252])}  # linux/sockios.h

    def ioctl(_: object, request: int, argument: bytes) -> bytes:
        assert argument[:16].rstrip(b"\0") == b"cvd-mtap-02"
        return struct.pack("=16sHH4s16x", b"cvd-mtap-02", 2, 0, answers[request])

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    found = addresses.mobile(Instance(2))
    assert (found.tap, str(found.gateway), str(found.guest)) == ("cvd-mtap-02", "10.0.97.5/30", "10.0.97.6")


def test_no_tap() -> None:
    # Of a number that nobody has set up on the machine that runs this.
    with pytest.raises(HostLacks) as caught:
        addresses.mobile(Instance(127))
    assert str(caught.value) == (
        "cvd-mtap-127 has no address: No such device\n"
        "The guest of cvd-127 takes its mobile address from there.\n"
        "Mend it: sudo cfctl host setup --instances 127"
    )
