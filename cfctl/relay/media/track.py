"""Encoded frames on their way out: to a viewer, or from a viewer's microphone and camera to the device."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from cfctl.relay.media import rtc
from cfctl.relay.media.frames import AUDIO_CLOCK, VIDEO_CLOCK, Buffer, Frame, Pace

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often somebody who is paced is looked at.
_LOOK_S = 0.05


class FanTrack(MediaStreamTrack):
    """One stream, as one peer gets it.

    :param pace: how fast that peer takes it.
    :param key_wanted: called when nothing can be shown before a key frame; with whether he was slow.
    """

    def __init__(self, stream_id: str, kind: str, pace: Pace, key_wanted: Callable[[bool], None]) -> None:
        self.kind = kind
        super().__init__()
        rtc.name_track(self, stream_id)
        self.buffer = Buffer(sound=kind == "audio")
        self._pace = pace
        self._key_wanted = key_wanted
        self._came = asyncio.Event()
        self._base = Fraction(1, VIDEO_CLOCK if kind == "video" else AUDIO_CLOCK)
        self.sent = 0

    def push(self, frame: Frame) -> None:
        """Let a frame wait for the peer."""
        waited = len(self.buffer)
        self.buffer.push(frame)
        if self.buffer.needs_key and not self._pace.silent:
            self._key_wanted(bool(waited))
        self._came.set()

    async def recv(self) -> Any:
        """Return the next frame, when the peer can take it."""
        while self.readyState == "live":
            if not len(self.buffer) or self._pace.silent:
                self._came.clear()
                try:
                    async with asyncio.timeout(1):
                        await self._came.wait()
                except TimeoutError:
                    continue
                if self._pace.silent:
                    await asyncio.sleep(_LOOK_S)
                continue
            if self.kind == "video" and (delay := self._pace.wait()):
                await asyncio.sleep(min(delay, _LOOK_S))
                continue
            frame = self.buffer.pop()
            if frame is None:
                self._key_wanted(True)  # noqa: FBT003  he was slow
                continue
            self._pace.sent(len(frame.data))
            self.sent += 1
            packet = av.Packet(frame.data)
            packet.pts = frame.timestamp
            packet.time_base = self._base
            return packet
        raise MediaStreamError
