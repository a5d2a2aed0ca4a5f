"""What one who looks may not do to the others, and what must not stay behind: the hub by itself, without a device."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
from aiortc import RTCSessionDescription

from cfctl.errors import RelayBusy
from cfctl.relay.media import hub as hubs
from cfctl.relay.media import rtc
from cfctl.relay.media.frames import Frame
from cfctl.relay.media.hub import Hub
from cfctl.relay.media.upstream import Speaker
from cfctl.relay.media.viewer import Viewer
from cfctl.relay.streamers import TooMany
from cfctl.wire import webrtc_channels as channels
from cfctl.wire.webrtc_messages import MOST_MEDIA, MalformedMessage
from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import streaming, viewing

OFFER = b'{"type":"request-offer"}'

#: More than one device has of anything.
CROWD = 70


def nobody(*_: object) -> Speaker:
    raise LookupError


class Line:
    """A streamer that hears everything and says nothing."""

    def __init__(self, told: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.told = told
        self.lost = lost
        self.said: list[dict[str, Any]] = []
        self.left = False

    def say(self, payload: bytes) -> None:
        self.said.append(json.loads(payload))

    def leave(self) -> None:
        self.left = True


class Lines:
    """All clients that a hub has made of a streamer."""

    def __init__(self) -> None:
        self.all: list[Line] = []

    def __call__(self, told: Callable[[bytes], None], lost: Callable[[], None]) -> Speaker:
        self.all.append(Line(told, lost))
        return self.all[-1]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_S))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def shown(hub: Hub) -> None:
    """Have a hub know a display."""
    hub.track_came("display_0", "video")
    hub.described(["display_0"])


async def asking(hub: Hub, **how: Any) -> tuple[Viewer, list[dict[str, Any]]]:
    """Return a viewer that has been made an offer."""
    said: list[dict[str, Any]] = []
    viewer = hub.watch("somebody", may_control=True, told=lambda data: said.append(json.loads(data)), **how)
    viewer.say(OFFER)
    await until(lambda: said)
    return viewer, said


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


# -- places ----------------------------------------------------------------------------------------------------------


def test_who_is_gone_before_he_was_there_takes_no_place(relay: Relay) -> None:
    """A request that is no WebSocket in the end: its viewer is ended before it has begun."""
    address = relay.listeners["web"]["address"] + "/devices/pad-1/connect"
    headers = {"Authorization": f"Bearer {relay.token('viewer')}", "Upgrade": "websocket"}
    with streaming(relay):
        for _ in range(CROWD):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=PATIENCE_S)
        with viewing(relay, "viewer") as viewer:
            viewer.wait(lambda: viewer.hands().get("viewers") == 1, "him to be alone")


def test_those_who_only_look_leave_room_for_those_who_control() -> None:
    async def crowd() -> None:
        hub = Hub(nobody, lambda: [])

        def crowd_in() -> None:
            for _ in range(CROWD):
                hub.watch("crowd", may_control=False, told=lambda _: None)

        with pytest.raises(RelayBusy):
            crowd_in()
        hub.watch("operator", may_control=True, told=lambda _: None)
        await hub.close()

    run(crowd())


# -- the connection to the device ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TooMany("too many"), ValueError("a fault of ours")])
def test_it_is_tried_again_whatever_went_wrong(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_RETRY_S", (0.01, 0.01))

    async def try_() -> None:
        tries = 0

        def fail(*_: object) -> Speaker:
            nonlocal tries
            tries += 1
            raise error

        hub = Hub(fail, lambda: [])
        hub.watch("somebody", may_control=True, told=lambda _: None)
        await until(lambda: tries > 2)
        await hub.close()

    run(try_())


def test_who_comes_while_the_last_connection_ends_has_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_LINGER_S", 0.0)

    async def come_late() -> None:
        lines = Lines()
        hub = Hub(lines, lambda: [])
        first = hub.watch("first", may_control=True, told=lambda _: None)
        await until(lambda: lines.all and lines.all[0].said)
        first.leave()
        while not lines.all[0].left:
            await asyncio.sleep(0)
        # Its end has begun, and takes a while.
        hub.watch("second", may_control=True, told=lambda _: None)
        await until(lambda: len(lines.all) == 2 and lines.all[1].said)
        await asyncio.sleep(0.2)
        assert hub._upstream is not None
        await hub.close()

    run(come_late())


def test_nothing_of_another_connection_is_shown_before_its_key_frame() -> None:
    async def anew() -> None:
        lines = Lines()
        hub = Hub(lines, lambda: [])
        shown(hub)
        viewer, _ = await asking(hub)
        await until(lambda: lines.all)
        buffer = viewer.buffers["display_0"]
        buffer.push(Frame(b"key", 0, True))
        assert len(buffer) == 1
        lines.all[0].lost()
        await until(lambda: len(lines.all) == 2)
        assert (len(buffer), buffer.needs_key) == (0, True)
        await hub.close()

    run(anew())


# -- what one who looks does to others -------------------------------------------------------------------------------


def test_one_who_says_too_much_does_not_keep_displays_from_others() -> None:
    async def say_much() -> None:
        hub = Hub(nobody, lambda: [])
        shown(hub)
        viewer, _ = await asking(hub)

        def flood() -> None:
            for _ in range(1000):
                viewer.say(b'{"type":"error","error":"nothing"}')

        with pytest.raises(MalformedMessage, match="too much"):
            flood()
        # What raised here ended the connection to the device, and everybody's picture.
        hub.track_came("display_1", "video")
        assert set(hub.tracks()) == {"display_0", "display_1"}
        await hub.close()

    run(say_much())


def test_a_description_of_hundreds_of_media_makes_no_threads() -> None:
    async def describe() -> None:
        hub = Hub(nobody, lambda: [])
        shown(hub)
        viewer, _ = await asking(hub)
        before = threading.active_count()
        sdp = "v=0\r\n" + (MOST_MEDIA + 1) * "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
        for kind in ("offer", "answer"):
            with pytest.raises(MalformedMessage, match="media"):
                viewer.say(json.dumps({"type": kind, "sdp": sdp}).encode())
        assert threading.active_count() == before
        await hub.close()

    run(describe())


def test_candidates_are_counted() -> None:
    async def offer_ways() -> None:
        hub = Hub(nobody, lambda: [])
        shown(hub)
        viewer, said = await asking(hub)
        other = rtc.connection(offers=False)
        await other.setRemoteDescription(RTCSessionDescription(said[0]["sdp"], "offer"))
        await other.setLocalDescription(await other.createAnswer())
        # A browser's answer does not say that there are no more to come.
        sdp = other.localDescription.sdp.replace("a=end-of-candidates\r\n", "")
        viewer.say(json.dumps({"type": "answer", "sdp": sdp}).encode())
        for port in range(1, 300):
            line = f"candidate:1 1 UDP 1 192.0.2.1 {port} typ host"
            about = {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}
            viewer.say(json.dumps({"type": "ice-candidate", "candidate": about}).encode())
            await until(viewer._said.empty)
        (transceiver,) = cast("Any", viewer)._pc.getTransceivers()
        tried = transceiver.sender.transport.transport._connection.remote_candidates
        assert 90 < len(tried) < 120
        await rtc.closed(other)
        await hub.close()

    run(offer_ways())


def test_nobody_waits_for_the_key_frame_of_those_who_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_SLOW_KEY_S", 3600.0)

    async def want() -> None:
        hub = Hub(nobody, lambda: [])
        hub.track_came("display_0", "video")
        for slow in (True, True, False):
            hub.key_wanted("display_0", slow=slow)
            await asyncio.sleep(0.01)
        await until(lambda: hub.stats()["streams"]["display_0"]["keys_asked"] == 2)
        await hub.close()

    run(want())


# -- what a device says ----------------------------------------------------------------------------------------------


class Ear:
    """A viewer who only listens."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def send(self, _label: str, data: str) -> None:
        self.told.append(json.loads(data)["event"])


