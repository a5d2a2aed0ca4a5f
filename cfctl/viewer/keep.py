"""What is kept of a stream: a picture, a film, numbers."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from cfctl.control import picture
from cfctl.errors import CfctlError
from cfctl.wire import vp8

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.viewer.stream import Viewer


async def png(viewer: Viewer, target: Path) -> dict[str, Any]:
    """Save the picture that the display shows now.

    :raises CfctlError: if no picture comes, or the file cannot be written; nothing is left then.
    """
    decoder = av.CodecContext.create("libvpx", "r")
    assert isinstance(decoder, av.VideoCodecContext)  # noqa: S101 (for mypy: libvpx is VP8)
    async for packet in viewer.packets():
        for frame in decoder.decode(packet):
            _write(target, picture.png(ppm(frame)))
            return {"width": frame.width, "height": frame.height, "bytes": target.stat().st_size}
    raise AssertionError  # the stream never ends without an error


def ppm(frame: av.VideoFrame) -> bytes:
    """Return a decoded frame as PPM."""
    plane = frame.reformat(format="rgb24").planes[0]
    data, row = bytes(plane), 3 * frame.width
    rows = (data[at : at + row] for at in range(0, plane.line_size * frame.height, plane.line_size))
    return b"P6 %d %d 255\n" % (frame.width, frame.height) + b"".join(rows)


async def film(viewer: Viewer, target: Path, seconds: float) -> dict[str, Any]:
    """Save what the display shows as WebM, the frames as they come.

    :raises CfctlError: if nothing comes, or the file cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with av.open(part, "w", format="webm") as container:
            await _fill(viewer, container, seconds)
        part.replace(target)
    except (OSError, av.FFmpegError) as exc:
        raise CfctlError(f"{target} cannot be written", str(exc)) from exc
    finally:
        part.unlink(missing_ok=True)
    return {"bytes": target.stat().st_size, **viewer.stats.as_dict()}


async def _fill(viewer: Viewer, container: av.container.OutputContainer, seconds: float) -> None:
    stream = None
    first = 0
    loop = asyncio.get_running_loop()
    end = None
    async for packet in viewer.packets():
        data = bytes(packet)
        pts = packet.pts or 0
        if stream is None:
            if not vp8.is_key(data):
                continue
            stream = container.add_stream("libvpx", rate=30)
            stream.width, stream.height = vp8.size(data)
            stream.time_base = Fraction(1, 90_000)
            first, end = pts, loop.time() + seconds
        # A new one: the muxer changes what it gets.
        copy = av.Packet(data)
        copy.stream = stream
        copy.pts = copy.dts = pts - first
        copy.time_base = Fraction(1, 90_000)
        copy.is_keyframe = vp8.is_key(data)
        container.mux_one(copy)
        if end is not None and loop.time() >= end:
            return


async def numbers(viewer: Viewer, seconds: float) -> dict[str, Any]:
    """Watch for some seconds and return what came."""
    loop = asyncio.get_running_loop()
    end = None
    async for _ in viewer.packets():
        if end is None:
            end = loop.time() + seconds
        if loop.time() >= end:
            break
    return viewer.stats.as_dict()


def _write(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_bytes(data)
        part.replace(target)
    except OSError as exc:
        raise CfctlError(f"{target} cannot be written", exc.strerror) from exc
    finally:
        part.unlink(missing_ok=True)
