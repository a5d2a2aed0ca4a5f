"""A device and all who look at it: one connection to the device, however many viewers there are.

The connection is made when the first viewer comes, and ended a while after the last one has left. Frames are passed
on as they came. What viewers send is read first: a stock streamer aborts at some of what it cannot read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from cfctl.errors import RelayBusy
from cfctl.relay.media.frames import Frame
from cfctl.relay.media.hands import Hands, Mode
from cfctl.relay.media.lane import Lane
from cfctl.relay.media.photo import Photos
from cfctl.relay.media.sources import Sources
from cfctl.relay.media.stream import Stream
from cfctl.relay.media.upstream import CONNECT_S, Speaker, Upstream
from cfctl.relay.media.viewer import Viewer
from cfctl.relay.streamers import TooMany
from cfctl.wire import webrtc_channels as channels
from cfctl.wire.webrtc_messages import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.wire.webrtc_messages import IceServer

log = logging.getLogger(__name__)

#: The relay's own data channel, which our page opens: who controls, and how far away the relay is.
HANDS = "cfctl-control"

#: How long a device stays connected without viewers: a page that is loaded again finds it as it was.
_LINGER_S = 10.0

#: Between two attempts to connect, at first and at most.
_RETRY_S = (0.5, 10.0)

#: Between two requests for a key frame, of viewers who come, and of those who are slow.
_KEY_S, _SLOW_KEY_S = 0.3, 2.0

#: Each costs a connection, and the sending of every frame. Those who only look leave room for those who may control.
_MOST_VIEWERS = 64
_MOST_LOOKERS = 48

#: How old a picture in a list may be.
_PICTURE_S = 4.0

#: Beyond the viewers' own: what devices say on these channels is for all, and the last of it for those who come.
_SHARED = (channels.SENSORS, channels.LIGHTS)

#: Kinds of events that are kept; a stock streamer has seven, and one for each display.
_MOST_EVENTS = 64

#: What those who control may send on channels that nobody reads here.
_PASSED = {channels.KML, channels.GPX}

#: One stream of bytes for each client of a device: each viewer has a connection of his own for these.
_STREAMS = {channels.ADB, channels.BLUETOOTH}

#: Of such connections, of all viewers.
_MOST_LANES = 32


class Hub:
    """One device.

    :param enter: makes a client of its streamer.
    :param servers: STUN and TURN, as they are now.
    :param mode: whether one viewer controls at a time, or all that may.
    """

    def __init__(
        self,
        enter: Callable[[Callable[[bytes], None], Callable[[], None]], Speaker],
        servers: Callable[[], Iterable[IceServer]],
        mode: Mode = "one",
    ) -> None:
        self._enter = enter
        self._servers = servers
        self._hands = Hands(mode)
        self._viewers: dict[int, Viewer] = {}
        self._ids = itertools.count(1)
        self._streams: dict[str, Stream] = {}
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._connected = asyncio.Event()
        self._there = asyncio.Event()
        self._events: dict[str, bytes | str] = {}
        self._shared: dict[str, bytes | str] = {}
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._photos = Photos()
        self._sources = Sources(self._hands.counts)
        self._feeds: dict[str, Stream] = {}
        self._takes_media = True
        self._camera_asked_at = 0.0
        #: Messages of viewers that were no messages.
        self.refused = 0

    # -- viewers -------------------------------------------------------------------------------------------

    def watch(
        self,
        name: str,
        *,
        may_control: bool,
        told: Callable[[bytes], None],
        lost: Callable[[], None] = lambda: None,
    ) -> Viewer:
        """Return a new viewer; the signalling goes on with him.

        :param lost: called when he is gone: nothing that is said for him then is heard.
        :raises RelayBusy: if there are as many as may be.
        """
        lookers = sum(not self._hands.may(one) for one in self._viewers)
        if len(self._viewers) >= _MOST_VIEWERS or (not may_control and lookers >= _MOST_LOOKERS):
            raise RelayBusy(f"{len(self._viewers)} look at the device", None, "Close some of its pages.")
        viewer = Viewer(next(self._ids), name, self, self._servers(), told, lost)
        self._viewers[viewer.id] = viewer
        self._hands.enter(viewer.id, may_control=may_control)
        self._wanted()
        self._tell_hands()
        return viewer

    def _wanted(self) -> None:
        """Be connected from now on."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._stay_connected())

    def _unwanted(self) -> None:
        """Let go of the device some time after the last viewer."""
        if not self._viewers and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(_LINGER_S, self._rest)

    def left(self, viewer: Viewer) -> None:
        """Forget a viewer: let go of what he held, and of the device some time after the last one."""
        if self._viewers.pop(viewer.id, None) is None:
            return
        self._let_go(*self._hands.leave(viewer.id))
        self._photos.forget(viewer.id)
        self._sources.put(viewer.id, set())
        for label in _STREAMS:
            self._end_lane(viewer.id, label)
        self._tell_hands()
        self._unwanted()

    def _rest(self) -> None:
        self._idle = None
        if not self._viewers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End everything."""
        if self._idle is not None:
            self._idle.cancel()
        viewers = list(self._viewers.values())
        for viewer in viewers:
            viewer.leave()
        await asyncio.gather(*(viewer.wait() for viewer in viewers))
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.gather(*self._ending)
        for stream in self._streams.values():
            if stream.asking is not None:
                stream.asking.cancel()

    async def _stay_connected(self) -> None:
        """Be connected to the device, again and again, as long as somebody looks."""
        delay = _RETRY_S[0]
        while True:
            upstream = None
            try:
                upstream = self._upstream = Upstream(self._enter, self._servers(), self)
                for stream in (*self._streams.values(), *self._feeds.values()):
                    stream.restarted()
                self._sources.restarted()
                await upstream.run()
            except (LookupError, ConnectionError, TooMany) as exc:
                log.info("no connection to the device: %s", exc)
            except Exception:
                # Whoever looks has nobody else who would try again.
                log.exception("the connection to the device")
            finally:
                # Its end takes a while, in which another one may have begun.
                if self._upstream is upstream:
                    self._connected.clear()
                    self._upstream = None
                    self._interrupted()
            if upstream is not None and upstream.connected.is_set():
                delay = _RETRY_S[0]
            if upstream is not None and upstream.refused:
                self._takes_media = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._there.wait()
            self._there.clear()
            delay = min(2 * delay, _RETRY_S[1])

    def _interrupted(self) -> None:
        """Begin anew: nothing of the next connection is shown before its first key frame, it may begin amid a frame.

        The device tells again what it has said.
        """
        self._events.clear()
        self._shared.clear()
        for viewer in self._viewers.values():
            for stream_id in self._streams:
                viewer.broken(stream_id)

    def returned(self) -> None:
        """Note that the device's streamer is there again."""
        self._takes_media = True
        self._there.set()

    # -- what viewers look at ------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until the device has said which streams it has, or a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._connected.wait()

    def tracks(self) -> dict[str, str]:
        """Return the streams that there are, and the kind of each."""
        return {stream_id: stream.kind for stream_id, stream in sorted(self._streams.items())}

    def key_wanted(self, stream_id: str, *, slow: bool) -> None:
        """Ask for a key frame once for all who want one, and not too often."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.kind != "video":
            return
        stream.wanted += 1
        if stream.asking is not None:
            if slow or not stream.asking_slowly:
                return
            # Nobody waits for those who are slow.
            stream.asking.cancel()
        stream.asking_slowly = slow
        passed = time.monotonic() - stream.asked_at
        wait = max(0.0, (_SLOW_KEY_S if slow else _KEY_S) - passed)
        stream.asking = asyncio.get_running_loop().call_later(wait, self._ask, stream_id, stream)

    def _ask(self, stream_id: str, stream: Stream) -> None:
        stream.asking = None
        stream.asked_at = time.monotonic()
        stream.asked += 1
        if self._upstream is not None:
            self._upstream.request_key(stream_id)

    async def picture(self, seconds: float) -> Frame | None:
        """Return a key frame of the first display, if one comes in time; the device is connected to for it."""
        self._wanted()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._connected.wait()
                    return await self._picture()
            return None
        finally:
            self._unwanted()

    async def _picture(self) -> Frame | None:
        displays = [(name, one) for name, one in sorted(self._streams.items()) if one.kind == "video"]
        if not displays:
            return None
        name, stream = displays[0]
        while stream.last_key is None or time.monotonic() - stream.last_key.at > _PICTURE_S:
            self.key_wanted(name, slow=True)
            await asyncio.sleep(0.1)
        return stream.last_key

    # -- what the device does ------------------------------------------------------------------------------

    def track_came(self, stream_id: str, kind: str) -> None:
        """Note a display, or a sound."""
        known = self._streams.get(stream_id)
        if known is None or known.kind != kind:
            self._streams[stream_id] = Stream(kind)
            for viewer in self._viewers.values():
                viewer.tracks_changed()

    def described(self, streams: Iterable[str]) -> None:
        """Note that the device has said what it has."""
        for stream_id in set(self._streams) - set(streams):
            self.track_went(stream_id)
        self._connected.set()
        for label in _SHARED:
            if any(viewer.has(label) for viewer in self._viewers.values()):
                self._open_shared(label)

    def track_went(self, stream_id: str) -> None:
        """Note that one is no more."""
        if self._streams.pop(stream_id, None) is not None:
            for viewer in self._viewers.values():
                viewer.tracks_changed()

    def frame(self, stream_id: str, frame: Frame) -> None:
        """Pass a frame on to everybody."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        placed = stream.placed(frame)
        for viewer in self._viewers.values():
            viewer.frame(stream_id, placed)

    def broken(self, stream_id: str) -> None:
        """Have nothing shown before the next key frame, and ask for it."""
        for viewer in self._viewers.values():
            viewer.broken(stream_id)
        self.key_wanted(stream_id, slow=False)

    def limit(self) -> float | None:
        """Return what the slowest viewer who controls can take; while nobody does, of those who may."""
        viewers = [one for one in self._viewers.values() if not one.pace.silent and one.pace.rate is not None]
        for counts in (self._hands.counts, self._hands.may):
            rates = [one.pace.rate for one in viewers if counts(one.id) and one.pace.rate is not None]
            if rates:
                return min(rates)
        return None

    def said(self, label: str, data: bytes | str) -> None:
        """Pass on what the device says."""
        if label == channels.CONTROL:
            try:
                kind = channels.kind_of(channels.read_event(data))
            except MalformedMessage as exc:
                log.info("the device says what it cannot mean: %s", exc)
                return
            # The latest is the last that is told: a camera that was stopped may run again.
            self._events.pop(kind, None)
            if len(self._events) >= _MOST_EVENTS:
                del self._events[next(iter(self._events))]
            self._events[kind] = data
        elif label in _SHARED:
            self._shared[label] = data
        for viewer in self._viewers.values():
            if label == channels.CONTROL or label in _SHARED or self._hands.counts(viewer.id):
                viewer.send(label, data)

    # -- what viewers do -----------------------------------------------------------------------------------

    def opened(self, viewer: Viewer, label: str) -> None:
        """Tell a viewer what was said before he came."""
        if label == channels.CONTROL:
            for event in self._events.values():
                viewer.send(label, event)
        elif label == HANDS:
            self._tell_hands()
        elif label in _SHARED:
            if label in self._shared:
                viewer.send(label, self._shared[label])
            self._open_shared(label)

    def closed(self, viewer: Viewer, label: str) -> None:
        """End what went over a channel that a viewer has closed."""
        if label in _STREAMS:
            self._end_lane(viewer.id, label)

    def _open_shared(self, label: str) -> None:
        if self._upstream is not None:
            self._upstream.open(label)

    def heard(self, viewer: Viewer, label: str, data: bytes | str) -> None:
        """Do what a viewer wants, if he may."""
        try:
            if label == HANDS:
                self._hear_hands(viewer, data)
            elif label == channels.ADB and self._hands.may(viewer.id):
                # Whoever may control may have adb as well, whosever hands are on the device.
                self._hear_stream(viewer, label, data)
            elif not self._hands.may(viewer.id):
                self.refused += 1
            else:
                self._hear(viewer, label, data)
        except MalformedMessage as exc:
            self.refused += 1
            log.info("viewer %d on %s: %s", viewer.id, label, exc)

    def _hear(self, viewer: Viewer, label: str, data: bytes | str) -> None:
        if not self._controls(viewer):
            return
        if label == channels.INPUT:
            if isinstance(data, bytes):
                raise MalformedMessage("input is text")
            message = self._hands.input(viewer.id, channels.read_input(data))
            if message is not None:
                self._send(label, channels.write(message))
        elif label == channels.CONTROL:
            command = channels.read_command(data)
            if self._hands.press(viewer.id, command):
                self._send(label, channels.write(command))
        elif label == channels.SENSORS:
            self._send(label, channels.write_angles(*channels.read_angles(data)))
        elif label == channels.LOCATION:
            self._send(label, channels.write_location(*channels.read_location(data)))
        elif label in _STREAMS:
            self._hear_stream(viewer, label, data)
        elif label == channels.CAMERA:
            for piece in self._photos.take(viewer.id, data):
                self._send(label, piece)
        elif label in _PASSED:
            self._send(label, data)
        else:
            self.refused += 1

    def _hear_stream(self, viewer: Viewer, label: str, data: bytes | str) -> None:
        """Pass on a piece of a viewer's own stream."""
        if isinstance(data, str):
            raise MalformedMessage(f"{label} is binary")
        lane = self._lanes.get((viewer.id, label))
        if lane is None:
            if len(self._lanes) >= _MOST_LANES:
                viewer.close_channel(label)
                raise MalformedMessage(f"there are {_MOST_LANES} of these already")

            def said(label_: str, what: bytes | str) -> None:
                if label_ == label and not viewer.pass_on(label, what):
                    self._end_lane(viewer.id, label)

            def ended() -> None:
                if self._lanes.pop((viewer.id, label), None) is not None:
                    viewer.close_channel(label)

            try:
                lane = self._lanes[viewer.id, label] = Lane(self._enter, self._servers(), said, ended)
            except (LookupError, TooMany) as exc:
                viewer.close_channel(label)
                raise MalformedMessage(str(exc)) from exc
        if not lane.send(label, data):
            self._end_lane(viewer.id, label)

    def _end_lane(self, viewer: int, label: str) -> None:
        lane = self._lanes.pop((viewer, label), None)
        if lane is None:
            return
        task = asyncio.create_task(lane.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        if viewer in self._viewers:
            self._viewers[viewer].close_channel(label)

    # -- microphones and cameras ---------------------------------------------------------------------------

    def brought(self, viewer: Viewer, kinds: set[str]) -> None:
        """Note what a viewer brings; he controls the device with it, if nobody else does."""
        if kinds:
            self._controls(viewer)
        self._sources.put(viewer.id, kinds)

    def media(self, viewer: Viewer, kind: str, frame: Frame) -> None:
        """Pass on a frame of whoever controls."""
        if self._sources.of(kind) != viewer.id:
            self._sources.interrupted(kind, viewer.id)
            return
        if self._upstream is None or not self._takes_media:
            return
        feed = self._feeds.setdefault(kind, Stream(kind))
        if self._sources.changed(kind):
            feed.restarted()
            if kind == "video":
                self._upstream.begin_anew(kind)
                viewer.media_key_wanted(kind)
        self._upstream.bring(kind, feed.placed(frame))

    def media_key_wanted(self, kind: str) -> None:
        """Ask whoever's camera is shown for a key frame."""
        viewer = self._viewers.get(self._sources.of(kind) or 0)
        if viewer is not None and time.monotonic() - self._camera_asked_at > _KEY_S:
            self._camera_asked_at = time.monotonic()
            viewer.media_key_wanted(kind)

    def _controls(self, viewer: Viewer) -> bool:
        before = self._hands.holder
        holder = self._viewers.get(before or 0)
        if holder is not None and holder.pace.silent:
            # His page is gone, or frozen: nobody need wait until his connection is given up.
            self._let_go(*self._hands.take(viewer.id))
        may = self._hands.controls(viewer.id)
        if self._hands.holder != before:
            self._tell_hands()
        return may

    def _hear_hands(self, viewer: Viewer, data: bytes | str) -> None:
        try:
            told: Any = json.loads(data)
            kind = told["type"]
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise MalformedMessage(str(exc)) from exc
        if kind == "ping":
            at = told.get("at")
            viewer.send(HANDS, json.dumps({"type": "pong", "at": at if isinstance(at, int | float) else 0}))
        elif kind == "take":
            self._let_go(*self._hands.take(viewer.id))
            self._tell_hands()
        elif kind == "give":
            self._let_go(*self._hands.give(viewer.id))
            self._tell_hands()
        else:
            raise MalformedMessage("there is no such wish")

    def _let_go(self, inputs: list[channels.Input], presses: list[channels.Press]) -> None:
        for message in inputs:
            self._send(channels.INPUT, channels.write(message))
        for press in presses:
            self._send(channels.CONTROL, channels.write(press))

    def _send(self, label: str, data: bytes | str) -> None:
        # Input that comes late is worth nothing: a finger that was down when the device was away is no finger now.
        if self._upstream is not None and (label != channels.INPUT or self._upstream.connected.is_set()):
            self._upstream.send(label, data)

    def _tell_hands(self) -> None:
        """Tell everybody who controls."""
        holder = self._hands.holder
        name = self._viewers[holder].name if holder in self._viewers else ""
        for viewer in self._viewers.values():
            state = {
                "type": "hands",
                "mode": self._hands.mode,
                "you": viewer.id,
                "may": self._hands.may(viewer.id),
                "holder": holder,
                "name": name,
                "viewers": len(self._viewers),
            }
            viewer.send(HANDS, json.dumps(state))

    # -- for people ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return how it is."""
        return {
            "connected": self._upstream is not None and self._upstream.connected.is_set(),
            "streams": {
                stream_id: {
                    "kind": stream.kind,
                    "frames": stream.frames,
                    "bytes": stream.bytes,
                    "keys_wanted": stream.wanted,
                    "keys_asked": stream.asked,
                }
                for stream_id, stream in self._streams.items()
            },
            "viewers": [
                {
                    "id": viewer.id,
                    "name": viewer.name,
                    "sent": viewer.sent,
                    "dropped": sum(buffer.dropped for buffer in viewer.buffers.values()),
                    "waiting": sum(len(buffer) for buffer in viewer.buffers.values()),
                    "silent": viewer.pace.silent,
                    "rate": viewer.pace.rate,
                }
                for viewer in self._viewers.values()
            ],
            "refused": self.refused,
        }
