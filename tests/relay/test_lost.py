"""What a viewer loses: sent once more, and paced by what he can take."""

from __future__ import annotations

from typing import Any, cast

from aiortc import rtcrtpsender

from cfctl.relay.media import rtc
from cfctl.relay.media.frames import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_frame_can_be_sent_once_more_as_a_whole() -> None:
    rtc.install()
    # 1 MiB, the most that waits for a viewer, in packets of 1300 bytes.
    assert cast("Any", rtcrtpsender).RTP_HISTORY_SIZE * 1300 > 1 << 20


def test_who_was_sent_little_is_not_kept_at_little() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.measured(10_000)
    # A key frame of a screen that stands still: those after it may wait half a second.
    pace.sent(30_000)
    assert pace.wait() < 0.5
    # Still, nobody is sent more than he can take.
    pace.sent(300_000)
    assert pace.wait() > 5


def test_who_measures_nothing_at_all_is_sent_little() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.measured(0)
    pace.sent(100_000)
    assert 0 < pace.wait() < 3600
