"""A viewer's own connection to a device, for channels that are one stream of bytes each: adb, and Bluetooth's.

A streamer opens one stream per client. Those of several viewers through one connection would be one stream, of which
each heard what the others were told. No display is taken by such a connection: it costs the device next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cfctl.relay.media.upstream import Speaker, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.relay.media.frames import Frame
    from cfctl.wire.webrtc_messages import IceServer

log = logging.getLogger(__name__)


class Lane:
    """One of them, from its first message on.

    :param said: called with what the device says.
    :param ended: called once when it is over, unless :meth:`close` was the reason.
    """

    def __init__(
        self,
        enter: Callable[[Callable[[bytes], None], Callable[[], None]], Speaker],
        servers: Iterable[IceServer],
        said: Callable[[str, bytes | str], None],
        ended: Callable[[], None],
    ) -> None:
        self._hear = said
        self._ended = ended
        self._upstream: Upstream | None = Upstream(enter, servers, self, media=False)
        self._early: list[tuple[str, bytes | str]] = []
        self._task = asyncio.create_task(self._run(self._upstream))

    async def _run(self, upstream: Upstream) -> None:
        try:
            await upstream.run()
        except ConnectionError as exc:
            log.info("a stream of a viewer's: %s", exc)
        except Exception:
            log.exception("a stream of a viewer's")
        self._upstream = None
        self._ended()

    def send(self, label: str, data: bytes | str) -> bool:
        """Send on a data channel; tell whether it could be, in its place: what is lost breaks the stream."""
        if self._upstream is None:
            return False
        if not self._upstream.answered:
            self._early.append((label, data))
            return len(self._early) <= 256
        return self._upstream.send(label, data)

    async def close(self) -> None:
        """End it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._upstream is not None:
            # It may not have begun: then nothing of it has ended.
            await self._upstream.close()

    # -- what the device does --------------------------------------------------------------------------------

    def described(self, streams: Iterable[str]) -> None:
        """Say what waited until the device was there."""
        del streams
        early, self._early = self._early, []
        for label, data in early:
            if self._upstream is not None and not self._upstream.send(label, data):
                self._upstream.end()

    def said(self, label: str, data: bytes | str) -> None:
        """Hand on what the device says."""
        self._hear(label, data)

    def track_came(self, stream_id: str, kind: str) -> None:
        """Take no display."""

    def track_went(self, stream_id: str) -> None:
        """Miss none."""

    def frame(self, stream_id: str, frame: Frame) -> None:
        """Show none."""

    def broken(self, stream_id: str) -> None:
        """Need none."""

    def media_key_wanted(self, kind: str) -> None:
        """Have none."""

    def limit(self) -> float | None:
        """Want none."""
        return None
