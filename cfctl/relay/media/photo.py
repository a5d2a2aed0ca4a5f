"""Photographs on their way to a device's camera: each goes as a whole, or not at all.

Two viewers' pieces would be one broken photograph to the device; so would the pieces of one who leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfctl.wire.webrtc_channels import PHOTO_END
from cfctl.wire.webrtc_messages import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Hashable

#: Of one photograph; those of phones have some megabytes, and come in pieces of 64 KiB.
_LARGEST = 16 << 20
_MOST_PIECES = 4096


@dataclass
class _Begun:
    """One that has begun."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Photos:
    """What several viewers have sent of their photographs."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, _Begun] = {}

    def take(self, viewer: Hashable, data: bytes | str) -> list[bytes]:
        """Take a piece; return the whole photograph with its end, once it is there, else nothing.

        :raises MalformedMessage: if it is text, or more than a photograph has; what came of it is forgotten.
        """
        if isinstance(data, str):
            if data.encode() != PHOTO_END:
                raise MalformedMessage("photographs are binary")
            data = PHOTO_END
        if data == PHOTO_END:
            pieces = self._begun.pop(viewer, _Begun()).pieces
            return [*pieces, PHOTO_END] if pieces else []
        begun = self._begun.setdefault(viewer, _Begun())
        if begun.size + len(data) > _LARGEST or len(begun.pieces) >= _MOST_PIECES:
            self.forget(viewer)
            raise MalformedMessage(f"a photograph of more than {_LARGEST} bytes, or {_MOST_PIECES} pieces")
        begun.pieces.append(data)
        begun.size += len(data)
        return []

    def forget(self, viewer: Hashable) -> None:
        """Forget what a viewer has begun."""
        self._begun.pop(viewer, None)
