"""What changes while people look: displays come and go, and what the slowest of them can take."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import Viewer, streaming, viewing

#: Far below what a second of the stand-in's picture has.
_SLOW = 20_000


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


def stats(relay: Relay, device: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{relay.listeners['web']['address']}/api/devices/{device}/stats",
        headers={"Authorization": f"Bearer {relay.token('viewer')}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def shown(viewer: Viewer, stream: str) -> list[dict[str, Any]]:
    return [one for one in viewer.frames if one["stream"] == stream]


def test_displays_come_and_go(relay: Relay) -> None:
    with streaming(relay) as streamer, viewing(relay) as first, viewing(relay) as second:
        add = {"command": "add-display", "width": 320, "height": 240, "dpi": 160, "refresh_rate_hz": 60}
        first.send("device-control", add)
        for viewer in (first, second):
            wait(lambda viewer=viewer: len(shown(viewer, "display_1")) > 5, "the second display")  # type: ignore[misc]
            assert shown(viewer, "display_1")[0]["key"]
        # Whoever comes now has both.
        with viewing(relay) as third:
            wait(lambda: shown(third, "display_0") and shown(third, "display_1"), "both displays")
        first.send("device-control", {"command": "remove-display", "display_id": "1"})
        wait(lambda: set(stats(relay, "pad-1")["streams"]) == {"display_0"}, "the second display to go")
        count = len(shown(first, "display_1"))
        before = len(shown(first, "display_0"))
        wait(lambda: len(shown(first, "display_0")) > before + 20, "the first one's frames")
        assert len(shown(first, "display_1")) <= count + 2
        # And again, in the same session with the device.
        first.send("device-control", {**add, "width": 640})
        wait(lambda: len(shown(second, "display_2")) > 5, "the third display")
        assert len([one for one in streamer.events("told") if one["type"] == "request-offer"]) == 1


def test_the_device_is_told_what_the_slowest_who_controls_can_take(relay: Relay) -> None:
    with (
        streaming(relay) as streamer,
        viewing(relay) as quick,
        viewing(relay) as slow,
        viewing(relay, "viewer") as looker,
    ):
        looker.limit(_SLOW // 2)
        quick.send("cfctl-control", {"type": "take"})
        wait(lambda: any(one["rate"] == _SLOW // 2 for one in stats(relay, "pad-1")["viewers"]), "the looker's word")
        slow.limit(_SLOW)
        wait(lambda: any(one["rate"] == _SLOW for one in stats(relay, "pad-1")["viewers"]), "the slow one's word")
        count = len(streamer.heard("remb"))
        wait(lambda: len(streamer.heard("remb")) > count + 5, "what the device is told")
        # Neither of them controls.
        assert min(streamer.heard("remb")[count + 1 :]) > 2 * _SLOW
        slow.send("cfctl-control", {"type": "take"})
        wait(lambda: streamer.heard("remb")[-1] <= _SLOW, "the slow one's word to count")
        assert streamer.heard("remb")[-1] > _SLOW // 2
        slow.send("cfctl-control", {"type": "give"})
        quick.send("cfctl-control", {"type": "take"})
        wait(lambda: streamer.heard("remb")[-1] > 2 * _SLOW, "it to count no more")
