"""One viewer of a device: a peer connection of its own, to which encoded frames are passed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from aiortc import RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp

from cfctl.relay.media import rtc
from cfctl.relay.media.frames import Buffer, Frame, Pace
from cfctl.relay.media.track import FanTrack
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_channels import CONTROL
from cfctl.wire.webrtc_messages import MalformedMessage, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection, RTCRtpTransceiver

    from cfctl.wire.webrtc_messages import IceServer

log = logging.getLogger(__name__)

#: Bytes that wait for a viewer on all of his data channels; one who reads nothing misses what comes then.
_MOST_WAITING = 1 << 20

#: Of one stream (adb, Bluetooth), of which nothing may be left out; who is further behind has it ended.
_MOST_STREAMED = 32 << 20

#: Of one connection: each is tried with every address of this host's. A browser has some for each of its own.
_MOST_CANDIDATES = 100

#: From the offer to a connection; a page that never answers is given up.
_CONNECT_S = 30.0


class Watched(Protocol):
    """What a viewer looks at."""

    async def ready(self) -> None:
        """Wait a while until it is known which streams there are."""

    def tracks(self) -> dict[str, str]:
        """Return the streams that there are, and the kind of each."""

    def key_wanted(self, stream_id: str, *, slow: bool) -> None:
        """Note that somebody can show nothing before the next key frame; slow ones are asked for less often."""

    def heard(self, viewer: Viewer, label: str, data: bytes | str) -> None:
        """Take what a viewer says on a data channel."""

    def opened(self, viewer: Viewer, label: str) -> None:
        """Note a data channel that a viewer has opened."""

    def closed(self, viewer: Viewer, label: str) -> None:
        """Note that a data channel of a viewer's is closed, or another one stands in its place."""

    def brought(self, viewer: Viewer, kinds: set[str]) -> None:
        """Note the microphone (audio) and camera (video) that a viewer has now."""

    def media(self, viewer: Viewer, kind: str, frame: Frame) -> None:
        """Take a frame of a viewer's microphone or camera."""

    def left(self, viewer: Viewer) -> None:
        """Note that a viewer is gone."""


