"""One display: its picture is looked at while somebody watches, and encoded once for all who do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from cfctl.guest.streamer import rfb, vp8

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import av

#: Between two frames.
_FRAME_S = 1 / vp8.RATE

#: After a change its picture is sent again, better: some receivers (aiortc) show a frame only when the next one
#: comes. Then seldom, for whoever has lost the last one.
_AGAIN_S = (0.04, 0.2, 1.0)

#: Between two key frames, whoever asks: each is as large as many others.
_KEY_S = 0.2

#: Between two nudges of a server that looks ever more rarely.
_NUDGE_S = 0.25

#: After input the guest changes its screen when it has got to it; until then QEMU is kept looking as often as it can,
#: every 30 ms. Nudges come more often than that: one that comes just before QEMU looks is as good as none.
_EAGER_S, _EAGER_NUDGE_S = 0.3, 0.01

#: Between two attempts to reach a VM that is being started again.
_RETRY_S = 0.5

#: Frames that a track may be behind.
_BEHIND = 60


class Track(MediaStreamTrack):
    """What one peer gets of a display: encoded frames, from a key frame on.

    :param label: the track's name, by which viewers know the display.
    """

    kind = "video"

    def __init__(self, display: Display, label: str) -> None:
        super().__init__()
        self._id = label
        self._display = display
        self._queue: asyncio.Queue[av.Packet[av.VideoStream] | None] = asyncio.Queue()
        self._lost = True

    async def recv(self) -> av.Packet[av.VideoStream]:
        """Wait for the next frame.

        :raises MediaStreamError: when the track was stopped.
        """
        if self.readyState != "live":
            raise MediaStreamError
        self._display.join(self)
        packet = await self._queue.get()
        if packet is None:
            raise MediaStreamError
        return packet

    def give(self, packet: av.Packet[av.VideoStream]) -> None:
        """Take a frame; one that is too far behind gets none until the next key frame."""
        if self._queue.qsize() >= _BEHIND:
            while not self._queue.empty():
                self._queue.get_nowait()
            self._lost = True
        if self._lost and not packet.is_keyframe:
            self._display.want_key()
            return
        self._lost = False
        self._queue.put_nowait(packet)

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._display.leave(self)
        self._queue.put_nowait(None)


class Display:
    """What QEMU shows.

    :param socket: of its VNC server.
    :param say: told of what goes wrong.
    """

    def __init__(self, socket: Path, size: tuple[int, int], say: Callable[[str], None]) -> None:
        self.size = size
        self._socket = socket
        self._say = say
        self._tracks: set[Track] = set()
        self._watched = asyncio.Event()
        self._wake = asyncio.Event()
        self._key = True
        self._touched = False
        self._screen: rfb.Screen | None = None
        self._eager_until = 0.0
        self._eager: asyncio.TimerHandle | None = None
        self._encoder = vp8.Encoder()

    def join(self, track: Track) -> None:
        """Send frames to a track from now on."""
        if track not in self._tracks:
            self._tracks.add(track)
            self._watched.set()
            self.want_key()

    def leave(self, track: Track) -> None:
        """Send no more frames to a track."""
        self._tracks.discard(track)
        if not self._tracks:
            self._watched.clear()
            self._wake.set()

    def want_key(self) -> None:
        """Have the next frame be one that needs none before it."""
        self._key = True
        self._wake.set()

    def look(self) -> None:
        """Have QEMU look at its screen at once, and often for a while: something will change."""
        self._eager_until = asyncio.get_running_loop().time() + _EAGER_S
        if self._eager is None:
            self._look_eagerly()

    def _look_eagerly(self) -> None:
        self._eager = None
        loop = asyncio.get_running_loop()
        if self._screen is not None and loop.time() < self._eager_until:
            self._screen.nudge()
            self._eager = loop.call_later(_EAGER_NUDGE_S, self._look_eagerly)

    async def run(self) -> None:
        """Show what there is whenever somebody watches, until cancelled."""
        while True:
            await self._watched.wait()
            try:
                async with rfb.connected(self._socket) as screen:
                    self._screen = screen
                    await self._show(screen)
            except (OSError, EOFError, rfb.NotVnc) as error:
                # TimeoutError is an OSError.
                self._say(f"no picture: {error!r}")
                await asyncio.sleep(_RETRY_S)
            finally:
                self._screen = None

    async def _show(self, screen: rfb.Screen) -> None:
        """Send frames while somebody watches."""
        reader = asyncio.ensure_future(self._follow(screen))
        pacer = asyncio.ensure_future(self._pace(screen))
        try:
            await asyncio.wait((reader, pacer), return_when=asyncio.FIRST_COMPLETED)
            for done in (reader, pacer):
                if done.done():
                    done.result()
        finally:
            for task in (reader, pacer):
                task.cancel()
            await asyncio.gather(reader, pacer, return_exceptions=True)

    async def _follow(self, screen: rfb.Screen) -> None:
        while True:
            await screen.changed()
            self.size = screen.width, screen.height
            self._touched = True
            self._wake.set()

    async def _pace(self, screen: rfb.Screen) -> None:
        loop = asyncio.get_running_loop()
        quiet, nudged, keyed = len(_AGAIN_S), 0.0, 0.0
        while self._tracks:
            begun = loop.time()
            if begun - nudged > _NUDGE_S:
                screen.nudge()
                nudged = begun
            due = begun + _AGAIN_S[min(quiet, len(_AGAIN_S) - 1)]
            while not self._wake.is_set() and (left := due - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _NUDGE_S)):
                        await self._wake.wait()
                screen.nudge()
            self._wake.clear()
            now = loop.time()
            key = self._key and now - keyed >= _KEY_S
            quiet = 0 if self._touched else quiet + 1
            picture = vp8.grabbed(screen.pixels, screen.width, screen.height) if self._touched else None
            self._touched = False
            if key:
                self._key = False
            elif self._key:
                loop.call_later(_KEY_S, self._wake.set)
            pts = int(time.monotonic() * vp8.CLOCK)
            # libvpx lets other threads run, and this one talk meanwhile.
            packet = await loop.run_in_executor(None, lambda: self._encoder.encode(picture, key=key, pts=pts))  # noqa: B023 (awaited at once)
            if packet is not None:
                keyed = now if key else keyed
                for track in tuple(self._tracks):
                    track.give(packet)
            elif key:
                self._key = True
            await asyncio.sleep(max(0.0, now + _FRAME_S - loop.time()))
