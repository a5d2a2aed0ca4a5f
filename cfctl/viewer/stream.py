"""The stream of a display, as encoded frames: whoever wants a picture decodes it, whoever wants a film need not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import aiortc.codecs
import aiortc.mediastreams
import av
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from cfctl.errors import CfctlError, DeadlinePassed
from cfctl.viewer import signalling
from cfctl.wire import rtc, vp8
from cfctl.wire import webrtc_channels as channels
from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiortc import MediaStreamTrack, RTCDataChannel
    from aiortc.jitterbuffer import JitterFrame
    from aiortc.rtcrtpparameters import RTCRtpCodecParameters

    Packet = av.Packet[av.VideoStream]

#: From the first word to the first frame; a streamer on a busy host needs seconds to load its libraries.
_FIRST_S = 30.0

#: Between two demands for a key frame.
_KEY_S = 1.0

_VIDEO_CLOCK = 90_000

_decoder_for = aiortc.codecs.get_decoder


class StreamFailed(CfctlError):
    """The device's streamer could not be watched."""

    code = "stream-failed"


class _AsItIs:
    """What aiortc takes for a decoder: gives frames as they came."""

    def decode(self, frame: JitterFrame) -> list[Any]:
        packets: list[Any] = []
        for data, timestamp in rtc.whole(frame):
            packet = av.Packet(data)
            packet.pts = packet.dts = timestamp
            packet.time_base = Fraction(1, _VIDEO_CLOCK)
            packets.append(packet)
        return packets


def _decoder(codec: RTCRtpCodecParameters) -> Any:
    return _AsItIs() if codec.mimeType.lower() == "video/vp8" else _decoder_for(codec)


@dataclass(slots=True)
class Stats:
    """What was seen of a stream.

    :param first_frame_s: from the first word to the first frame.
    """

    frames: int = 0
    key_frames: int = 0
    total_bytes: int = 0
    first_frame_s: float | None = None
    width: int = 0
    height: int = 0
    _times: list[float] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Count a frame."""
        self.frames += 1
        self.total_bytes += len(data)
        self._times.append(time.monotonic())
        if vp8.is_key(data):
            self.key_frames += 1
            self.width, self.height = vp8.size(data)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for people and programs."""
        seconds = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        return {
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "key_frames": self.key_frames,
            "seconds": round(seconds, 3),
            "frames_per_s": round((self.frames - 1) / seconds, 2) if seconds else 0.0,
            "bits_per_s": round(8 * self.total_bytes / seconds) if seconds else 0,
            "first_frame_s": None if self.first_frame_s is None else round(self.first_frame_s, 3),
        }


