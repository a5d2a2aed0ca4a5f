"""Pictures as VP8, by libvpx: fast rather than small, one frame out for each that goes in."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.video.frame import PictureType

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

#: Of RTP (RFC 7741): a packet's time is counted in these.
CLOCK = 90_000

#: The encoder shares out its bits as if frames came so often; while nothing changes fewer come.
RATE = 30

#: As a stock streamer's bandwidth estimation begins; its limit is 15 Mbit/s (reference of the streams).
BITS_PER_SECOND = 4_000_000
_PEAK = 10_000_000

#: Key frames come when somebody asks; this is only so that no counter runs over.
_KEY_EVERY = 1 << 20

_OPTIONS = {
    "deadline": "realtime",
    # As fast as libvpx can in this mode; 16 would be a fixed loss of quality that text shows.
    "cpu-used": "-10",
    "lag-in-frames": "0",
    "auto-alt-ref": "0",
    # Blocks that differ by less are not looked at again: an idle screen costs next to nothing.
    "static-thresh": "100",
    "error-resilient": "default",
    "minrate": "0",
    "maxrate": str(_PEAK),
    "bufsize": str(BITS_PER_SECOND // 2),
    "undershoot-pct": "100",
    "overshoot-pct": "15",
}


class Encoder:
    """An encoder that follows the picture's size."""

    def __init__(self) -> None:
        self._codec: VideoCodecContext | None = None
        self._count = 0
        self._last: av.VideoFrame | None = None

    def encode(self, picture: av.VideoFrame | None, *, key: bool, pts: int) -> av.Packet[av.VideoStream] | None:
        """Return the packet of a picture; None if the encoder had none, or there was no picture yet.

        :param picture: None for the one before, once more.
        :param key: make it one that can be understood without those before.
        :param pts: of the packet, in :data:`CLOCK`.
        """
        # libvpx counts in pairs of pixels: an odd row or column is left out.
        frame = self._last if picture is None else _planes(picture)
        if frame is None:
            return None
        self._last = frame
        if self._codec is None or (self._codec.width, self._codec.height) != (frame.width, frame.height):
            self._codec = _codec(frame.width, frame.height)
        frame.pict_type = PictureType.I if key else PictureType.NONE
        frame.pts, frame.time_base = self._count, Fraction(1, RATE)
        self._count += 1
        packets = self._codec.encode(frame)
        if not packets:
            return None
        (packet,) = packets
        packet.pts = packet.dts = pts
        packet.time_base = Fraction(1, CLOCK)
        return packet


def grabbed(pixels: bytearray, width: int, height: int) -> av.VideoFrame:
    """Return a picture that is a copy of pixels, four bytes each, blue first."""
    frame = av.VideoFrame(width, height, "bgr0")
    plane = frame.planes[0]
    row = width * 4
    if plane.line_size == row:
        plane.update(bytes(pixels))
    else:
        padding = bytes(plane.line_size - row)
        plane.update(b"".join(pixels[start : start + row] + padding for start in range(0, len(pixels), row)))
    return frame


def _planes(picture: av.VideoFrame) -> av.VideoFrame:
    return picture.reformat(width=picture.width & ~1 or 2, height=picture.height & ~1 or 2, format="yuv420p")


def _codec(width: int, height: int) -> VideoCodecContext:
    codec = av.CodecContext.create("libvpx", "w")
    assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 (for mypy: libvpx is VP8)
    codec.width, codec.height = width, height
    codec.pix_fmt = "yuv420p"
    codec.time_base = Fraction(1, RATE)
    codec.framerate = Fraction(RATE)
    codec.bit_rate = BITS_PER_SECOND
    codec.gop_size = _KEY_EVERY
    codec.qmin, codec.qmax = 4, 50
    codec.thread_count = 1
    codec.options = dict(_OPTIONS)
    return codec
