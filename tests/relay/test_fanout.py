"""One connection to the device, many viewers: what each is shown, and whose hands count."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cfctl.relay.media.hub import Hub
from cfctl.relay.media.upstream import Speaker
from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import Streamer, streaming, viewing

TOUCH = {"type": "multi-touch", "id": [7], "x": [10], "y": [20], "down": 1, "device_label": "display_0"}


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def streamer(relay: Relay) -> Iterator[Streamer]:
    with streaming(relay) as streamer:
        yield streamer


def stats(relay: Relay) -> dict[str, Any]:
    request = urllib.request.Request(
        relay.listeners["web"]["address"] + "/api/devices/pad-1/stats",
        headers={"Authorization": f"Bearer {relay.token('viewer')}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_three_viewers_one_of_them_frozen(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second, viewing(relay) as frozen:
        # One session with the device, however many look; each begins with a whole picture.
        assert len([one for one in streamer.events("told") if one["type"] == "request-offer"]) == 1
        for viewer in (first, second, frozen):
            assert viewer.frames[0]["key"]
        frozen.process.send_signal(signal.SIGSTOP)
        before = {one["id"]: one for one in stats(relay)["viewers"]}
        wait(lambda: any(one["silent"] for one in stats(relay)["viewers"]), "the frozen one to be noticed")
        count = len(first.frames), len(second.frames)
        wait(lambda: len(first.frames) > count[0] + 40 and len(second.frames) > count[1] + 40, "the others' frames")
        now = stats(relay)["viewers"]
        assert sorted(one["silent"] for one in now) == [False, False, True]
        for one in now:
            if one["silent"]:
                assert one["dropped"] > before[one["id"]]["dropped"]
                assert one["waiting"] <= 50
            else:
                assert one["dropped"] == before[one["id"]]["dropped"]
        # What the others were shown lacks nothing: the pictures follow each other.
        stamps = [one["timestamp"] for one in first.frames]
        assert stamps == sorted(stamps)
        frozen.process.send_signal(signal.SIGCONT)
        seen = len(frozen.frames)
        wait(lambda: any(one["key"] for one in frozen.frames[seen:]), "a whole picture")


def test_one_controls_at_a_time_and_what_is_held_is_let_go_of(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second, viewing(relay, "viewer") as looker:
        before = len(streamer.heard("input-channel"))

        def news() -> list[Any]:
            return streamer.heard("input-channel")[before:]

        first.send("input-channel", TOUCH)
        wait(lambda: len(news()) == 1, "the touch")
        assert news() == [{**TOUCH, "id": [0]}]
        wait(lambda: second.hands().get("holder") == first.hands()["you"], "the second to know")
        assert not looker.hands()["may"]
        # Neither the second one's nor the looker's count.
        second.send("input-channel", TOUCH)
        looker.send("input-channel", TOUCH)
        looker.send("cfctl-control", {"type": "take"})
        second.send("cfctl-control", {"type": "take"})
        wait(lambda: second.hands().get("holder") == second.hands()["you"], "the second to control")
        wait(lambda: len(news()) == 2, "the first one's finger to be lifted")
        assert news()[1] == {**TOUCH, "id": [0], "down": 0}
        second.send("input-channel", {"type": "keyboard", "keycode": "KeyA", "event_type": "keydown"})
        second.send("input-channel", {**TOUCH, "id": [7]})
        wait(lambda: len(news()) == 4, "the second one's")
        second.end()
        wait(lambda: len(news()) == 6, "all to be let go of")
        assert news()[4:] == [
            {**TOUCH, "id": [0], "down": 0},
            {"type": "keyboard", "keycode": "KeyA", "event_type": "keyup"},
        ]
        wait(lambda: first.hands()["holder"] is None, "it to be free")


def test_who_is_frozen_controls_no_longer_than_nobody_else_wants_to(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as frozen, viewing(relay) as other:
        frozen.send("cfctl-control", {"type": "take"})
        before = len(streamer.heard("input-channel"))
        frozen.send("input-channel", TOUCH)
        wait(lambda: len(streamer.heard("input-channel")) == before + 1, "the touch")
        other.send("input-channel", {**TOUCH, "x": [77]})
        frozen.process.send_signal(signal.SIGSTOP)
        wait(lambda: any(one["silent"] for one in stats(relay)["viewers"]), "the frozen one to be noticed")
        other.send("input-channel", {**TOUCH, "x": [78]})
        wait(lambda: len(streamer.heard("input-channel")) == before + 3, "the other one's touch")
        # What the frozen one held is let go of first.
        assert [(one["x"], one["down"]) for one in streamer.heard("input-channel")[before:]] == [
            ([10], 1),
            ([10], 0),
            ([78], 1),
        ]
        # He is told beside it, not before.
        wait(lambda: other.hands()["holder"] == other.hands()["you"], "the other one to be told")
        frozen.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("label", "data"),
    [
        ("input-channel", {**TOUCH, "down": True}),
        ("input-channel", {**TOUCH, "x": []}),
        ("input-channel", "no JSON"),
        ("sensors-channel", "a b c"),
        ("sensors-channel", "0 0"),
        ("cfctl-control", "[]"),
        ("cfctl-control", '{"type":"seize"}'),
    ],
)
def test_what_would_end_a_streamer_does_not_reach_it(relay: Relay, streamer: Streamer, label: str, data: Any) -> None:
    with viewing(relay) as viewer:
        before = len(streamer.heard(label))
        refused = stats(relay)["refused"]
        viewer.send(label, data)
        wait(lambda: stats(relay)["refused"] > refused, "the refusal")
        viewer.send("sensors-channel", "0 0 45")
        wait(lambda: [0, 0, 45] in streamer.heard("sensors-channel"), "what is well said")
        if label != "sensors-channel":
            assert len(streamer.heard(label)) == before
        count = len(viewer.frames)
        wait(lambda: len(viewer.frames) > count + 2, "the picture to go on")


def test_whoever_comes_later_is_told_what_was_said(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second:
        for viewer in (first, second):
            wait(lambda: viewer.told("device-control"), "the device's events")  # noqa: B023
        assert any("BOOT_COMPLETED" in one for one in second.told("device-control"))


def test_requests_for_key_frames_are_merged() -> None:
    async def want() -> list[int]:
        def nobody(*_: object) -> Speaker:
            raise LookupError

        hub = Hub(nobody, lambda: [])
        hub.track_came("display_0", "video")
        asked = []
        for round_ in (1, 2):
            for _ in range(100):
                hub.key_wanted("display_0", slow=False)
            while hub.stats()["streams"]["display_0"]["keys_asked"] < round_:
                await asyncio.sleep(0.01)
            asked.append(hub.stats()["streams"]["display_0"]["keys_asked"])
        await hub.close()
        return asked

    assert asyncio.run(asyncio.wait_for(want(), PATIENCE_S)) == [1, 2]
