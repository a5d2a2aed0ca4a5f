"""Whose hands are on a device: who controls it, and what each of them holds down.

Viewers of one device share one connection to it. Their fingers are told apart by numbers of ours, and what one of
them holds down is let go of when he leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeVar

from cfctl.wire import webrtc_channels as channels

#: Slots of a touch screen (Linux' multi-touch protocol type B, as crosvm and QEMU make them).
_SLOTS = 10

#: Keys, or buttons, that one viewer holds down at once: each is let go of when he leaves.
_MOST_HELD = 64

_T = TypeVar("_T")

Mode = Literal["one", "shared"]


@dataclass
class _Held:
    """What one viewer holds down."""

    touches: dict[tuple[str, int], int] = field(default_factory=dict)
    places: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    buttons: set[int] = field(default_factory=set)
    pads: set[tuple[str, int]] = field(default_factory=set)
    pressed: set[str] = field(default_factory=set)


class Hands:
    """The hands on one device.

    :param mode: ``one`` has one viewer control at a time, ``shared`` all that may.
    """

    def __init__(self, mode: Mode = "one") -> None:
        self.mode: Mode = mode
        self._holder: int | None = None
        self._may: set[int] = set()
        self._held: dict[int, _Held] = {}

    @property
    def holder(self) -> int | None:
        """The viewer that controls, where only one does."""
        return self._holder if self.mode == "one" else None

    def enter(self, viewer: int, *, may_control: bool) -> None:
        """Know a viewer."""
        self._held[viewer] = _Held()
        if may_control:
            self._may.add(viewer)

    def controls(self, viewer: int) -> bool:
        """Tell whether what a viewer does reaches the device; where nobody controls, the first who tries does."""
        if viewer not in self._may:
            return False
        if self.mode == "shared":
            return True
        if self._holder is None:
            self._holder = viewer
        return self._holder == viewer

    def counts(self, viewer: int) -> bool:
        """Tell whether a viewer controls as it is now; unlike :meth:`controls`, asking changes nothing."""
        return viewer in self._may and (self.mode == "shared" or self._holder == viewer)

    def may(self, viewer: int) -> bool:
        """Tell whether a viewer may control at all."""
        return viewer in self._may

    def take(self, viewer: int) -> tuple[list[channels.Input], list[channels.Press]]:
        """Let a viewer control, if he may; return what lets go of all that the one before held."""
        before = self._holder
        if viewer not in self._may or before == viewer or self.mode == "shared":
            return [], []
        self._holder = viewer
        return self._let_go(before) if before is not None else ([], [])

    def leave(self, viewer: int) -> tuple[list[channels.Input], list[channels.Press]]:
        """Forget a viewer; return what lets go of all that he held."""
        let_go = self._let_go(viewer)
        self._held.pop(viewer, None)
        self._may.discard(viewer)
        if self._holder == viewer:
            self._holder = None
        return let_go

    def give(self, viewer: int) -> tuple[list[channels.Input], list[channels.Press]]:
        """Have a viewer control no longer; return what lets go of all that he held."""
        if self._holder == viewer:
            self._holder = None
        return self._let_go(viewer)

    def input(self, viewer: int, message: channels.Input) -> channels.Input | None:
        """Return what the device is to be told; None for a finger or key more than anybody holds down."""
        held = self._held[viewer]
        if isinstance(message, channels.MultiTouch):
            return self._touch(held, message)
        noted = True
        if isinstance(message, channels.Keyboard):
            noted = _note(held.keys, message.keycode, down=message.down)
        elif isinstance(message, channels.MouseButton):
            noted = _note(held.buttons, message.button, down=bool(message.down))
        elif isinstance(message, channels.GamepadKey):
            noted = _note(held.pads, (message.id, message.button), down=bool(message.down))
        return message if noted else None

    def press(self, viewer: int, command: channels.Command) -> bool:
        """Note a button of the device; tell whether it is to be told."""
        if not isinstance(command, channels.Press):
            return True
        return _note(self._held[viewer].pressed, command.command, down=command.button_state == "down")

    def _touch(self, held: _Held, message: channels.MultiTouch) -> channels.MultiTouch | None:
        """Give fingers numbers that nobody else's have."""
        ids, xs, ys = [], [], []
        for finger, x, y in zip(message.id, message.x, message.y, strict=True):
            name = (message.device_label, finger)
            slot = held.touches.get(name)
            if slot is None:
                if not message.down:
                    continue  # it was never there, or is gone
                slot = self._free(message.device_label)
                if slot is None:
                    continue
                held.touches[name] = slot
            held.places[name] = x, y
            if not message.down:
                del held.touches[name], held.places[name]
            ids.append(slot)
            xs.append(x)
            ys.append(y)
        return channels.MultiTouch(ids, xs, ys, message.down, message.device_label) if ids else None

    def _free(self, label: str) -> int | None:
        taken = {slot for held in self._held.values() for (on, _), slot in held.touches.items() if on == label}
        return next((slot for slot in range(_SLOTS) if slot not in taken), None)

    def _let_go(self, viewer: int) -> tuple[list[channels.Input], list[channels.Press]]:
        held = self._held.get(viewer)
        if held is None:
            return [], []
        inputs: list[channels.Input] = []
        for label in sorted({label for label, _ in held.touches}):
            fingers = [name for name in held.touches if name[0] == label]
            places = [held.places[name] for name in fingers]
            xs, ys = [x for x, _ in places], [y for _, y in places]
            inputs.append(channels.MultiTouch([held.touches[name] for name in fingers], xs, ys, 0, label))
        inputs += [channels.Keyboard(code, "keyup") for code in sorted(held.keys)]
        inputs += [channels.MouseButton(button, 0) for button in sorted(held.buttons)]
        inputs += [channels.GamepadKey(id_, button, 0) for id_, button in sorted(held.pads)]
        presses = [channels.Press(command, "up") for command in sorted(held.pressed)]
        self._held[viewer] = _Held()
        return inputs, presses


def _note(held: set[_T], what: _T, *, down: bool) -> bool:
    if not down:
        held.discard(what)
    elif len(held) < _MOST_HELD:
        held.add(what)
    else:
        return what in held
    return True
