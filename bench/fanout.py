"""What a viewer costs the relay: frames passed on as they came, beside decoding and encoding them for each.

One device with a moving picture, and so many viewers; the relay's share of a processor while all of them are shown
everything. Prints a table and, as the last line, JSON: ``python -m bench.fanout [VIEWERS...]`` (1, 8 and 32).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path

import av

from tests.relay.relays import Relay, running
from tests.relay.screens import streaming, viewing
from tests.relay.streamer import COLOURS

_SECONDS = 8.0
_RATE = 20
_SIZE = (360, 640)
_FRAMES = 100


def _cpu(pid: int) -> float:
    """Return the seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _frames(relay: Relay) -> int:
    """Return how many frames have come from the device."""
    request = urllib.request.Request(
        relay.listeners["web"]["address"] + "/api/devices/pad-1/stats",
        headers={"Authorization": f"Bearer {relay.token('viewer')}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return sum(stream["frames"] for stream in json.load(answer)["streams"].values())


def _passed_on(count: int) -> dict[str, float]:
    """Return what the relay takes for so many viewers, in percent of a core, and what each of them is shown."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(running(web="127.0.0.1:0"))
        stack.enter_context(streaming(relay, rate=_RATE, size=_SIZE))
        viewers = [stack.enter_context(viewing(relay)) for _ in range(count)]
        time.sleep(2)
        there = _frames(relay)
        before, shown, started = _cpu(relay.process.pid), [len(one.frames) for one in viewers], time.monotonic()
        time.sleep(_SECONDS)
        seconds = time.monotonic() - started
        frames = [(len(one.frames) - had) / seconds for one, had in zip(viewers, shown, strict=True)]
        size = sum(frame["size"] for one, had in zip(viewers, shown, strict=True) for frame in one.frames[had:])
        return {
            "viewers": count,
            "relay, % of a core": 100 * (_cpu(relay.process.pid) - before) / seconds,
            "from the device, frames/s": (_frames(relay) - there) / seconds,
            "slowest viewer, frames/s": min(frames),
            "per viewer, kbit/s": 8 * size / seconds / 1000 / count,
        }


def _picture(number: int) -> av.VideoFrame:
    width, height = _SIZE
    at = number * 4 % (width - 16)
    row = bytes([120]) * at + bytes([235]) * 16 + bytes([120]) * (width - 16 - at)
    colour = COLOURS[number // (_RATE // 4) % len(COLOURS)]
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, line in zip(frame.planes, (row, *(bytes([part]) * (width // 2) for part in colour)), strict=True):
        plane.update(line.ljust(plane.line_size, b"\0") * plane.height)
    frame.pts, frame.time_base = number, Fraction(1, _RATE)
    return frame


def _encoder() -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = *_SIZE, "yuv420p"
    encoder.time_base, encoder.bit_rate = Fraction(1, _RATE), 1_500_000
    encoder.options = {"cpu-used": "-6", "deadline": "realtime", "lag-in-frames": "0"}
    return encoder


def _encoded_anew() -> float:
    """Return what decoding and encoding for one viewer takes, in percent of a core at the same rate."""
    source = _encoder()
    packets = [packet for number in range(_FRAMES) for packet in source.encode(_picture(number))]
    decoder, encoder = av.CodecContext.create("libvpx", "r"), _encoder()
    assert isinstance(decoder, av.VideoCodecContext)
    before = time.process_time()
    for packet in packets:
        for frame in decoder.decode(packet):
            encoder.encode(frame)
    return 100 * (time.process_time() - before) / _FRAMES * _RATE


def main() -> None:
    """Measure."""
    counts = [int(word) for word in sys.argv[1:]] or [1, 8, 32]
    again = _encoded_anew()
    rows = []
    for count in counts:
        row = {name: round(value, 2) for name, value in _passed_on(count).items()}
        row["per viewer, % of a core"] = round(row["relay, % of a core"] / count, 2)
        row["decode and encode, % of a core"] = round(again * count, 2)
        rows.append(row)
    for name in rows[0]:
        print(f"{name:<32}" + "".join(f"{row[name]:>10.2f}" for row in rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
