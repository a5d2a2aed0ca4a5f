"""One client of the streamer: its WebRTC connection, of which the device makes the offer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.rtcconfiguration import RTCBundlePolicy
from aiortc.sdp import candidate_from_sdp

from cfctl.guest.streamer import display
from cfctl.guest.streamer.gestures import Gestures
from cfctl.wire import rtc
from cfctl.wire import webrtc_channels as channels
from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiortc import RTCDataChannel

    from cfctl.guest.streamer.device import Device

#: A stock streamer's, from adb to the client.
_ADB_CHUNK = 4096
#: What waits to be sent before adb is not read any more, and what waits for adb before it is given up.
_ADB_AHEAD = 1 << 20
_ADB_BEHIND = 4096

_WHAT_AIORTC_RAISES = (InvalidStateError, InvalidAccessError, OperationError, ValueError, OSError)

# A relay on this host needs no other network.
rtc.gather_loopback()


class Peer:
    """One client.

    :param device: what it looks at.
    :param send: sends a payload to it.
    :param closed: called once when the connection is over.
    """

    def __init__(
        self,
        device: Device,
        servers: Iterable[messages.IceServer],
        send: Callable[[Any], Awaitable[None]],
        closed: Callable[[Peer], None],
    ) -> None:
        self._device = device
        self._send = send
        self._on_closed = closed
        self._gestures = Gestures()
        self._candidates: list[messages.Candidate] | None = []
        self._control: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sender: RTCRtpSender | None = None
        self._over = False
        # An empty list means no server at all; None would be a public one.
        configuration = RTCConfiguration(
            [_server(server) for server in servers], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE
        )
        self._connection = RTCPeerConnection(configuration)
        self._track = display.Track(device.display, device.label)
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("datachannel", self._guarded(self._channel))

    # -- signalling ------------------------------------------------------------------------------------------

    async def offer(self) -> None:
        """Make the offer and send it."""
        connection = self._connection
        self._sender = sender = connection.addTrack(self._track)
        # Viewers know displays by the stream's name. aiortc has one random name for all streams of a connection.
        sender._stream_id = self._device.label
        sender._send_keyframe = self._device.display.want_key  # type: ignore[method-assign] # there is no other way
        (transceiver,) = connection.getTransceivers()
        transceiver.direction = "sendonly"
        wanted = ("video/VP8", "video/rtx")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType in wanted])
        self._control = connection.createDataChannel(channels.CONTROL)
        self._control.on("open", self._guarded(self._control_opened))
        self._control.on("message", self._guarded(self._command))
        await connection.setLocalDescription(await connection.createOffer())
        await self._send(messages.Offer(connection.localDescription.sdp))

    async def hear(self, message: messages.FromClient) -> None:
        """Take what the client says.

        :raises ValueError: if it cannot be meant; the session goes on.
        """
        try:
            match message:
                case messages.Answer(sdp=sdp):
                    await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
                    waiting, self._candidates = self._candidates, None
                    for candidate in waiting or ():
                        await self._add(candidate)
                case messages.ClientCandidate(candidate=candidate):
                    if self._candidates is None:
                        await self._add(candidate)
                    elif len(self._candidates) < 100:
                        self._candidates.append(candidate)
                case messages.Offer(sdp=sdp):
                    await self._answer(sdp)
                case messages.Failure(error=error):
                    self._device.say(f"a client says: {error[:200]}")
                    await self.close()
        except _WHAT_AIORTC_RAISES as error:
            raise ValueError(f"{type(message).__name__}: {error!r}") from error
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
            # aiortc's parser of descriptions trusts them.
            raise ValueError(f"{type(message).__name__} that cannot be read: {error!r}") from error

    async def _add(self, candidate: messages.Candidate) -> None:
        found = candidate_from_sdp(candidate.candidate.partition(":")[2])
        found.sdpMid, found.sdpMLineIndex = candidate.sdp_mid, candidate.sdp_mline_index
        await self._connection.addIceCandidate(found)

    async def _answer(self, sdp: str) -> None:
        """Take a client's offer, of a microphone or camera: the guest has neither."""
        await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        for transceiver in self._connection.getTransceivers():
            if transceiver.sender is not self._sender:
                transceiver.direction = "inactive"
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        await self._send(messages.Answer(self._connection.localDescription.sdp))

    # -- life ------------------------------------------------------------------------------------------------

    async def _state_changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            await self.close()

    async def close(self) -> None:
        """End the connection; what the client held down is let go."""
        if self._over:
            return
        self._over = True
        self._device.feel(self._gestures.let_go())
        self._track.stop()
        self._on_closed(self)
        me = asyncio.current_task()
        for task in self._tasks:
            if task is not me:
                task.cancel()
        await self._connection.close()

    def _guarded(self, handler: Callable[..., None]) -> Callable[..., None]:
        """Return a handler that raises nothing: what escapes from one ends the whole connection in aiortc."""

        def call(*arguments: Any) -> None:
            try:
                handler(*arguments)
            except ValueError as error:
                self._device.say(f"a client's message is left out: {str(error)[:300]}")
            except Exception as error:  # noqa: BLE001 (see above; nothing is hidden)
                self._device.say(f"a client's message was not understood: {error!r}")

        return call

    # -- data channels ---------------------------------------------------------------------------------------

    def tell(self, event: channels.Event) -> None:
        """Tell the client what has happened to the device."""
        if self._control is not None and self._control.readyState == "open":
            self._control.send(_indented(event))

    def _control_opened(self) -> None:
        for event in self._device.events():
            self.tell(event)

    def _command(self, text: str | bytes) -> None:
        match channels.read_command(text):
            case channels.Press(command=command, button_state=state):
                events = self._gestures.press(command, down=state == "down")
                if not events:
                    raise ValueError(f"there is no button {command!r}")
                self._device.feel(events)
            case channels.RefreshDisplay():
                self._device.display.want_key()
            case other:
                raise ValueError(f"this VM cannot do {type(other).__name__}")

    def _channel(self, channel: RTCDataChannel) -> None:
        if channel.label == channels.INPUT:
            channel.on("message", self._guarded(self._input))
        elif channel.label == channels.ADB:
            bridge = AdbBridge(channel, self._device.adb_port)
            channel.on("message", self._guarded(bridge.take))
            self._begin(bridge.run())
        else:
            self._device.say(f"a client's channel {channel.label[:50]!r} leads nowhere")

    def _input(self, text: str | bytes) -> None:
        if not isinstance(text, str):
            raise ValueError("input is text")  # noqa: TRY004 (what comes from outside is wrong in value)
        self._device.feel(self._gestures.read(channels.read_input(text), self._device.display.size))

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class AdbBridge:
    """The bytes of an adb channel, to the guest's adbd and back; the connection is made by the first of them."""

    def __init__(self, channel: RTCDataChannel, port: int) -> None:
        self._channel = channel
        self._port = port
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_ADB_BEHIND)

    def take(self, data: bytes | str) -> None:
        """Take what the client sends.

        :raises ValueError: if it is text, or adb has not taken what came before.
        """
        if not isinstance(data, bytes):
            raise ValueError("adb is bytes")  # noqa: TRY004 (what comes from outside is wrong in value)
        try:
            self._waiting.put_nowait(data)
        except asyncio.QueueFull:
            self._channel.close()
            raise ValueError("adb does not take what a client sends") from None

    async def run(self) -> None:
        """Carry bytes until either end has gone."""
        first = await self._waiting.get()
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            back = asyncio.ensure_future(self._back(reader))
            try:
                writer.write(first)
                while not back.done():
                    await writer.drain()
                    nxt = asyncio.ensure_future(self._waiting.get())
                    await asyncio.wait((nxt, back), return_when=asyncio.FIRST_COMPLETED)
                    if not nxt.done():
                        nxt.cancel()
                        break
                    writer.write(nxt.result())
            finally:
                back.cancel()
                writer.close()
        self._channel.close()

    async def _back(self, reader: asyncio.StreamReader) -> None:
        drained = asyncio.Event()
        self._channel.bufferedAmountLowThreshold = _ADB_AHEAD // 2
        self._channel.on("bufferedamountlow", drained.set)
        while data := await reader.read(_ADB_CHUNK):
            if self._channel.readyState != "open":
                return
            self._channel.send(data)
            while self._channel.bufferedAmount > _ADB_AHEAD:
                drained.clear()
                await drained.wait()


def _server(server: messages.IceServer) -> RTCIceServer:
    return RTCIceServer(
        urls=server.urls,
        username=server.username if isinstance(server.username, str) else None,
        credential=server.credential if isinstance(server.credential, str) else None,
    )


def _indented(event: channels.Event) -> str:
    """Return an event as a stock streamer writes it."""
    return msgspec.json.format(msgspec.json.encode(event), indent=4).decode().replace("    ", "\t")
