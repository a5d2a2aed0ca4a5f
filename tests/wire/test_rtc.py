"""Packets that are lost on the way: waited for as long as a retransmission takes, and no longer."""

from __future__ import annotations

from typing import Any, cast

from aiortc.rtp import RtpPacket

from cfctl.wire.rtc import Prompt


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def packet(number: int, timestamp: int, *, last: bool = True) -> RtpPacket:
    made = RtpPacket(sequence_number=number % 65536, timestamp=timestamp, marker=int(last))
    cast("Any", made)._data = b"%d " % number
    return made


class Buffer:
    """The jitter buffer of a display, by a clock of one's own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._buffer = Prompt(512, is_video=True)
        cast("Any", self._buffer).clock = self.clock

    def add(self, *arguments: Any, **more: Any) -> tuple[bool, list[bytes]]:
        """Take a packet; return whether a key frame is to be asked for, and the frames that are whole."""
        lost, found = self._buffer.add(packet(*arguments, **more))
        frames = [] if found is None else [found.data, *(data for data, _ in cast("Any", found).rest)]
        return lost, frames


def test_a_packet_that_comes_late_is_waited_for() -> None:
    buffer = Buffer()
    assert buffer.add(65534, 1) == (False, [b"65534 "])
    assert buffer.add(65536, 3) == (False, [])
    buffer.clock.now += 0.2
    assert buffer.add(65535, 2) == (False, [b"65535 ", b"65536 "])
    # What was missed once is forgotten.
    assert buffer.add(65538, 5) == (False, [])
    buffer.clock.now += 0.2
    assert buffer.add(65539, 6) == (False, [])
    assert buffer.add(65537, 4) == (False, [b"65537 ", b"65538 ", b"65539 "])


def test_one_that_never_comes_is_given_up() -> None:
    buffer = Buffer()
    assert buffer.add(1, 1) == (False, [b"1 "])
    assert buffer.add(2, 2, last=False) == (False, [])
    # 3 is lost, in the middle of a frame of three.
    assert buffer.add(4, 2) == (False, [])
    buffer.clock.now += 1
    assert buffer.add(5, 3) == (True, [b"5 "])
    assert buffer.add(6, 4) == (False, [b"6 "])


def test_a_sender_that_begins_anew_is_followed() -> None:
    buffer = Buffer()
    assert buffer.add(30_000, 1) == (False, [b"30000 "])
    buffer.clock.now += 1
    assert buffer.add(100, 2) == (True, [b"100 "])
    buffer.clock.now += 1
    assert buffer.add(101, 3) == (False, [b"101 "])
