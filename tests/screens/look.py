"""A viewer of a real guest, as a program: ``python -m tests.screens.look OPERATOR DEVICE``.

Reads words from standard input, a line of JSON each, and answers with a line of JSON: ``{"do": "picture"}`` gives the
size and a hash of each of 16 stripes of what the screen shows, ``{"do": "changes", "stripe": N}`` waits until the
stripe is another, ``{"do": "input", "messages": [...]}`` sends input.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from typing import Any

import av

from cfctl.viewer import keep, signalling, stream

STRIPES = 16


class Eye:
    """What the screen shows, always the last frame."""

    def __init__(self) -> None:
        self.frame: av.VideoFrame | None = None
        self.came = asyncio.Event()

    async def follow(self, viewer: stream.Viewer) -> None:
        decoder = av.CodecContext.create("libvpx", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        async for packet in viewer.packets():
            for frame in decoder.decode(packet):
                self.frame = frame
                self.came.set()

    async def next(self) -> av.VideoFrame:
        self.came.clear()
        await self.came.wait()
        assert self.frame is not None
        return self.frame

    def stripes(self) -> list[str]:
        """Return what each stripe of the screen looks like, without what the encoder makes of it."""
        assert self.frame is not None
        plane = self.frame.planes[0]
        data, row, height = bytes(plane), plane.line_size, self.frame.height
        found = []
        for number in range(STRIPES):
            first, last = number * height // STRIPES, (number + 1) * height // STRIPES
            lines = b"".join(data[at * row : at * row + self.frame.width] for at in range(first, last))
            found.append(hashlib.sha256(bytes(value > 100 for value in lines)).hexdigest()[:12])
        return found


async def answer(eye: Eye, viewer: stream.Viewer, asked: dict[str, Any]) -> Any:
    if asked["do"] == "picture":
        frame = eye.frame or await eye.next()
        return {"size": [frame.width, frame.height], "stripes": eye.stripes(), "ppm": len(keep.ppm(frame))}
    if asked["do"] == "input":
        await viewer.ready()
        for message in asked["messages"]:
            viewer.input.send(json.dumps(message))
            # A guest's keyboard driver has few buffers.
            await asyncio.sleep(0.02)
        return "sent"
    if asked["do"] == "changes":
        before = eye.stripes()[asked["stripe"]]
        started = time.monotonic()
        async with asyncio.timeout(60):
            while eye.stripes()[asked["stripe"]] == before:
                await eye.next()
        return time.monotonic() - started
    if asked["do"] == "stats":
        return {**viewer.stats.as_dict(), "events": [event.event for event in viewer.heard]}
    raise ValueError(asked)


async def main(operator: str, device: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with stream.watching(signalling.Operator(operator), device) as viewer:
        eye = Eye()
        follower = asyncio.ensure_future(eye.follow(viewer))
        await eye.next()
        print(json.dumps("ready"), flush=True)
        while line := await reader.readline():
            print(json.dumps(await answer(eye, viewer, json.loads(line))), flush=True)
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
