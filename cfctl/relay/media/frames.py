"""Encoded frames, and the buffer of one viewer: who cannot keep up gets fewer of them, and never older ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: Frames of VP8 per second of their clock (RFC 7741 section 4.1).
VIDEO_CLOCK = 90_000

#: Opus in RTP counts so, whatever it was sampled at (RFC 7587 section 4.1).
AUDIO_CLOCK = 48_000

#: How long a frame may wait before whatever waits is worth nothing.
_OLDEST_S = 0.5

#: Of one viewer: half a second of what a stock streamer sends at most (15 Mbit/s), and twice its 50 frames/s.
_MOST_BYTES = 1 << 20
_MOST_FRAMES = 50


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded frame of a track.

    :param timestamp: by the clock of the codec, from the device's connection on.
    :param key: whether it can be shown without the ones before; sound always can.
    :param at: when it came (time.monotonic).
    """

    data: bytes
    timestamp: int
    key: bool
    at: float = field(default_factory=time.monotonic, compare=False)


class Buffer:
    """What waits for one viewer.

    It begins with a key frame. When it is full, or what is in it too old, all of it goes, and the next key frame is
    waited for: a picture that is whole and late by half a second at most, at whatever rate the viewer manages.

    :param sound: whether these are frames of sound: none of them stands for those before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, sound: bool = False) -> None:
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._clock = clock
        self._sound = sound
        self._needs_key = True
        #: Frames that were left out because the viewer was slow.
        self.dropped = 0

    def __len__(self) -> int:
        """Return how many frames wait."""
        return len(self._frames)

    @property
    def needs_key(self) -> bool:
        """Whether nothing can be shown before the next key frame."""
        return self._needs_key

    def push(self, frame: Frame) -> None:
        """Let a frame wait, if it can be shown."""
        if frame.key and not self._sound and len(self._frames) > 1:
            # Whoever is behind goes on from here.
            self._clear()
        if self._frames and (
            len(self._frames) >= _MOST_FRAMES
            or self._bytes + len(frame.data) > _MOST_BYTES
            or frame.at - self._frames[0].at > _OLDEST_S
        ):
            self._clear()
            self._needs_key = True
        if self._needs_key and not frame.key:
            self.dropped += 1
            return
        self._needs_key = False
        self._frames.append(frame)
        self._bytes += len(frame.data)

    def pop(self) -> Frame | None:
        """Return the next frame; None if there is none that is still worth sending."""
        if not self._frames:
            return None
        if self._clock() - self._frames[0].at > 2 * _OLDEST_S:
            self._clear()
            self._needs_key = True
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame.data)
        return frame

    def break_off(self) -> None:
        """Show nothing more before the next key frame: something between was lost."""
        self._clear()
        self._needs_key = True

    def _clear(self) -> None:
        self.dropped += len(self._frames)
        self._frames.clear()
        self._bytes = 0


class Pace:
    """How fast frames may go to one viewer: as fast as he says that they arrive.

    :param clock: seconds; another one in tests.
    """

    #: Above what the viewer measured: he measures no more than he gets.
    _HEADROOM = 1.5
    #: Less is no measurement: nothing would ever arrive.
    _LEAST = 10_000.0
    #: Nobody is paced below this. Who is sent little measures little, be his line ever so good: after a hiccup on a
    #: still screen every key frame would take longer than frames may wait, and nothing else would ever go. Stock
    #: streamers send 500 kbit/s at least.
    _LEAST_PACED = 200_000.0
    #: What one key frame may take at once.
    _BURST_S = 0.5
    #: Without any word of his a viewer is thought to be frozen; RTCP comes about every second (RFC 3550 section 6.2).
    _SILENT_S = 4.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._owed = 0.0
        self._paid_at = clock()
        self._heard_at = clock()

    @property
    def silent(self) -> bool:
        """Whether nothing was heard of the viewer for long."""
        return self._clock() - self._heard_at > self._SILENT_S

    @property
    def rate(self) -> float | None:
        """Bits per second that the viewer measured; None as long as he has not said."""
        return self._rate

    def heard(self) -> None:
        """Note that the viewer lives."""
        self._heard_at = self._clock()

    def measured(self, bits_per_s: float) -> None:
        """Note what the viewer measured (REMB)."""
        self.heard()
        self._pay()
        self._rate = max(bits_per_s, self._LEAST)

    def sent(self, size: int) -> None:
        """Note what was sent, in bytes."""
        self._pay()
        self._owed += 8 * size

    def wait(self) -> float:
        """Return the seconds until the next frame may go."""
        if self._rate is None:
            return 0.0
        self._pay()
        return max(0.0, self._owed / self._paid_per_s(self._rate) - self._BURST_S)

    def _paid_per_s(self, rate: float) -> float:
        return max(rate, self._LEAST_PACED) * self._HEADROOM

    def _pay(self) -> None:
        now = self._clock()
        if self._rate is not None:
            self._owed = max(0.0, self._owed - (now - self._paid_at) * self._paid_per_s(self._rate))
        else:
            # What went before he measured is nothing to pace by.
            self._owed = 0.0
        self._paid_at = now