class Viewer:
    """One viewer.

    :param id: names it to the others.
    :param name: who it is, for people.
    :param told: called with each payload of the signalling that goes to it.
    :param lost: called when it is gone, whoever ended it.
    """

    def __init__(
        self,
        id_: int,
        name: str,
        watched: Watched,
        servers: Iterable[IceServer],
        told: Callable[[bytes], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = id_
        self.name = name
        self.pace = Pace()
        self._watched = watched
        self._servers = tuple(servers)
        self._told = told
        self._said: asyncio.Queue[messages.FromClient | None] = asyncio.Queue(256)
        self._pc: RTCPeerConnection | None = None
        self._tracks: dict[str, FanTrack] = {}
        self._channels: dict[str, RTCDataChannel] = {}
        self._candidates: list[messages.Candidate] = []
        self._candidates_heard = 0
        self._brings: dict[str, rtc.Receiving] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered = True
        self._again = False
        self._deadline: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run())
        self._lost = lost
        # One that is ended before it has begun runs no ``finally``.
        self._task.add_done_callback(self._over)

    @property
    def buffers(self) -> dict[str, Buffer]:
        """What waits for it, per stream."""
        return {stream_id: track.buffer for stream_id, track in self._tracks.items()}

    @property
    def sent(self) -> int:
        """How many frames went to it."""
        return sum(track.sent for track in self._tracks.values())

    # -- what the signalling does ----------------------------------------------------------------------------

    def say(self, payload: bytes) -> None:
        """Take what the viewer says.

        :raises MalformedMessage: if it is nothing that a client may say there now.
        """
        found = decode(payload, messages.FromClient)
        if self._pc is None and not isinstance(found, messages.RequestOffer) and self._said.empty():
            raise MalformedMessage("the first thing that a client says is request-offer")
        try:
            self._said.put_nowait(found)
        except asyncio.QueueFull:
            raise MalformedMessage("too much at once") from None

    def leave(self) -> None:
        """Be gone."""
        self._task.cancel()

    def _over(self, _: asyncio.Task[None]) -> None:
        self._watched.left(self)
        self._lost()

    async def wait(self) -> None:
        """Wait until it is gone."""
        await asyncio.gather(self._task, return_exceptions=True)

    # -- what the device does ------------------------------------------------------------------------------

    def frame(self, stream_id: str, frame: Frame) -> None:
        """Pass a frame on."""
        track = self._tracks.get(stream_id)
        if track is not None and self._connected:
            track.push(frame)

    def broken(self, stream_id: str) -> None:
        """Show nothing of a stream before its next key frame."""
        if (track := self._tracks.get(stream_id)) is not None:
            track.buffer.break_off()

    def tracks_changed(self) -> None:
        """Offer what there is now."""
        if self._pc is None:
            return
        self._again = True
        # Where there is no room, there is more to be done, after which it is looked what has changed.
        with contextlib.suppress(asyncio.QueueFull):
            self._said.put_nowait(None)

    def send(self, label: str, data: bytes | str) -> None:
        """Send on a data channel, if it is open and the viewer reads."""
        channel = self._channels.get(label)
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < _MOST_WAITING:
            channel.send(data)

    def pass_on(self, label: str, data: bytes | str) -> bool:
        """Send a piece of a stream; tell whether it could be: what is left out breaks a stream."""
        channel = self._channels.get(label)
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > _MOST_STREAMED:
            return False
        channel.send(data)
        return True

    def close_channel(self, label: str) -> None:
        """Tell a viewer that a stream has ended."""
        channel = self._channels.pop(label, None)
        if channel is not None:
            channel.close()

    def media_key_wanted(self, kind: str) -> None:
        """Ask for a key frame of his camera."""
        if (receiving := self._brings.get(kind)) is not None:
            self._start(receiving.request_key())

    def has(self, label: str) -> bool:
        """Tell whether the viewer has a data channel open."""
        channel = self._channels.get(label)
        return channel is not None and channel.readyState == "open"

    # -- its life ------------------------------------------------------------------------------------------

    @property
    def _connected(self) -> bool:
        return self._pc is not None and self._pc.connectionState == "connected"

    async def _run(self) -> None:
        try:
            while True:
                found = await self._said.get()
                try:
                    await self._do(found)
                    await self._offer_changes()
                except asyncio.CancelledError:
                    raise
                except Exception as exc:  # noqa: BLE001  whatever aiortc finds in what a viewer wrote
                    log.info("viewer %d: %r", self.id, exc)
                    self._told(encode(messages.Failure(f"that cannot be used: {exc}"[:500])))
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._watched.left(self)
            for task in list(self._tasks):
                task.cancel()
            if self._pc is not None:
                await rtc.closed(self._pc)

    async def _do(self, found: messages.FromClient | None) -> None:
        if found is None:
            return
        if isinstance(found, messages.RequestOffer):
            await self._begin()
        elif isinstance(found, messages.Answer):
            await self._take_answer(found)
        elif isinstance(found, messages.ClientCandidate):
            self._candidates_heard += 1
            if self._candidates_heard > _MOST_CANDIDATES:
                return
            if self._pc is not None and self._pc.remoteDescription is not None:
                await self._add(found.candidate)
            else:
                self._candidates.append(found.candidate)
        elif isinstance(found, messages.Offer):
            await self._take_offer(found)
        else:
            log.info("viewer %d: %s", self.id, found.error[:200])

    async def _begin(self) -> None:
        """Make a new connection, and offer what there is."""
        if self._pc is not None:
            before, self._pc = self._pc, None
            before.remove_all_listeners()
            await rtc.closed(before)
        self._tracks.clear()
        for label in list(self._channels):
            self._watched.closed(self, label)
        self._channels.clear()
        self._candidates.clear()
        self._candidates_heard = 0
        self._brings.clear()
        self._watched.brought(self, set())
        await self._watched.ready()
        pc = self._pc = rtc.connection(self._servers, offers=True)
        pc.on("datachannel", self._on_channel)
        pc.on("track", lambda track: self._on_track(pc, track))
        pc.on("connectionstatechange", lambda: self._on_state(pc))
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(_CONNECT_S, self._too_late, pc)
        self._again = False
        self._add_tracks()
        self._take(pc.createDataChannel(CONTROL))
        await self._offer(pc)

    def _too_late(self, pc: RTCPeerConnection) -> None:
        if pc is self._pc and pc.connectionState != "connected":
            self._told(encode(messages.Failure("no connection came about")))
            self.leave()

    def _add_tracks(self) -> bool:
        """Add what is not there yet; return whether anything changed."""
        pc = self._pc
        if pc is None:
            return False
        there = self._watched.tracks()
        changed = False
        for stream_id, kind in there.items():
            if stream_id in self._tracks:
                continue
            track = self._track(stream_id, kind)
            transceiver = pc.addTransceiver(track, direction="sendonly")
            if kind == "video":
                transceiver.setCodecPreferences(rtc.vp8_preferences())
            rtc.watch_sender(
                transceiver.sender,
                stream_id,
                key=lambda stream_id=stream_id: self._key(stream_id, slow=False),  # type: ignore[misc]
                heard=self._heard,
                measured=self.pace.measured,
            )
            changed = True
        for stream_id in [one for one in self._tracks if one not in there]:
            track = self._tracks.pop(stream_id)
            for transceiver in pc.getTransceivers():
                if transceiver.sender.track is track:
                    transceiver.direction = "inactive"
            track.stop()
            changed = True
        return changed

    def _heard(self) -> None:
        silent = self.pace.silent
        self.pace.heard()
        if silent:
            # He was frozen: he goes on with a whole picture.
            for stream_id, track in self._tracks.items():
                if track.kind == "video":
                    track.buffer.break_off()
                    self._key(stream_id, slow=False)

    def _track(self, stream_id: str, kind: str) -> FanTrack:
        def wanted(slow: bool) -> None:  # noqa: FBT001
            self._key(stream_id, slow=slow)

        track = self._tracks[stream_id] = FanTrack(stream_id, kind, self.pace, wanted)
        return track

    def _key(self, stream_id: str, *, slow: bool) -> None:
        self._watched.key_wanted(stream_id, slow=slow)

    async def _offer(self, pc: RTCPeerConnection) -> None:
        self._answered = False
        again = pc.remoteDescription is not None
        await pc.setLocalDescription(await (rtc.offered_again(pc) if again else pc.createOffer()))
        self._told(encode(messages.Offer(pc.localDescription.sdp)))

    async def _offer_changes(self) -> None:
        """Offer again, if there is anything new, and once the last offer is answered."""
        if self._again and self._pc is not None and self._answered:
            self._again = False
            if self._add_tracks():
                await self._offer(self._pc)

    async def _take_answer(self, answer: messages.Answer) -> None:
        if self._pc is None or self._answered:
            return
        await self._pc.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        self._answered = True
        waiting, self._candidates = self._candidates, []
        for candidate in waiting:
            await self._add(candidate)

    async def _take_offer(self, offer: messages.Offer) -> None:
        """Answer a viewer who brings, or takes away, a microphone or camera."""
        pc = self._pc
        if pc is None:
            return
        if not self._answered:
            # Both have offered. He answers ours, as browsers do, and offers again.
            log.info("viewer %d: an offer that crossed ours", self.id)
            return
        await pc.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        rtc.take_what_is_brought(pc)
        await pc.setLocalDescription(await pc.createAnswer())
        self._told(encode(messages.Answer(pc.localDescription.sdp)))
        self._watched.brought(self, {one.kind for one in pc.getTransceivers() if _brings(one)})

    def _on_track(self, pc: RTCPeerConnection, track: MediaStreamTrack) -> None:
        transceiver = next(one for one in pc.getTransceivers() if one.receiver.track is track)

        def lost() -> None:
            self.media_key_wanted(track.kind)

        receiving = rtc.Receiving(transceiver.receiver, lost, lambda: None)
        counts = self._brings.setdefault(track.kind, receiving) is receiving
        self._start(self._drain(track, counts=counts))

    async def _drain(self, track: MediaStreamTrack, *, counts: bool) -> None:
        """Take frames as they come: aiortc's queue has no bound.

        :param counts: whether they are of use: a device has one microphone and one camera.
        """
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if counts:
                self._watched.media(self, track.kind, frame)  # type: ignore[arg-type]

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None and not isinstance(exc, ConnectionError):
            log.warning("viewer %d: %r", self.id, exc)

    async def _add(self, found: messages.Candidate) -> None:
        if self._pc is None:
            return
        try:
            candidate = candidate_from_sdp(found.candidate.partition(":")[2])
            candidate.sdpMid, candidate.sdpMLineIndex = found.sdp_mid, found.sdp_mline_index
            await self._pc.addIceCandidate(candidate)
        except Exception as exc:  # noqa: BLE001  a candidate is a hint; one that cannot be used ends nothing
            log.info("viewer %d: a candidate that cannot be used: %r", self.id, exc)

    def _on_state(self, pc: RTCPeerConnection) -> None:
        if pc is not self._pc:
            return
        if pc.connectionState == "connected":
            self.pace.heard()
            for stream_id, track in self._tracks.items():
                if track.kind == "video":
                    self._key(stream_id, slow=False)
        elif pc.connectionState in ("failed", "closed"):
            self.leave()

    # -- data channels -------------------------------------------------------------------------------------

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._take(channel)

    def _take(self, channel: RTCDataChannel) -> None:
        label = channel.label
        if label in self._channels:
            self._watched.closed(self, label)
        if len(self._channels) >= 32:
            return
        self._channels[label] = channel

        def heard(data: bytes | str) -> None:
            # An exception here would end the whole connection (aiortc).
            try:
                self.pace.heard()
                # Of one that was closed something may still be on its way.
                if self._channels.get(label) is channel:
                    self._watched.heard(self, label, data)
            except Exception:
                log.exception("viewer %d on %s", self.id, label)

        def opened() -> None:
            try:
                self._watched.opened(self, label)
            except Exception:
                log.exception("viewer %d opens %s", self.id, label)

        def closed() -> None:
            if self._channels.get(label) is channel:
                del self._channels[label]
                self._watched.closed(self, label)

        channel.on("message", heard)
        channel.on("close", closed)
        if channel.readyState == "open":
            opened()
        else:
            channel.on("open", opened)


def _brings(transceiver: RTCRtpTransceiver) -> bool:
    return transceiver.currentDirection in ("recvonly", "sendrecv")