def test_whoever_comes_later_is_told_the_latest_last_and_no_more_than_that_there_is() -> None:
    async def tell() -> None:
        hub = Hub(nobody, lambda: [])

        def told() -> list[str]:
            ear = Ear()
            hub.opened(cast("Any", ear), channels.CONTROL)
            return ear.told

        for event in (channels.START_CAMERA, channels.STOP_CAMERA, channels.START_CAMERA):
            hub.said(channels.CONTROL, json.dumps({"event": event}))
        assert told() == [channels.STOP_CAMERA, channels.START_CAMERA]
        for number in range(1000):
            hub.said(channels.CONTROL, json.dumps({"event": f"E{number}"}))
        assert len(told()) <= 100
        assert told()[-1] == "E999"
        # What is no event is nobody's, and no fault of ours that a log should tell of at length.
        hub.said(channels.CONTROL, "no JSON")
        assert told()[-1] == "E999"
        await hub.close()

    run(tell())


def test_what_a_device_has_said_is_forgotten_with_its_connection() -> None:
    """A device that boots once more has not booted."""

    async def boot_again() -> None:
        lines = Lines()
        hub = Hub(lines, lambda: [])
        hub.watch("somebody", may_control=True, told=lambda _: None)
        await until(lambda: lines.all)
        hub.said(channels.CONTROL, json.dumps({"event": channels.BOOT_COMPLETED}))
        lines.all[0].lost()
        await until(lambda: len(lines.all) == 2)
        ear = Ear()
        hub.opened(cast("Any", ear), channels.CONTROL)
        assert ear.told == []
        await hub.close()

    run(boot_again())


def test_whoever_listened_to_the_lights_does_so_when_the_streamer_returns(relay: Relay) -> None:
    with streaming(relay, device_id="pad-2") as first, viewing(relay, device="pad-2") as viewer:
        wait(lambda: len(viewer.told("lights-channel")) == 1, "the lights")
        first.process.kill()
        first.process.wait()
        with streaming(relay, device_id="pad-2"):
            wait(lambda: len(viewer.told("lights-channel")) == 2, "the lights again")


# -- what stays behind -----------------------------------------------------------------------------------------------


def test_whose_connection_has_ended_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise he would speak to nobody for ever."""
    monkeypatch.setattr("cfctl.relay.media.viewer._CONNECT_S", 0.05)

    async def end() -> None:
        hub = Hub(nobody, lambda: [])
        shown(hub)
        lost = asyncio.Event()
        await asking(hub, lost=lost.set)
        await lost.wait()
        await hub.close()

    run(end())


def test_a_stream_ends_with_its_channel(relay: Relay) -> None:
    with streaming(relay, device_id="pad-3") as streamer, viewing(relay, device="pad-3") as viewer:
        known = {one["client"] for one in streamer.events("told")}
        viewer.send("adb-channel", b"CNXN")
        wait(lambda: viewer.told("adb-channel"), "the answer")
        (lane,) = {one["client"] for one in streamer.events("told")} - known
        viewer.close("adb-channel")
        wait(lambda: lane in {one["client"] for one in streamer.events("disconnected")}, "its end")
