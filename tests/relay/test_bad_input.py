"""What nobody should send: each is handled, and somebody else's session goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from cfctl.relay.media.hub import Hub
from cfctl.relay.media.upstream import Speaker
from cfctl.relay.media.viewer import Viewer as Watching
from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import Streamer, Viewer, streaming, viewing

CANDIDATE = {"candidate": "candidate:1 1 UDP 1 192.0.2.1 9 typ host", "sdpMid": "77", "sdpMLineIndex": 77}

#: A description in which nothing says how to get anywhere.
NOWHERE = "\r\n".join(
    ("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=video 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 VP8/90000", "")
)

TOUCH = {"type": "multi-touch", "id": [1], "x": [1], "y": [1], "down": 1, "device_label": "display_0"}


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def streamer(relay: Relay) -> Iterator[Streamer]:
    with streaming(relay) as streamer:
        yield streamer


@pytest.fixture(scope="module")
def somebody(relay: Relay, streamer: Streamer) -> Iterator[Viewer]:
    """Give one who looks all the time, and controls."""
    with viewing(relay) as viewer:
        viewer.send("cfctl-control", {"type": "take"})
        yield viewer


@pytest.fixture
def undisturbed(streamer: Streamer, somebody: Viewer) -> Iterator[None]:
    """Hold that the session of whoever looks is the one that it was, picture and input."""
    before = len([one for one in streamer.events("told") if one["type"] == "request-offer"])
    yield
    count = len(somebody.frames)
    wait(lambda: len(somebody.frames) > count + 5, "the picture to go on")
    keys = len(streamer.heard("input-channel"))
    somebody.send("input-channel", {"type": "keyboard", "keycode": "KeyA", "event_type": "keydown"})
    somebody.send("input-channel", {"type": "keyboard", "keycode": "KeyA", "event_type": "keyup"})
    wait(lambda: len(streamer.heard("input-channel")) == keys + 2, "a key")
    assert len([one for one in streamer.events("told") if one["type"] == "request-offer"]) == before
    assert not streamer.events("error")


def conversation(relay: Relay, talk: Callable[[ClientWebSocketResponse], Any], query: str = "") -> None:
    """Talk to the device as a client over a WebSocket."""

    async def run() -> None:
        address = f"{relay.listeners['web']['address']}/devices/pad-1/connect{query}"
        headers = {"Authorization": f"Bearer {relay.token('operator')}"}
        async with ClientSession() as session, session.ws_connect(address, headers=headers) as line:
            await line.receive_str()
            await talk(line)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


async def told(line: ClientWebSocketResponse) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(await line.receive_str())["payload"]
    return payload


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[]",
        "null",
        '{"type":"bogus"}',
        "[" * 60_000,
        '{"type":"answer","sdp":""}',
        json.dumps({"type": "answer", "sdp": NOWHERE}),
        json.dumps({"type": "ice-candidate", "candidate": CANDIDATE}),
        '{"type":"ice-candidate","candidate":null}',
        '{"type":"offer","sdp":"v=0"}',
        '{"type":"request-offer","ice_servers":[{"urls":"one"}]}',
        b"\xff\xfe",
    ],
)
def test_of_a_client_before_it_has_asked(relay: Relay, said: str | bytes) -> None:
    async def talk(line: ClientWebSocketResponse) -> None:
        await (line.send_bytes(said) if isinstance(said, bytes) else line.send_str(said))
        assert (await told(line))["type"] == "error"
        # It is still let in.
        await line.send_str('{"type":"request-offer"}')
        assert (await told(line))["type"] == "offer"

    conversation(relay, talk)


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "said",
    [
        {"type": "answer", "sdp": NOWHERE},
        {"type": "answer", "sdp": "v=0"},
        {"type": "answer", "sdp": "\0" * 1000},
    ],
    ids=["without a transport", "empty", "zeros"],
)
def test_descriptions_that_cannot_be_used(relay: Relay, said: dict[str, Any]) -> None:
    async def talk(line: ClientWebSocketResponse) -> None:
        await line.send_str('{"type":"request-offer"}')
        assert (await told(line))["type"] == "offer"
        await line.send_str(json.dumps(said))
        assert (await told(line))["type"] == "error"
        await line.send_str('{"type":"request-offer"}')
        assert (await told(line))["type"] == "offer"

    conversation(relay, talk)


@pytest.mark.usefixtures("undisturbed")
def test_candidates_for_strangers(relay: Relay) -> None:
    async def talk(line: ClientWebSocketResponse) -> None:
        await line.send_str('{"type":"request-offer"}')
        offer = await told(line)
        for number in range(150):
            about = {**CANDIDATE, "candidate": f"candidate:{number} 1 UDP 1 nowhere {number} typ host"}
            await line.send_str(json.dumps({"type": "ice-candidate", "candidate": about}))
        await line.send_str('{"type":"request-offer"}')
        assert offer["type"] == (await told(line))["type"] == "offer"

    conversation(relay, talk)


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("query", ["", "?direct=1"])
def test_a_frame_that_is_too_long_ends_its_own_connection(relay: Relay, query: str) -> None:
    async def talk(line: ClientWebSocketResponse) -> None:
        await line.send_str(json.dumps({"type": "answer", "sdp": "v" * 70_000}))
        while (await line.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED):
            pass
        assert line.close_code == 1009

    conversation(relay, talk, query)


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("label", "data"),
    [
        ("adb-channel", "CNXN"),
        ("bluetooth-channel", "list"),
        ("camera-data-channel", "a picture"),
        ("input-channel", b"\0\1\2"),
        ("input-channel", b'{"type":"mouseMove","x":1,"y":1}'),
        ("input-channel", {**TOUCH, "down": True}),
        ("input-channel", {**TOUCH, "id": ["1"]}),
        ("sensors-channel", b"\xff\xff"),
        ("location-channel", "nan,inf,1"),
        ("device-control", "[]"),
        ("device-control", '{"command":"add-display","width":-1,"height":1,"dpi":1,"refresh_rate_hz":1}'),
        ("cfctl-control", '{"type":'),
        ("lights-channel", "a viewer's"),
    ],
)
def test_on_data_channels(streamer: Streamer, somebody: Viewer, label: str, data: Any) -> None:
    """Of the very viewer who controls: his session goes on too."""
    before = len(streamer.heard(label))
    somebody.send(label, data)
    somebody.send("sensors-channel", "0 0 7")
    wait(lambda: [0, 0, 7] in streamer.heard("sensors-channel"), "what is well said")
    if label != "sensors-channel":
        assert len(streamer.heard(label)) == before


@pytest.mark.usefixtures("undisturbed")
def test_an_id_that_is_taken(relay: Relay) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.settimeout(PATIENCE_S)
        other.connect(str(relay.root / "run/streamers.sock"))
        other.send(b'{"message_type":"register","device_id":"pad-1"}')
        assert json.loads(other.recv(4096)) == {"error": "Device id already taken:  pad-1\n"}
        assert other.recv(4096) == b""


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "record",
    [
        b"no JSON",
        b'{"message_type":"forward"}',
        b'{"message_type":"forward","client_id":"1","payload":{}}',
        b'{"message_type":"forward","client_id":1}',
        b" " * 200_000,
    ],
)
def test_of_a_device_ends_that_device_alone(relay: Relay, record: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.settimeout(PATIENCE_S)
        other.connect(str(relay.root / "run/streamers.sock"))
        other.send(b'{"message_type":"register","device_id":"pad-2"}')
        assert json.loads(other.recv(4096))["message_type"] == "config"
        other.send(record)
        assert other.recv(4096) == b""


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "payload",
    [
        {"type": "offer", "sdp": NOWHERE},
        {"type": "offer", "sdp": "v"},
        {"type": "answer", "sdp": "v=0"},
        {"type": "ice-candidate", "mid": "9", "mLineIndex": 9, "candidate": "nothing"},
        {"type": "error", "error": "enough"},
        {"type": 1},
        None,
    ],
)
def test_a_device_whose_offer_leads_nowhere(relay: Relay, payload: Any) -> None:
    """Its viewer waits, and is told in the end; nobody else's notices."""
    # Of its own: the relay asks ever later one that never connects.
    device = f"pad-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.settimeout(PATIENCE_S)
        other.connect(str(relay.root / "run/streamers.sock"))
        other.send(json.dumps({"message_type": "register", "device_id": device}).encode())
        other.recv(1 << 16)
        viewer = Viewer("viewer", relay.listeners["web"]["address"], relay.token("operator"), device)
        try:
            # It is asked again: the relay does not give up.
            for _ in range(2):
                while (record := json.loads(other.recv(1 << 18)))["message_type"] != "client_msg":
                    pass
                told_ = {"message_type": "forward", "client_id": record["client_id"], "payload": payload}
                other.send(json.dumps(told_).encode())
                if payload is None or payload["type"] not in ("offer", "error"):
                    break
            assert viewer.process.poll() is None
        finally:
            viewer.end()


