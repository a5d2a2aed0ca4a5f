"""A viewer of the relay's for tests, without a window: ``python -m tests.relay.viewer URL TOKEN DEVICE``.

It takes the encoded frames as they come, and prints a line of JSON for each. What it reads on its standard input, a
line of JSON each, it sends on a data channel: ``["input-channel", "..."]``, binary ``["adb-channel", {"hex": ""}]``;
``["bring", "audio"]`` has it offer a microphone, ``["bring", "video"]`` a camera; ``["limit", 100000]`` has it say
that no more bits per second arrive, ``["close", "adb-channel"]`` close a channel.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse
from aiortc import MediaStreamTrack, RTCDataChannel, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from cfctl.relay.media import rtc
from cfctl.wire.webrtc_channels import LABELS as LABELS_OF_DEVICES
from tests.relay.streamer import Picture, Sound, Wanted

LABELS = ("cfctl-control", *LABELS_OF_DEVICES[1:])


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def show(track: MediaStreamTrack) -> None:
    number = 0
    try:
        while True:
            frame: Any = await track.recv()
            number += 1
            about = {"key": frame.key, "timestamp": frame.timestamp, "size": len(frame.data)}
            if track.kind == "audio":
                about["data"] = frame.data.hex()
            say(frame=number, stream=track.id, **about)
    except MediaStreamError:
        say(ended=track.id)


async def main(url: str, token: str, device: str) -> None:
    rtc.install()
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    pc = rtc.connection(offers=False)
    channels: dict[str, RTCDataChannel] = {}
    limit: int | None = None

    def came(track: MediaStreamTrack) -> None:
        receiver = next(one.receiver for one in pc.getTransceivers() if one.receiver.track is track)
        rtc.Receiving(receiver, lambda: None, lambda: limit)
        tasks.add(loop.create_task(show(track)))

    pc.on("track", came)
    pc.on("connectionstatechange", lambda: say(state=pc.connectionState))

    def take(channel: RTCDataChannel) -> None:
        channels[channel.label] = channel
        channel.on(
            "message", lambda data: say(channel=channel.label, data=data if isinstance(data, str) else data.hex())
        )
        if channel.readyState == "open":
            say(open=channel.label)
        else:
            channel.on("open", lambda: say(open=channel.label))

    pc.on("datachannel", take)

    async def obey(line: ClientWebSocketResponse) -> None:
        nonlocal limit
        while told := await loop.run_in_executor(None, sys.stdin.readline):
            label, data = json.loads(told)
            if label == "limit":
                limit = data
            elif label == "bring":
                pc.addTrack(Sound() if data == "audio" else Picture("camera", Wanted("")))
                await pc.setLocalDescription(await rtc.offered_again(pc))
                await line.send_str(json.dumps({"type": "offer", "sdp": pc.localDescription.sdp}))
            elif label == "close":
                channels[data].close()
            else:
                channels[label].send(bytes.fromhex(data["hex"]) if isinstance(data, dict) else data)

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        ClientSession() as session,
        session.ws_connect(f"{url}/devices/{device}/connect", headers=headers) as line,
    ):
        await line.send_str('{"type":"request-offer"}')
        async for frame in line:
            payload = json.loads(frame.data).get("payload")
            if payload is None:
                continue
            if payload["type"] == "answer":
                await pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "answer"))
                say(brings=True)
                continue
            if payload["type"] != "offer":
                say(payload=payload)
                continue
            await pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "offer"))
            if not channels:
                for label in LABELS:
                    take(pc.createDataChannel(label))
                tasks.add(loop.create_task(obey(line)))
            await pc.setLocalDescription(await pc.createAnswer())
            await line.send_str(json.dumps({"type": "answer", "sdp": pc.localDescription.sdp}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
