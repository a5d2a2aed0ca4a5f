"""What every end of ours asks of aiortc beyond its public interface: loopback, and frames as soon as they are whole.

aiortc's jitter buffer holds a frame back until the next one begins, which for a screen that stands still is never;
ours looks at the mark on the last packet of a frame (RFC 7741 section 4.1).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from aioice import ice
from aiortc import rtcrtpreceiver
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.utils import uint16_add, uint16_gt

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiortc.rtcrtpparameters import RTCRtpCodecParameters
    from aiortc.rtp import RtpPacket

_LOOPBACK = "127.0.0.1"

#: How long a packet that was lost is waited for: a retransmission takes one round trip.
_LOST_S = 0.3

_gathered = ice.get_host_addresses


def _with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:  # noqa: FBT001 (aioice's own signature)
    found = list(_gathered(use_ipv4, use_ipv6))
    return found if not use_ipv4 or _LOOPBACK in found else [*found, _LOOPBACK]


def gather_loopback() -> None:
    """Have this process's connections offer loopback too, as stock streamers and browsers do.

    Both ends may be on one host, which needs no other network then.
    """
    cast(Any, ice).get_host_addresses = _with_loopback


def take_frames(decoder: Callable[[RTCRtpCodecParameters], Any]) -> None:
    """Have this process's receivers give frames of video to ``decoder`` as soon as they are whole.

    :param decoder: makes what stands in the place of aiortc's decoder; it is given what :func:`whole` reads.
    """
    parts = cast(Any, rtcrtpreceiver)
    parts.get_decoder = decoder
    parts.JitterBuffer = Prompt


def whole(frame: JitterFrame) -> list[tuple[bytes, int]]:
    """Return the frames that came at once, with their times by the codec's clock."""
    found = [(frame.data, frame.timestamp)]
    if isinstance(frame, _Frames):
        found += [(data, frame.timestamp + (at - frame.first & 0xFFFFFFFF)) for data, at in frame.rest]
    return found


class _Frames(JitterFrame):
    """One frame, and those that were complete at the same time."""

    def __init__(self, frames: list[tuple[bytes, int]]) -> None:
        (data, timestamp), *rest = frames
        super().__init__(data, timestamp)
        self.first = timestamp
        self.rest = rest


class Prompt(JitterBuffer):
    """Lets a frame of video go as soon as its last packet is there, and gives up one that never will be whole."""

    #: Another one in tests.
    clock = staticmethod(time.monotonic)

    def __init__(self, capacity: int, prefetch: int = 0, is_video: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(capacity, prefetch, is_video)
        self._newest: int | None = None
        #: Packets from the first one on that lack none between them.
        self._whole = 0
        #: The packet that is missed, and since when.
        self._missed: tuple[int, float] | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; return whether a key frame is to be asked for, and what is whole by now."""
        lost, frame = super().add(packet)
        if not self._is_video:
            return lost, frame
        if lost or self._newest is None or uint16_gt(packet.sequence_number, self._newest):
            self._newest = packet.sequence_number
        if frame is not None or lost or not self._overdue():
            return lost, frame
        # aiortc would wait for as many packets more as its buffer has places: minutes, on a screen that stands still.
        if self.smart_remove(self._whole + 1):
            self._origin = uint16_add(self._newest, 1)
        self._missed = None
        return True, self._remove_frame(packet.sequence_number)

    def _overdue(self) -> bool:
        """Tell whether a packet is missed for longer than a retransmission takes."""
        first = uint16_add(cast(int, self._origin), self._whole)
        if not uint16_gt(cast(int, self._newest), first):
            self._missed = None
            return False
        if self._missed is None or self._missed[0] != first:
            self._missed = first, self.clock()
        return self.clock() - self._missed[1] > _LOST_S

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        if not self._is_video:
            return super()._remove_frame(sequence_number)
        frames: list[tuple[bytes, int]] = []
        packets: list[Any] = []
        complete = self._whole = 0
        for count in range(self.capacity):
            packet: RtpPacket | None = self._packets[(cast(int, self._origin) + count) % self._capacity]
            if packet is None:
                break
            self._whole = count + 1
            if packets and packet.timestamp != packets[0].timestamp:
                frames.append((b"".join(one._data for one in packets), packets[0].timestamp))
                packets, complete = [], count
            packets.append(packet)
            if packet.marker:
                frames.append((b"".join(one._data for one in packets), packets[0].timestamp))
                packets, complete = [], count + 1
        if complete:
            self.remove(complete)
            self._whole -= complete
        frames = [frame for frame in frames if frame[0]]
        return _Frames(frames) if frames else None
