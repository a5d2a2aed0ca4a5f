"""What goes beside the picture: sound, microphones, cameras, and every data channel of a stock streamer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cfctl.relay.media.photo import Photos
from cfctl.relay.media.sources import Sources
from cfctl.wire.webrtc_messages import MalformedMessage
from tests.relay.relays import Relay, running, wait
from tests.relay.screens import Streamer, Viewer, streaming, viewing
from tests.relay.streamer import sound

#: So many frames of sound, without a gap.
_RUN = 50


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def streamer(relay: Relay) -> Iterator[Streamer]:
    with streaming(relay, audio=True) as streamer:
        yield streamer


def heard(viewer: Viewer) -> list[str]:
    return [one["data"] for one in viewer.frames if one["stream"] == "audio-0"]


def is_run(frames: list[str]) -> bool:
    """Tell whether frames are the streamer's own, byte by byte, one after the other."""
    first = int.from_bytes(bytes.fromhex(frames[0])[1:5], "big")
    return frames == [sound(first + number).hex() for number in range(len(frames))]


def test_sound_arrives_unchanged_at_two_viewers(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second:
        wait(lambda: min(len(heard(first)), len(heard(second))) > _RUN, "the sound")
        for viewer in (first, second):
            assert is_run(heard(viewer)[:_RUN])
    assert len([one for one in streamer.events("told") if one["type"] == "request-offer"]) == 1


def test_each_viewers_adb_and_bluetooth_are_streams_of_their_own(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second, viewing(relay, "viewer") as looker:
        known = {one["client"] for one in streamer.events("told")}
        looker.send("adb-channel", b"CNXN of nobody's")
        # Whoever controls or not: adb is for all that may.
        first.send("cfctl-control", {"type": "take"})
        first.send("adb-channel", b"CNXN")
        second.send("adb-channel", b"\0\xff")
        first.send("adb-channel", b"OPEN")
        wait(lambda: first.told("adb-channel")[1:], "the first one's answers")
        wait(lambda: second.told("adb-channel"), "the second one's answer")
        assert [bytes.fromhex(one) for one in first.told("adb-channel")] == [b"4:CNXN", b"8:OPEN"]
        assert [bytes.fromhex(one) for one in second.told("adb-channel")] == [b"2:\0\xff"]
        # Bluetooth is for whoever controls.
        second.send("bluetooth-channel", b"\x04list\x00")
        first.send("bluetooth-channel", b"\x04list\x00")
        wait(lambda: first.told("bluetooth-channel") and streamer.heard("bluetooth-channel"), "the radio's answer")
        assert streamer.heard("bluetooth-channel") == [b"\x04list\x00".hex()]
        assert not looker.told("adb-channel")
        assert not second.told("bluetooth-channel")
        assert b"nobody".hex() not in "".join(streamer.heard("adb-channel"))
        lanes = {one["client"] for one in streamer.events("told")} - known
        assert len(lanes) == 3
        first.end()
        # Whoever leaves takes his with him.
        wait(lambda: len(lanes & {one["client"] for one in streamer.events("disconnected")}) == 2, "their ends")


def test_what_whoever_controls_says_on_the_other_channels_arrives(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second:
        first.send("cfctl-control", {"type": "take"})
        wait(lambda: second.hands().get("holder") == first.hands().get("you"), "the first one to control")
        for viewer, letter in ((second, b"b"), (first, b"a")):
            viewer.send("location-channel", f"{letter[0]}.5,2,3")
            viewer.send("kml-locations-channel", f"<kml>{letter.decode()}</kml>")
            viewer.send("camera-data-channel", letter * 40_000)
            viewer.send("camera-data-channel", letter * 10)
            viewer.send("camera-data-channel", b"EOF")
        wait(lambda: len(streamer.heard("camera-data-channel")) >= 3, "the photograph")
        wait(lambda: streamer.heard("location-channel") and streamer.heard("kml-locations-channel"), "both places")
        assert streamer.heard("location-channel") == ["97.5,2,3"]
        assert streamer.heard("kml-locations-channel") == ["<kml>a</kml>"]
        assert [bytes.fromhex(one) for one in streamer.heard("camera-data-channel")] == [
            b"a" * 40_000,
            b"a" * 10,
            b"EOF",
        ]
        # A stock streamer would end at this one.
        first.send("location-channel", "nowhere,2,3")
        first.send("sensors-channel", "0 0 90")
        wait(lambda: [0, 0, 90] in streamer.heard("sensors-channel"), "the sensors")
        assert streamer.heard("location-channel") == ["97.5,2,3"]
        # All are told how the device is held.
        wait(lambda: first.told("sensors-channel") and second.told("sensors-channel"), "the readings")


def test_a_microphone_and_a_camera_of_whoever_controls(relay: Relay, streamer: Streamer) -> None:
    with viewing(relay) as first, viewing(relay) as second:
        first.bring("audio")
        wait(lambda: len(streamer.heard("audio")) > _RUN, "the first one's microphone")
        assert is_run(streamer.heard("audio")[-_RUN:])
        wait(lambda: second.hands().get("holder") == first.hands().get("you"), "all to know who controls")
        second.bring("video")
        second.wait(lambda: {"brings": True} in second.said, "the second one's camera to be agreed upon")
        assert not streamer.heard("video")
        second.send("cfctl-control", {"type": "take"})
        wait(lambda: len(streamer.heard("video")) > 10, "the second one's camera")
        # It begins with a whole picture, and the first one is heard no more.
        assert streamer.heard("video")[0] is True
        count = len(streamer.heard("audio"))
        seen = len(streamer.heard("video"))
        # Two seconds, in which a microphone has a hundred frames; some were on their way.
        wait(lambda: len(streamer.heard("video")) > seen + 40, "more of it")
        assert len(streamer.heard("audio")) <= count + _RUN
        count = len(streamer.heard("audio"))
        # The picture and the sound go on meanwhile, and it is one session for all.
        shown = len(first.frames)
        wait(lambda: len(first.frames) > shown + 20, "the picture")
        first.send("cfctl-control", {"type": "take"})
        wait(lambda: len(streamer.heard("audio")) > count + _RUN, "the first one's microphone again")
        assert len({one["client"] for one in streamer.said if one.get("heard") in ("audio", "video")}) == 1


def test_a_device_that_wants_no_microphone_is_not_asked_again(relay: Relay) -> None:
    with streaming(relay, device_id="pad-2", audio=True, refuses=True) as streamer:
        with viewing(relay, device="pad-2") as viewer:
            viewer.bring("audio")
            wait(lambda: len([one for one in streamer.events("told") if one["type"] == "request-offer"]) == 2, "anew")
            shown = len(viewer.frames)
            wait(lambda: len(viewer.frames) > shown + _RUN, "the picture to go on")
        assert len([one for one in streamer.events("told") if one["type"] == "offer"]) == 1


# -- the pure parts --------------------------------------------------------------------------------------------------


def test_photographs_are_whole() -> None:
    photos = Photos()
    assert photos.take(1, b"EOF") == []
    assert photos.take(1, b"a") == []
    assert photos.take(2, b"b") == []
    assert photos.take(1, "EOF") == [b"a", b"EOF"]
    photos.forget(2)
    assert photos.take(2, b"EOF") == []
    with pytest.raises(MalformedMessage):
        photos.take(1, "text")
    assert not any(photos.take(1, bytes(1 << 20)) for _ in range(16))
    with pytest.raises(MalformedMessage):
        photos.take(1, b"more")
    assert photos.take(1, b"EOF") == []


def test_one_microphone_at_a_time() -> None:
    controls: set[Any] = {1, 2}
    sources = Sources(lambda viewer: viewer in controls)
    assert sources.of("audio") is None
    sources.put(2, {"audio"})
    sources.put(1, {"audio", "video"})
    assert (sources.of("audio"), sources.of("video")) == (2, 1)
    assert sources.changed("audio")
    assert not sources.changed("audio")
    controls.remove(2)
    assert sources.of("audio") == 1
    assert sources.changed("audio")
    sources.interrupted("audio", 1)
    assert sources.changed("audio")
    sources.put(1, set())
    assert sources.of("audio") is None
    assert not sources.changed("audio")


def test_a_photograph_of_any_number_of_pieces_is_none() -> None:
    photos = Photos()

    def pour(piece: bytes) -> None:
        for _ in range(100_000):
            photos.take(1, piece)

    for piece in (b"", b"x"):
        with pytest.raises(MalformedMessage):
            pour(piece)
        assert photos.take(1, b"EOF") == []
