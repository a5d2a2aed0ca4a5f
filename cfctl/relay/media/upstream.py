"""The relay's own connection to a device: as a client of its streamer, whoever looks at it through the relay."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from aiortc import RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from msgspec import UNSET

from cfctl.relay.media import rtc
from cfctl.relay.media.frames import Pace
from cfctl.relay.media.track import FanTrack
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_channels import CONTROL
from cfctl.wire.webrtc_messages import MalformedMessage, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiortc import RTCDataChannel, RTCRtpTransceiver
    from aiortc.mediastreams import MediaStreamTrack

    from cfctl.relay.media.frames import Frame
    from cfctl.wire.webrtc_messages import IceServer

log = logging.getLogger(__name__)

#: From request-offer to a connection.
CONNECT_S = 15.0

#: Of one connection: each is tried with every address of this host's.
_MOST_CANDIDATES = 100

#: Bytes that wait for a device on one data channel: a photograph, or what adb sends ahead.
_MOST_WAITING = 32 << 20

#: Messages that wait until a data channel is open, and their bytes: a photograph with its end.
_MOST_EARLY = 4097
_MOST_EARLY_BYTES = 17 << 20


class Speaker(Protocol):
    """What carries words to a streamer: a client of ours, or of an operator elsewhere."""

    def say(self, payload: bytes) -> None:
        """Send something to the device."""

    def leave(self) -> None:
        """Be gone."""


class Listener(Protocol):
    """Who wants to know what a device sends."""

    def track_came(self, stream_id: str, kind: str) -> None:
        """Note a display, or a sound."""

    def track_went(self, stream_id: str) -> None:
        """Note that one is no more."""

    def described(self, streams: Iterable[str]) -> None:
        """Note that these are all that there are."""

    def frame(self, stream_id: str, frame: Frame) -> None:
        """Take a frame."""

    def broken(self, stream_id: str) -> None:
        """Note that frames were lost: nothing can be shown before the next key frame."""

    def said(self, label: str, data: bytes | str) -> None:
        """Take a message of a data channel."""

    def limit(self) -> float | None:
        """Return the bits per second that the device should send at most."""

    def media_key_wanted(self, kind: str) -> None:
        """Note that the device needs a key frame of the camera that it is shown."""


class Upstream:
    """One connection.

    :param enter: makes a client of the streamer: what it is told, and what happens when the streamer goes.
    :param media: whether displays and sound are taken.
    """

    def __init__(
        self,
        enter: Callable[[Callable[[bytes], None], Callable[[], None]], Speaker],
        servers: Iterable[IceServer],
        listener: Listener,
        *,
        media: bool = True,
    ) -> None:
        self._listener = listener
        self._media = media
        self._told: asyncio.Queue[bytes | None] = asyncio.Queue(256)
        self._speaker = enter(self._tell, lambda: self._tell(None))
        self._servers = tuple(servers)
        self._pc = rtc.connection(self._servers, offers=False)
        self._tracks: dict[str, tuple[RTCRtpTransceiver, rtc.Receiving]] = {}
        self._channels: dict[str, RTCDataChannel] = {}
        self._waiting: dict[str, list[bytes | str]] = {}
        self._early: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._brought: dict[str, FanTrack | None] = {}
        self._candidates_heard = 0
        self._describing = asyncio.Lock()
        self._offering = asyncio.Lock()
        self._agreed = asyncio.Event()
        self.connected = asyncio.Event()
        #: Whether the device wants no microphone or camera.
        self.refused = False

    def _tell(self, payload: bytes | None) -> None:
        try:
            self._told.put_nowait(payload)
        except asyncio.QueueFull:
            log.warning("a device that says too much is let go of")
            self.end()

    def end(self) -> None:
        """Have the task that runs come to its end."""
        while not self._told.empty():
            self._told.get_nowait()
        self._told.put_nowait(None)

    async def run(self) -> None:
        """Be connected until the device or the connection is gone.

        :raises TimeoutError: if no connection comes about.
        """
        self._pc.on("track", self._on_track)
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("connectionstatechange", self._on_state)
        timer = asyncio.get_running_loop().call_later(CONNECT_S, self._too_late)
        try:
            self._speaker.say(encode(messages.RequestOffer(list(self._servers) or UNSET)))
            while (payload := await self._told.get()) is not None:
                try:
                    found = decode(payload, messages.FromDevice)
                except MalformedMessage as exc:
                    log.info("a device says what it cannot mean: %s", exc)
                    continue
                if isinstance(found, messages.Failure):
                    self.refused = self._pc.signalingState == "have-local-offer"
                    log.info("a device ends the session: %s", found.error)
                    return
                async with self._describing:
                    await self._hear(found)
        finally:
            timer.cancel()
            await self.close()

    def _too_late(self) -> None:
        if not self.connected.is_set():
            self.end()

    async def close(self) -> None:
        """Be gone."""
        self._speaker.leave()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for track in self._brought.values():
            if track is not None:
                track.stop()
        await rtc.closed(self._pc)

    # -- signalling ----------------------------------------------------------------------------------------

    async def _hear(self, found: messages.Offer | messages.Answer | messages.DeviceCandidate) -> None:
        pc = self._pc
        try:
            if isinstance(found, messages.Offer):
                await pc.setRemoteDescription(RTCSessionDescription(found.sdp, "offer"))
                for transceiver in pc.getTransceivers():
                    if transceiver.kind == "video":
                        rtc.only_vp8(transceiver)
                if not self._media:
                    rtc.take_nothing(pc)
                await pc.setLocalDescription(await pc.createAnswer())
                self._speaker.say(encode(messages.Answer(pc.localDescription.sdp)))
                self._look_for_ends()
                self._listener.described(self._tracks)
            elif isinstance(found, messages.Answer):
                await pc.setRemoteDescription(RTCSessionDescription(found.sdp, "answer"))
                self._agreed.set()
            elif isinstance(found, messages.DeviceCandidate) and pc.remoteDescription is not None:
                self._candidates_heard += 1
                if self._candidates_heard > _MOST_CANDIDATES:
                    return
                # What is no candidate raises several kinds of errors, none of which is ours.
                candidate = candidate_from_sdp(found.candidate.partition(":")[2])
                candidate.sdpMid, candidate.sdpMLineIndex = found.mid, found.mline_index
                await pc.addIceCandidate(candidate)
        except Exception as exc:  # noqa: BLE001  whatever aiortc finds in a description that somebody else wrote
            log.warning("a device's %s cannot be used: %r", type(found).__name__.lower(), exc)
            if not isinstance(found, messages.DeviceCandidate):
                self.end()

    @property
    def answered(self) -> bool:
        """Whether the device has offered: data channels can be opened from now on."""
        return self._pc.remoteDescription is not None and self._pc.localDescription is not None

    def _look_for_ends(self) -> None:
        """Notice displays that are no more: there is no event for them."""
        for stream_id, (transceiver, _) in list(self._tracks.items()):
            if transceiver.currentDirection not in ("recvonly", "sendrecv", None):
                del self._tracks[stream_id]
                self._listener.track_went(stream_id)

    def _on_state(self) -> None:
        if self._pc.connectionState == "connected":
            self.connected.set()
        elif self._pc.connectionState in ("failed", "closed"):
            self.end()

    # -- media ---------------------------------------------------------------------------------------------

    def _on_track(self, track: MediaStreamTrack) -> None:
        if not self._media:
            return
        transceiver = next(one for one in self._pc.getTransceivers() if one.receiver.track is track)
        receiving = rtc.Receiving(transceiver.receiver, lambda: self._listener.broken(track.id), self._listener.limit)
        self._tracks[track.id] = transceiver, receiving
        self._listener.track_came(track.id, track.kind)
        self._start(self._drain(track))

    async def _drain(self, track: MediaStreamTrack) -> None:
        """Take frames as they come: aiortc's queue has no bound."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self._listener.frame(track.id, frame)  # type: ignore[arg-type]

    def request_key(self, stream_id: str) -> None:
        """Ask for a key frame of a display."""
        found = self._tracks.get(stream_id)
        if found is not None:
            self._start(found[1].request_key())

    def bring(self, kind: str, frame: Frame) -> None:
        """Send a frame of a microphone (audio) or camera (video) to the device; the first one is announced to it."""
        if kind in self._brought:
            if (track := self._brought[kind]) is not None:
                track.push(frame)
        elif self.connected.is_set():
            self._brought[kind] = None
            self._start(self._offer_to_bring(kind))

    def begin_anew(self, kind: str) -> None:
        """Send nothing of a camera before the next key frame: it is another one now."""
        if (track := self._brought.get(kind)) is not None:
            track.buffer.break_off()

    async def _offer_to_bring(self, kind: str) -> None:
        """Offer to send as well, where the device sends: it takes what comes there for microphone or camera."""
        async with self._offering:
            self._agreed.clear()
            if await self._offer_one(kind):
                # One offer at a time: the answer to it would pass for that to the next one.
                await self._agreed.wait()

    async def _offer_one(self, kind: str) -> bool:
        """Offer; return whether that could be."""
        async with self._describing:
            free = [one for one in self._pc.getTransceivers() if one.kind == kind and one.sender.track is None]
            if not free:
                log.info("the device takes no %s", kind)
                return False
            pace = Pace()
            track = FanTrack(f"brought-{kind}", kind, pace, lambda _slow: self._listener.media_key_wanted(kind))
            free[0].sender.replaceTrack(track)
            free[0].direction = "sendrecv"
            rtc.watch_sender(
                free[0].sender,
                track.id,
                key=lambda: self._listener.media_key_wanted(kind),
                heard=pace.heard,
                measured=pace.measured,
            )
            try:
                await self._pc.setLocalDescription(await rtc.offered_again(self._pc))
            except Exception as exc:  # noqa: BLE001  whatever aiortc finds in what the device described before
                log.warning("nothing can be offered to the device: %r", exc)
                self.end()
                return False
            self._brought[kind] = track
            self._speaker.say(encode(messages.Offer(self._pc.localDescription.sdp)))
            return True

    def _start(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None and not isinstance(exc, ConnectionError):
            log.warning("a device's connection: %r", exc)

    # -- data channels -------------------------------------------------------------------------------------

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == CONTROL:
            self._take(channel)
        # The device creates no other one.

    def _take(self, channel: RTCDataChannel) -> None:
        self._channels[channel.label] = channel

        def opened() -> None:
            self._early.pop(channel.label, None)
            for message in self._waiting.pop(channel.label, []):
                channel.send(message)

        channel.on("message", lambda data: self._said(channel.label, data))
        if channel.readyState == "open":
            opened()
        else:
            channel.on("open", opened)

    def _said(self, label: str, data: bytes | str) -> None:
        # An exception here would end the whole connection (aiortc).
        try:
            self._listener.said(label, data)
        except Exception:
            log.exception("a message on %s", label)

    def open(self, label: str) -> None:
        """Open a data channel, if it is not there."""
        if label != CONTROL and label not in self._channels and self._pc.remoteDescription is not None:
            self._take(self._pc.createDataChannel(label))

    def send(self, label: str, data: bytes | str) -> bool:
        """Send on a data channel; tell whether it could be: what comes before it is open waits, and is not much."""
        self.open(label)
        channel = self._channels.get(label)
        if channel is not None and channel.readyState == "open":
            if channel.bufferedAmount > _MOST_WAITING:
                return False
            channel.send(data)
            return True
        waiting = self._waiting.setdefault(label, [])
        size = self._early.get(label, 0) + len(data)
        if len(waiting) < _MOST_EARLY and size <= _MOST_EARLY_BYTES:
            waiting.append(data)
            self._early[label] = size
            return True
        return False
