"""A stand-in for the stock streamer, written from the facts: ``python -m tests.relay.streamer JSON``.

It registers at a socket, offers its displays to every client, sends a picture that moves, and prints what it hears: a
line of JSON each. Where a stock streamer would abort, it does.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

import av
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    rtcrtpreceiver,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, unpack_remb_fci
from aiortc.sdp import candidate_from_sdp

INFO: dict[str, Any] = {
    "displays": [{"stream_id": "display_0", "x_res": 320, "y_res": 240, "dpi": 160, "is_touch": True}],
    "touchpads": [],
    "audio_streams": [],
    "hardware": {"CPUs": "2", "RAM": "2048 mb", "GPU Mode": "none"},
    "openwrt_device_id": "",
    "openwrt_addr": "",
    "adb_port": 6520,
    "control_env_proxy_server_path": "",
    "mouse_enabled": False,
    "gamepad_enabled": False,
    "custom_control_panel_buttons": [],
}

#: Cb and Cr of the colours that follow each other, four in a second.
COLOURS = ((90, 240), (54, 34), (240, 110), (16, 146), (166, 16), (202, 222), (128, 128))


@dataclass(frozen=True)
class Wanted:
    """How the streamer is to be."""

    socket: str
    device_id: str = "pad-1"
    port: int = 0
    displays: int = 1
    rate: int = 20
    size: tuple[int, int] = (320, 240)
    attempts: int = 3
    audio: bool = False
    #: Whether it ends a session in which a client offers.
    refuses: bool = False
    info: dict[str, Any] = field(default_factory=dict)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Picture(MediaStreamTrack):
    """A bar that moves over a colour that changes."""

    kind = "video"

    def __init__(self, stream_id: str, wanted: Wanted) -> None:
        super().__init__()
        cast(Any, self)._id = stream_id
        self._wanted = wanted
        self._number = 0
        self._start = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        width, height = self._wanted.size
        self._number += 1
        due = self._start + self._number / self._wanted.rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        hue = self._number // max(1, self._wanted.rate // 4) % len(COLOURS)
        at = self._number * 4 % (width - 16)
        row = bytes([120]) * at + bytes([235]) * 16 + bytes([120]) * (width - 16 - at)
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, line in zip(
            frame.planes, (row, *(bytes([part]) * (width // 2) for part in COLOURS[hue])), strict=True
        ):
            plane.update(line.ljust(plane.line_size, b"\0") * plane.height)
        frame.pts = int((time.monotonic() - self._start) * 90_000)
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


def sound(number: int) -> bytes:
    """Return a frame of sound; nobody on the way decodes it."""
    return b"\xfc" + number.to_bytes(4, "big") * (10 + number % 7)


class Sound(MediaStreamTrack):
    """Frames that stand for Opus, fifty in a second."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        cast(Any, self)._id = "audio-0"
        self._number = 0
        self._start = time.monotonic()

    async def recv(self) -> Any:
        self._number += 1
        await asyncio.sleep(max(0, self._start + self._number / 50 - time.monotonic()))
        packet = av.Packet(sound(self._number))
        packet.pts = 960 * self._number
        packet.time_base = fractions.Fraction(1, 48_000)
        return packet


class AsItCame:
    """What aiortc takes for a decoder."""

    def decode(self, frame: Any) -> list[Any]:
        return [frame.data]


