"""What viewers do, in QEMU's words."""

from __future__ import annotations

from typing import Any

import pytest

from cfctl.guest.streamer.gestures import ABS_MAX, Gestures
from cfctl.wire import webrtc_channels as channels

SIZE = (720, 400)


def key(name: str, down: bool) -> dict[str, Any]:
    return {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": name}}}


def button(name: str, down: bool) -> dict[str, Any]:
    return {"type": "btn", "data": {"down": down, "button": name}}


def axis(kind: str, name: str, value: int) -> dict[str, Any]:
    return {"type": kind, "data": {"axis": name, "value": value}}


@pytest.mark.parametrize(
    ("message", "events"),
    [
        ('{"type":"keyboard","keycode":"KeyA","event_type":"keydown"}', [key("a", True)]),
        ('{"type":"keyboard","keycode":"Enter","event_type":"keyup"}', [key("ret", False)]),
        ('{"type":"keyboard","keycode":"ControlLeft","event_type":"keydown"}', [key("ctrl", True)]),
        # What the stock page's own keyboard sends is no code.
        ('{"type":"keyboard","keycode":"CtrlLeft","event_type":"keydown"}', []),
        ('{"type":"mouseMove","x":3,"y":-4}', [axis("rel", "x", 3), axis("rel", "y", -4)]),
        ('{"type":"mouseButton","button":2,"down":1}', [button("right", True)]),
        ('{"type":"mouseWheel","pixels":2}', [button("wheel-up", down) for down in (True, False) * 2]),
        ('{"type":"wheel","pixels":-1}', [button("wheel-down", True), button("wheel-down", False)]),
        ('{"type":"gamepadKey","id":"1","button":1,"down":1}', []),
        ('{"type":"gamepadMotion","button":1,"value":1}', []),
    ],
)
def test_messages(message: str, events: list[Any]) -> None:
    assert Gestures().read(channels.read_input(message), SIZE) == events


def touch(ids: list[int], places: list[tuple[int, int]], down: int) -> channels.MultiTouch:
    return channels.MultiTouch(ids, [x for x, _ in places], [y for _, y in places], down, "display_0")  # type: ignore[arg-type]


def test_the_first_finger_is_the_pointer() -> None:
    hands = Gestures()
    assert hands.read(touch([5], [(0, 399)], 1), SIZE) == [
        axis("abs", "x", 0),
        axis("abs", "y", ABS_MAX),
        button("left", True),
    ]
    # -- it moves, and a second finger is not felt; what lies outside is at the edge
    assert hands.read(touch([5, 6], [(800, -3), (1, 1)], 1), SIZE) == [axis("abs", "x", ABS_MAX), axis("abs", "y", 0)]
    assert hands.read(touch([6], [(9, 9)], 1), SIZE) == []
    assert hands.read(touch([6], [(9, 9)], 0), SIZE) == []
    assert hands.read(touch([5], [(9, 9)], 0), SIZE) == [button("left", False)]
    # -- now any other may be the first
    assert hands.read(touch([6], [(719, 0)], 1), SIZE)[0] == axis("abs", "x", ABS_MAX)


def test_what_is_held_is_let_go_when_its_viewer_leaves() -> None:
    hands = Gestures()
    hands.read(touch([1], [(1, 1)], 1), SIZE)
    for code, event in (("ShiftLeft", "keydown"), ("KeyA", "keydown"), ("KeyA", "keyup")):
        hands.read(channels.Keyboard(code, event), SIZE)
    hands.press("power", down=True)
    assert hands.let_go() == [button("left", False), key("shift", False), key("power", False)]
    assert hands.let_go() == []


def test_buttons_beside_the_picture() -> None:
    assert Gestures().press("volumeup", down=True) == [key("volumeup", True)]
    assert Gestures().press("rotate", down=True) == []
