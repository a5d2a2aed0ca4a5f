"""What is known of one display or sound, from whichever connection it comes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cfctl.relay.media.frames import AUDIO_CLOCK, VIDEO_CLOCK, Frame

if TYPE_CHECKING:
    import asyncio


class Stream:
    """A display or a sound: its clock goes on when the device is connected to anew."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.frames = 0
        self.bytes = 0
        self._offset = 0
        self._last = -1
        self._last_at = time.monotonic()
        self._fresh = True
        #: Key frames that viewers wanted, and those that the device was asked for.
        self.wanted = 0
        self.asked = 0
        self.asked_at = 0.0
        self.asking: asyncio.TimerHandle | None = None
        self.asking_slowly = False
        self.last_key: Frame | None = None

    def restarted(self) -> None:
        """Note that the device's clock begins again."""
        self._fresh = True

    def placed(self, frame: Frame) -> Frame:
        """Return a frame at its time by the clock that viewers see."""
        if self._fresh:
            rate = VIDEO_CLOCK if self.kind == "video" else AUDIO_CLOCK
            passed = int((time.monotonic() - self._last_at) * rate) if self._last >= 0 else 0
            self._offset = max(self._last + 1, self._last + passed) - frame.timestamp
            self._fresh = False
        moved = Frame(frame.data, max(0, frame.timestamp + self._offset), frame.key, frame.at)
        self._last, self._last_at = moved.timestamp, frame.at
        self.frames += 1
        self.bytes += len(frame.data)
        if frame.key and self.kind == "video":
            self.last_key = moved
        return moved