class Client:
    """One peer connection."""

    def __init__(self, streamer: Streamer, number: int) -> None:
        self.streamer = streamer
        self.number = number
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.control: RTCDataChannel | None = None
        self.streams: dict[str, int] = {}

    async def offer(self) -> None:
        codecs = [one for one in RTCRtpSender.getCapabilities("video").codecs if one.name in ("VP8", "rtx")]
        for number in range(self.streamer.wanted.displays):
            self.show(number)
        if self.streamer.wanted.audio:
            cast(Any, self.pc.addTrack(Sound()))._stream_id = "audio-0"
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(codecs)
        self.pc.on("track", lambda track: self.streamer.keep(self.listen(track)))
        control = self.control = self.pc.createDataChannel("device-control")
        control.on("open", lambda: control.send(json.dumps({"event": "VIRTUAL_DEVICE_BOOT_COMPLETED"}, indent="\t")))
        control.on("message", lambda data: self.command(data))
        self.pc.on("datachannel", self.channel)
        self.pc.on("connectionstatechange", lambda: say(client=self.number, state=self.pc.connectionState))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self.say({"type": "offer", "sdp": self.pc.localDescription.sdp})

    def show(self, number: int) -> None:
        """Have one display more."""
        track = Picture(f"display_{number}", self.streamer.wanted)
        sender = self.pc.addTrack(track)
        parts = cast(Any, sender)
        parts._stream_id = track.id
        before, hear = sender._send_keyframe, sender._handle_rtcp_packet

        def key() -> None:
            say(heard="key", client=self.number, display=number)
            before()

        async def told(packet: Any) -> None:
            if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
                say(heard="remb", client=self.number, data=unpack_remb_fci(packet.fci)[0])
            await hear(packet)

        parts._send_keyframe, parts._handle_rtcp_packet = key, told

    async def listen(self, track: MediaStreamTrack) -> None:
        """Hear a client's microphone, see its camera."""
        try:
            while True:
                data: Any = await track.recv()
                key = track.kind == "video" and not data[0] & 1
                say(heard=track.kind, client=self.number, data=data.hex() if track.kind == "audio" else key)
        except MediaStreamError:
            say(ended=track.kind, client=self.number)

    def command(self, data: str | bytes) -> None:
        told = json.loads(data)
        say(heard="device-control", client=self.number, data=told)
        if told["command"] in ("add-display", "remove-display"):
            self.streamer.keep(self.changed(told))

    async def changed(self, told: dict[str, Any]) -> None:
        """Offer again, with a display more or less."""
        if told["command"] == "add-display":
            self.show(len([one for one in self.pc.getTransceivers() if one.kind == "video"]))
        else:
            gone = f"display_{told['display_id']}"
            for one in self.pc.getTransceivers():
                if one.sender.track is not None and one.sender.track.id == gone:
                    one.direction = "recvonly"
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self.say({"type": "offer", "sdp": self.pc.localDescription.sdp})

    def channel(self, channel: RTCDataChannel) -> None:
        label = channel.label

        def heard(data: str | bytes) -> None:
            if label == "input-channel":
                say(heard=label, client=self.number, data=json.loads(data))
            elif label == "sensors-channel":
                text = data if isinstance(data, str) else data.decode()
                x, y, z = (float(part) for part in text.split(" "))
                say(heard=label, client=self.number, data=[x, y, z])
                channel.send(f"0:9.8:0 0:0:0 0:0:0 {x:g}:{y:g}:{z:g} ".encode())
                if self.control is not None:
                    event = {"event": "VIRTUAL_DEVICE_SCREEN_CHANGED", "metadata": {"rotation": f"{z % 360:g}"}}
                    self.control.send(json.dumps(event, indent="\t"))
            else:
                say(heard=label, client=self.number, data=data if isinstance(data, str) else data.hex())
                if label in ("adb-channel", "bluetooth-channel"):
                    # One stream of bytes per client: it counts what came on it.
                    self.streams[label] = self.streams.get(label, 0) + len(data)
                    channel.send(b"%d:" % self.streams[label] + cast(bytes, data))

        channel.on("message", heard)
        if label == "lights-channel":
            channel.send(json.dumps({"event": "VIRTUAL_DEVICE_LIGHTS_UPDATE"}))

    async def hear(self, payload: dict[str, Any]) -> None:
        kind = payload["type"]
        if kind == "answer":
            await self.pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "answer"))
        elif kind == "offer" and self.streamer.wanted.refuses:
            self.say({"type": "error", "error": "no offers here"})
            await self.pc.close()
        elif kind == "offer":
            await self.pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "offer"))
            await self.pc.setLocalDescription(await self.pc.createAnswer())
            self.say({"type": "answer", "sdp": self.pc.localDescription.sdp})
        elif kind == "ice-candidate":
            about = payload["candidate"]
            candidate = candidate_from_sdp(about["candidate"].split(":", 1)[1])
            candidate.sdpMid, candidate.sdpMLineIndex = about["sdpMid"], about["sdpMLineIndex"]
            await self.pc.addIceCandidate(candidate)

    def say(self, payload: dict[str, Any]) -> None:
        self.streamer.send({"message_type": "forward", "client_id": self.number, "payload": payload})


class Streamer:
    """The program."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.socket: socket.socket | None = None
        self.clients: dict[int, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def send(self, message: dict[str, Any]) -> None:
        assert self.socket is not None
        self.socket.send((json.dumps(message, indent="\t", sort_keys=True) + "\n").encode())

    async def run(self) -> None:
        """Register again and again, as often as a stock one does."""
        attempts, delay = self.wanted.attempts, 1.0
        while attempts:
            if await self.registered():
                attempts, delay = 100, 1.0
            attempts -= 1
            say(event="retry", seconds=delay)
            await asyncio.sleep(delay)
            delay *= 2
        say(event="gave up")

    async def registered(self) -> bool:
        """Be registered as long as it lasts; return whether it was."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        welcome = False
        with self.socket:
            try:
                await asyncio.get_running_loop().sock_connect(self.socket, self.wanted.socket)
            except OSError:
                return False
            info = INFO | self.wanted.info
            about = {"device_id": self.wanted.device_id, "device_port": self.wanted.port, "device_info": info}
            self.send({"message_type": "register", **about})
            try:
                while record := await asyncio.get_running_loop().sock_recv(self.socket, 1 << 19):
                    message = json.loads(record)
                    kind = message.get("message_type")
                    if kind not in ("config", "client_msg", "client_disconnected"):
                        say(event="error", record=message)
                        return False
                    if kind == "config":
                        welcome = True
                        say(event="registered", config=message)
                    else:
                        await self.hear(kind, message)
            except ConnectionError:
                pass
        say(event="lost")
        return welcome

    async def hear(self, kind: str, message: dict[str, Any]) -> None:
        number = message["client_id"]
        client = self.clients.get(number)
        if kind == "client_disconnected":
            say(event="disconnected", client=number)
            if client is not None:
                del self.clients[number]
                await client.pc.close()
            return
        payload = message["payload"]
        say(event="told", client=number, type=payload.get("type"))
        if payload["type"] == "request-offer":
            client = self.clients[number] = Client(self, number)
            await client.offer()
        elif client is None:
            # The stock one follows a null pointer.
            say(event="crash")
            os._exit(139)
        else:
            await client.hear(payload)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    cast(Any, rtcrtpreceiver).get_decoder = lambda _codec: AsItCame()
    asyncio.run(Streamer(Wanted(**told)).run())
