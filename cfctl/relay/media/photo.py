"""Photographs on their way to a device's camera: each goes as a whole, or not at all.

Two viewers' pieces would be one broken photograph to the device; so would the pieces of one who leaves.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cfctl.wire.webrtc_channels import PHOTO_END
from cfctl.wire.webrtc_messages import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Hashable

#: Of one photograph; those of phones have some megabytes.
_LARGEST = 16 << 20

#: Pieces of one, of which each costs us something whatever is in it; pages send 16 KiB and more at once.
_MOST_PIECES = 4096


class Photos:
    """What several viewers have sent of their photographs."""

    def __init__(self) -> None:
        self._pieces: dict[Hashable, list[bytes]] = {}
        self._sizes: Counter[Hashable] = Counter()

    def take(self, viewer: Hashable, data: bytes | str) -> list[bytes]:
        """Take a piece; return the whole photograph with its end, once it is there, else nothing.

        :raises MalformedMessage: if it is text, or more than a photograph has; what came of it is forgotten.
        """
        if isinstance(data, str):
            if data.encode() != PHOTO_END:
                raise MalformedMessage("photographs are binary")
            data = PHOTO_END
        if data == PHOTO_END:
            pieces = self._pieces.get(viewer, [])
            self.forget(viewer)
            return [*pieces, PHOTO_END] if pieces else []
        pieces = self._pieces.setdefault(viewer, [])
        self._sizes[viewer] += len(data)
        if self._sizes[viewer] > _LARGEST or len(pieces) >= _MOST_PIECES:
            self.forget(viewer)
            raise MalformedMessage(f"a photograph of more than {_LARGEST} bytes, or {_MOST_PIECES} pieces")
        pieces.append(data)
        return []

    def forget(self, viewer: Hashable) -> None:
        """Forget what a viewer has begun."""
        self._pieces.pop(viewer, None)
        self._sizes.pop(viewer, None)