def test_a_client_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfctl.relay.media.viewer._CONNECT_S", 0.2)

    async def never_answer() -> list[dict[str, Any]]:
        def nobody(*_: object) -> Speaker:
            raise LookupError

        said: list[dict[str, Any]] = []
        hub = Hub(nobody, lambda: [])
        hub.track_came("display_0", "video")
        hub.described(["display_0"])
        viewer: Watching = hub.watch("nobody", may_control=True, told=lambda data: said.append(json.loads(data)))
        viewer.say(b'{"type":"request-offer"}')
        await viewer.wait()
        assert hub.stats()["viewers"] == []
        await hub.close()
        return said

    said = asyncio.run(asyncio.wait_for(never_answer(), PATIENCE_S))
    assert [one["type"] for one in said] == ["offer", "error"]


def test_one_who_says_too_much_at_once_ends_nobody_elses_picture() -> None:
    async def run() -> None:
        def nobody(*_: object) -> Speaker:
            raise LookupError

        offered = asyncio.Event()
        hub = Hub(nobody, lambda: [])
        hub.track_came("display_0", "video")
        hub.described(["display_0"])
        chatterer: Watching = hub.watch("one", may_control=False, told=lambda _: offered.set())
        chatterer.say(b'{"type":"request-offer"}')
        await offered.wait()
        for _ in range(256):
            chatterer.say(b'{"type":"answer","sdp":"v=0"}')
        # The device's own connection says so, which everybody has his picture from.
        hub.track_came("display_1", "video")
        await chatterer.wait()
        assert hub.stats()["viewers"] == []
        await hub.close()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_a_streamer_that_dies_and_returns(relay: Relay) -> None:
    with streaming(relay, device_id="pad-3") as first:
        viewer = Viewer("viewer", relay.listeners["web"]["address"], relay.token("operator"), "pad-3")
        try:
            viewer.wait(lambda: viewer.frames, "the first frame")
            first.process.kill()
            first.process.wait()
            count = len(viewer.frames)
            with streaming(relay, device_id="pad-3"):
                wait(lambda: len(viewer.frames) > count + 20, "the picture again")
                stamps = [one["timestamp"] for one in viewer.frames]
                assert stamps == sorted(stamps)
        finally:
            viewer.end()
