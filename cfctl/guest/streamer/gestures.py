"""What a viewer's messages are in QEMU's words (qapi/ui.json, InputEvent), and what is let go when one leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfctl.guest.streamer import keys
from cfctl.wire.webrtc_channels import Keyboard, MouseButton, MouseMove, MouseWheel, MultiTouch, Wheel

if TYPE_CHECKING:
    from cfctl.wire.webrtc_channels import Input

Event = dict[str, Any]

#: An axis of an absolute pointer goes from 0 to this (QEMU, INPUT_EVENT_ABS_MAX).
ABS_MAX = 0x7FFF

#: As browsers count them.
_BUTTONS = ("left", "middle", "right", "side", "extra")

#: One turn of a wheel, whatever a page says.
_MOST_NOTCHES = 20


@dataclass(slots=True)
class Gestures:
    """One viewer's hands.

    QEMU before 8.1 has no touch screen: a tablet's pointer is the first finger, and others are not felt.
    """

    _finger: int | None = None
    _held: dict[str, Event] = field(default_factory=dict)

    def read(self, message: Input, size: tuple[int, int]) -> list[Event]:
        """Return the events of a message.

        :param size: the picture's, in whose pixels the message speaks.
        :return: nothing for what no device of the VM can feel.
        """
        match message:
            case MultiTouch():
                return self._touch(message, size)
            case MouseMove():
                return [_axis("rel", "x", message.x), _axis("rel", "y", message.y)]
            case MouseButton():
                return self._hold("btn", _BUTTONS[message.button], down=bool(message.down))
            case MouseWheel() | Wheel():
                return _turn(message.pixels)
            case Keyboard():
                code = keys.CODES.get(message.keycode)
                return self._hold("key", code, down=message.down) if code else []
            case _:
                return []

    def press(self, command: str, *, down: bool) -> list[Event]:
        """Return the events of a button beside the picture; nothing for one that is not known."""
        code = keys.BUTTONS.get(command)
        return self._hold("key", code, down=down) if code else []

    def let_go(self) -> list[Event]:
        """Return the events that lift everything that is still down."""
        lifted = list(self._held.values())
        self._held.clear()
        self._finger = None
        return lifted

    def _touch(self, touch: MultiTouch, size: tuple[int, int]) -> list[Event]:
        if self._finger is None and touch.down:
            self._finger = touch.id[0]
        if self._finger not in touch.id:
            return []
        place = touch.id.index(self._finger)
        if not touch.down:
            self._finger = None
            return self._hold("btn", "left", down=False)
        moved = [
            _axis("abs", axis, _scaled(value, extent))
            for axis, value, extent in (("x", touch.x[place], size[0]), ("y", touch.y[place], size[1]))
        ]
        return moved if "btn left" in self._held else moved + self._hold("btn", "left", down=True)

    def _hold(self, kind: str, name: str, *, down: bool) -> list[Event]:
        if down:
            self._held[f"{kind} {name}"] = _button(kind, name, down=False)
        else:
            self._held.pop(f"{kind} {name}", None)
        return [_button(kind, name, down=down)]


def _button(kind: str, name: str, *, down: bool) -> Event:
    named: Event = {"key": {"type": "qcode", "data": name}} if kind == "key" else {"button": name}
    return {"type": kind, "data": {"down": down, **named}}


def _axis(kind: str, axis: str, value: int) -> Event:
    return {"type": kind, "data": {"axis": axis, "value": value}}


def _scaled(value: int, extent: int) -> int:
    """Return a pixel of the picture as a place on the tablet; what lies outside is at the edge."""
    last = max(1, extent - 1)
    return min(max(value, 0), last) * ABS_MAX // last


def _turn(pixels: int) -> list[Event]:
    button = "wheel-up" if pixels > 0 else "wheel-down"
    notches = min(abs(pixels), _MOST_NOTCHES)
    return [_button("btn", button, down=down) for _ in range(notches) for down in (True, False)]
