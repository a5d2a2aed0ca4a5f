"""Whose microphone and camera a device gets: of those who control it, one of each at a time.

Frames of two would be neither's: what a decoder knows of one it would use for the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Sources:
    """Those who bring one.

    :param controls: tells whether a viewer's hands count now.
    """

    def __init__(self, controls: Callable[[int], bool]) -> None:
        self._controls = controls
        self._bring: dict[str, list[int]] = {"audio": [], "video": []}
        self._last: dict[str, int] = {}

    def put(self, viewer: int, kinds: set[str]) -> None:
        """Note what a viewer brings from now on."""
        for kind, viewers in self._bring.items():
            if kind not in kinds and viewer in viewers:
                viewers.remove(viewer)
            elif kind in kinds and viewer not in viewers:
                viewers.append(viewer)

    def of(self, kind: str) -> int | None:
        """Return whose counts: the first one's of those who control."""
        return next((viewer for viewer in self._bring.get(kind, ()) if self._controls(viewer)), None)

    def changed(self, kind: str) -> bool:
        """Tell whether it is another one's than when this was asked before."""
        now = self.of(kind)
        if now is None or self._last.get(kind) == now:
            return False
        self._last[kind] = now
        return True

    def interrupted(self, kind: str, viewer: int) -> None:
        """Note that a frame of somebody's does not count: he begins anew, should he count again."""
        if self._last.get(kind) == viewer:
            del self._last[kind]

    def restarted(self) -> None:
        """Note that the device knows nobody's any more."""
        self._last.clear()