class Viewer:
    """A connection to a streamer; :func:`watching` makes one.

    :ivar stats: what came so far.
    :ivar input: where :mod:`cfctl.wire.webrtc_channels` messages are written as text.
    :ivar heard: what the device said on its control channel.
    """

    def __init__(self, line: signalling.Line, label: str) -> None:
        self.stats = Stats()
        self.heard: list[channels.Event] = []
        self.input: RTCDataChannel
        self.device_info = line.device_info
        self._line = line
        self._label = label
        self._begun = time.monotonic()
        self._track: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keyed = 0.0
        servers = [
            RTCIceServer(
                server.urls,
                server.username if isinstance(server.username, str) else None,
                server.credential if isinstance(server.credential, str) else None,
            )
            for server in line.servers
        ]
        self.connection = RTCPeerConnection(RTCConfiguration(servers))

    async def begin(self) -> None:
        """Ask for the offer and answer it.

        :raises StreamFailed: if the streamer refuses.
        """
        connection, line = self.connection, self._line
        connection.on("track", self._take_track)
        connection.on("datachannel", self._take_channel)
        connection.on("connectionstatechange", self._state_changed)
        await line.say(messages.RequestOffer())
        early: list[messages.DeviceCandidate] = []
        while True:
            match await line.hear():
                case messages.Offer(sdp=sdp):
                    break
                case messages.DeviceCandidate() as candidate:
                    early.append(candidate)
                case messages.Failure(error=error):
                    raise StreamFailed("the device's streamer refuses", error)
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        self.input = connection.createDataChannel(channels.INPUT)
        self.input.on("open", self._opened)
        await connection.setLocalDescription(await connection.createAnswer())
        await line.say(messages.Answer(connection.localDescription.sdp))
        for candidate in early:
            await self._add(candidate)

    async def follow(self) -> None:
        """Take what the device says later, until the line is closed or this is cancelled."""
        with contextlib.suppress(signalling.NoOperator):
            while True:
                message = await self._line.hear()
                if isinstance(message, messages.DeviceCandidate):
                    await self._add(message)

    async def _add(self, said: messages.DeviceCandidate) -> None:
        # Some are of kinds that aiortc does not use, some come after the last one was announced.
        with contextlib.suppress(ValueError, AssertionError, IndexError):
            candidate = candidate_from_sdp(said.candidate.partition(":")[2])
            candidate.sdpMid, candidate.sdpMLineIndex = said.mid, said.mline_index
            await self.connection.addIceCandidate(candidate)

    async def ready(self) -> None:
        """Wait until input can be sent.

        :raises DeadlinePassed: if that takes too long.
        """
        await self._within(self._open, "be ready for input")

    async def send(self, message: channels.Input) -> None:
        """Send input."""
        await self.ready()
        self.input.send(channels.write(message))

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield frames from a key frame on; see :meth:`packets`."""
        async for packet in self.packets():
            yield bytes(packet)

    async def packets(self) -> AsyncIterator[Packet]:
        """Yield frames with their times, from a key frame on.

        :raises DeadlinePassed: if none comes.
        :raises StreamFailed: if the stream ends.
        """
        track = await self._within(self._track, "send a picture")
        started = False
        while True:
            try:
                async with asyncio.timeout(_FIRST_S):
                    packet: Any = await track.recv()
            except TimeoutError as exc:
                raise DeadlinePassed(f"no frame came for {_FIRST_S:g} s") from exc
            except aiortc.mediastreams.MediaStreamError as exc:
                raise StreamFailed("the stream has ended") from exc
            data = bytes(packet)
            if not started and not vp8.is_key(data):
                await self._ask_for_key()
                continue
            if not started:
                self.stats.first_frame_s = time.monotonic() - self._begun
            started = True
            self.stats.take(data)
            yield packet

    async def _ask_for_key(self) -> None:
        if time.monotonic() - self._keyed < _KEY_S:
            return
        self._keyed = time.monotonic()
        for transceiver in self.connection.getTransceivers():
            for source in transceiver.receiver.getSynchronizationSources():
                # aiortc has no public way.
                await transceiver.receiver._send_rtcp_pli(source.source)

    async def _within(self, future: asyncio.Future[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_FIRST_S):
                return await asyncio.shield(future)
        except TimeoutError as exc:
            raise DeadlinePassed(
                f"the device's streamer did not {what} within {_FIRST_S:g} s",
                f"The connection is {self.connection.connectionState}, ICE is {self.connection.iceConnectionState}.",
                "Between networks that do not see each other a TURN server is needed.",
            ) from exc

    def _opened(self) -> None:
        if not self._open.done():
            self._open.set_result(None)

    def _take_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video" and track.id == self._label and not self._track.done():
            self._track.set_result(track)

    def _take_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == channels.CONTROL:
            channel.on("message", self._take_event)

    def _take_event(self, text: str | bytes) -> None:
        with contextlib.suppress(messages.MalformedMessage):
            self.heard.append(channels.read_event(text))

    def _state_changed(self) -> None:
        if self.connection.connectionState == "failed":
            for future in (self._track, self._open):
                if not future.done():
                    future.set_exception(StreamFailed("no connection to the device's streamer could be made"))


@contextlib.asynccontextmanager
async def watching(operator: signalling.Operator, device: str, *, label: str = "display_0") -> AsyncIterator[Viewer]:
    """Watch a display for the block.

    :param operator: where the device is registered, see :func:`cfctl.viewer.signalling.opened`.
    :raises CfctlError: if it cannot be.
    """
    rtc.gather_loopback()
    rtc.take_frames(_decoder)
    async with signalling.opened(operator, device) as line:
        viewer = Viewer(line, label)
        follower: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_FIRST_S):
                await viewer.begin()
            follower = asyncio.ensure_future(viewer.follow())
            yield viewer
        except TimeoutError as exc:
            raise DeadlinePassed(f"{device} made no offer within {_FIRST_S:g} s") from exc
        finally:
            if follower is not None:
                follower.cancel()
            await viewer.connection.close()
