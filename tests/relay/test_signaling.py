"""The signalling: streamers and clients in either order, ids, polling and WebSocket, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, WSMsgType

from tests.relay.relays import PATIENCE_S, REPO, Relay, running, wait
from tests.schemas import conforms

INFO = {"displays": [], "hardware": {}, "adb_port": 6520}


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    ice = {"stun": ["stun:stun.example.org:3478"], "turn": ["turn:192.0.2.1:3478"], "secret": "s"}
    with running(web="127.0.0.1:0", ice=ice) as relay:
        yield relay


class Device:
    """A streamer, as far as its socket is concerned."""

    def __init__(self, relay: Relay, name: str = "streamers") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket.connect(str(relay.root / f"run/{name}.sock"))

    def send(self, document: Any) -> None:
        """Send a record as jsoncpp writes one."""
        data = document if isinstance(document, bytes) else (json.dumps(document, indent="\t") + "\n").encode()
        self.socket.send(data)

    def read(self) -> Any:
        """Return the next record; None at the end."""
        try:
            record = self.socket.recv(1 << 19)
        except ConnectionResetError:
            return None
        return json.loads(record) if record else None

    def register(self, id_: str, **more: Any) -> Any:
        """Register; return the answer."""
        about = {"device_id": id_, "device_port": 0, "device_info": INFO}
        self.send({"message_type": "register", **about, **more})
        return self.read()


@contextlib.contextmanager
def device(relay: Relay, id_: str, **more: Any) -> Iterator[Device]:
    """Give a device that has registered."""
    one = Device(relay)
    with one.socket:
        assert one.register(id_, **more)["message_type"] == "config"
        yield one
    wait(lambda: id_ not in [listed["device_id"] for listed in get(relay, "/devices")], "it to be gone")


def request(
    relay: Relay, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Ask the relay, with an operator's token unless other headers are given; return status, text and headers."""
    connection = http.client.HTTPConnection(urlsplit(relay.listeners["web"]["address"]).netloc, timeout=PATIENCE_S)
    if not headers:
        headers = {"Authorization": f"Bearer {relay.token('operator')}"}
    sent = body if isinstance(body, str | None) else json.dumps(body)
    connection.request(method, path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}


def get(relay: Relay, path: str) -> Any:
    status, text, _ = request(relay, "GET", path)
    assert status == 200, text
    assert text.endswith("\n")
    return json.loads(text)


def post(relay: Relay, path: str, body: Any) -> Any:
    status, text, _ = request(relay, "POST", path, body)
    assert status == 200, text
    return json.loads(text)


# -- registrations -------------------------------------------------------------------------------------------------


def test_the_answer_is_a_config_and_the_device_is_listed(relay: Relay) -> None:
    with device(relay, "pad-1"):
        assert get(relay, "/devices") == [{"device_id": "pad-1", "group_name": "", "adb_port": 0}]
        assert get(relay, "/devices/pad-1")["registration_info"] == INFO
        assert get(relay, "/devices?groupId=other") == []
    assert get(relay, "/devices") == []
    assert request(relay, "GET", "/devices/pad-1")[:2] == (404, "Device not found\n")


def test_streamers_and_viewers_are_told_of_turn_with_credentials_of_their_own(relay: Relay) -> None:
    stun, turn = get(relay, "/infra_config")["ice_servers"]
    assert stun == {"urls": ["stun:stun.example.org:3478"]}
    assert turn["urls"] == ["turn:192.0.2.1:3478"]
    until, _, user = turn["username"].partition(":")
    assert until.isdecimal()
    assert user
    assert turn["credential"]
    one = Device(relay)
    with one.socket:
        config = one.register("cvd-turn")
        assert [server["urls"] for server in config["ice_servers"]] == [stun["urls"], turn["urls"]]


@pytest.mark.parametrize(
    "record",
    [
        b"nothing",
        b"[]",
        b'{"message_type":"register"}',
        b'{"message_type":"register","device_id":7}',
        b'{"message_type":"register","device_id":"a","device_info":[]}',
        b'{"device_id":"a"}{"device_id":"b"}',
        b'{"device_id":"' + b"a" * 300_000 + b'"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_registration_ends_that_connection_alone(relay: Relay, record: bytes) -> None:
    with device(relay, "cvd-good"):
        one = Device(relay)
        with one.socket:
            one.send(record)
            assert one.read() is None
        assert [listed["device_id"] for listed in get(relay, "/devices")] == ["cvd-good"]


def test_a_streamer_that_returns_takes_over_from_itself(relay: Relay) -> None:
    first, second = Device(relay), Device(relay)
    with first.socket, second.socket:
        first.register("cvd-again")
        # The same process opens the new connection before it closes the old one.
        assert second.register("cvd-again")["message_type"] == "config"
        assert first.read() is None
        assert len(get(relay, "/devices")) == 1


def test_an_id_that_another_process_has_is_refused(relay: Relay) -> None:
    program = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect(sys.argv[1])\n"
        's.send(b\'{"device_id":"cvd-mine"}\')\nprint(s.recv(4096).decode(), flush=True)\ns.recv(1)\n'
    )
    argv = ["python3", "-c", program, str(relay.root / "run/streamers.sock")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert json.loads(other.stdout.readline())["message_type"] == "config"
        one = Device(relay)
        with one.socket:
            assert one.register("cvd-mine") == {"error": "Device id already taken:  cvd-mine\n"}
            assert one.read() is None
        assert len(get(relay, "/devices")) == 1
        other.kill()
    wait(lambda: get(relay, "/devices") == [], "it to be gone")


def test_announced_devices_have_their_group_and_their_launcher_hears_of_them(relay: Relay) -> None:
    launcher = Device(relay, "expected")
    with launcher.socket:
        devices = [
            {"id": "cvd_1-1-1", "name": "1", "adb_port": 6520},
            {"id": "cvd_1-2-2", "name": "2", "adb_port": 6521},
        ]
        launcher.send({"message_type": "pre-register", "group_name": "cvd_1", "owner": "alice", "devices": devices})
        assert launcher.read() == [
            {"id": "cvd_1-1-1", "status": "accepted", "message": ""},
            {"id": "cvd_1-2-2", "status": "accepted", "message": ""},
        ]
        with device(relay, "cvd_1-1-1"):
            assert launcher.read() == {"id": "cvd_1-1-1", "status": "registered", "message": ""}
            assert get(relay, "/devices?groupId=cvd_1&owner=alice") == [
                {"device_id": "cvd_1-1-1", "group_name": "cvd_1", "owner": "alice", "name": "1", "adb_port": 6520}
            ]
            second = Device(relay, "expected")
            with second.socket:
                second.send({"message_type": "pre-register", "devices": devices})
                assert [one["message"] for one in second.read()] == [
                    "Device Id already registered",
                    "Device Id already pre-registered",
                ]


# -- clients -------------------------------------------------------------------------------------------------------


def test_a_direct_client_that_polls(relay: Relay) -> None:
    with device(relay, "pad-1") as streamer:
        made = post(relay, "/polled_connections?direct=1", {"device_id": "pad-1"})
        assert made["device_info"] == INFO
        assert len(made["connection_id"]) == 64
        place = f"/polled_connections/{made['connection_id']}"
        payload = {"type": "request-offer", "ice_servers": []}
        assert post(relay, f"{place}/:forward", {"payload": payload}) == "ok"
        told = streamer.read()
        assert (told["message_type"], told["payload"]) == ("client_msg", payload)
        assert get(relay, f"{place}/messages?start=0") == []
        for number in range(3):
            offer = {"type": "offer", "sdp": f"v={number}"}
            streamer.send({"message_type": "forward", "client_id": told["client_id"], "payload": offer})
        wait(lambda: len(get(relay, f"{place}/messages")) == 3, "the offers")
        second = get(relay, f"{place}/messages?start=1&count=1")
        assert second == [{"message_type": "device_msg", "payload": {"type": "offer", "sdp": "v=1"}}]
        assert get(relay, f"{place}/messages?start=3") == []
        assert get(relay, f"{place}/messages?start=99") == []
        assert request(relay, "GET", f"{place}/messages?start=-1")[:2] == (400, "Invalid value for start field\n")
        assert request(relay, "GET", f"{place}/messages?count=x")[:2] == (400, "Invalid value for count field\n")
        # To nobody: dropped, and the streamer hears no error.
        streamer.send({"message_type": "forward", "client_id": 1, "payload": {"type": "offer", "sdp": "v"}})
        assert post(relay, f"{place}/:forward", {"payload": {"type": "answer", "sdp": "v"}}) == "ok"
        assert streamer.read()["payload"]["type"] == "answer"
    assert request(relay, "GET", f"{place}/messages")[0] == 404


def test_ids_of_clients_never_come_again(relay: Relay) -> None:
    seen = []
    for _ in range(2):
        with device(relay, "pad-1") as streamer:
            made = post(relay, "/polled_connections?direct=1", {"device_id": "pad-1"})
            body = {"payload": {"type": "request-offer"}}
            post(relay, f"/polled_connections/{made['connection_id']}/:forward", body)
            seen.append(streamer.read()["client_id"])
    assert len(set(seen)) == 2
    assert all(0 < one < 2**31 for one in seen)


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "answer", "sdp": "v"},
        {"type": "ice-candidate", "candidate": {"candidate": "c", "sdpMid": "0", "sdpMLineIndex": 0}},
        {"type": "ice-candidate", "candidate": None},
        {"type": "bogus"},
        [],
        None,
    ],
)
def test_nothing_reaches_a_streamer_before_an_offer_was_asked_for(relay: Relay, payload: Any) -> None:
    with device(relay, "pad-1") as streamer:
        made = post(relay, "/polled_connections?direct=1", {"device_id": "pad-1"})
        place = f"/polled_connections/{made['connection_id']}/:forward"
        assert request(relay, "POST", place, {"payload": payload})[0] == 400
        post(relay, place, {"payload": {"type": "request-offer"}})
        assert streamer.read()["payload"]["type"] == "request-offer"


def test_a_client_over_a_websocket_and_both_ends(relay: Relay) -> None:
    async def talk(streamer: Device) -> None:
        headers = {"Authorization": f"Bearer {relay.token('operator')}"}
        address = relay.listeners["web"]["address"] + "/devices/pad-1/connect?direct=1"
        loop = asyncio.get_running_loop()
        async with ClientSession() as session:
            async with session.ws_connect(address, headers=headers) as client:
                assert json.loads(await client.receive_str()) == {"device_info": INFO}
                await client.send_str("this is no JSON")
                failure = json.loads(await client.receive_str())
                assert failure["payload"]["type"] == "error"
                await client.send_bytes(b'{"type":"request-offer"}')
                told = await loop.run_in_executor(None, streamer.read)
                payload = {"type": "offer", "sdp": "v"}
                streamer.send({"message_type": "forward", "client_id": told["client_id"], "payload": payload})
                frame = await client.receive_str()
                assert frame.endswith("\n")
                assert json.loads(frame) == {"message_type": "device_msg", "payload": payload}
            gone = await loop.run_in_executor(None, streamer.read)
            assert gone == {"message_type": "client_disconnected", "client_id": told["client_id"]}
            async with session.ws_connect(address, headers=headers) as client:
                await client.receive_str()
                await client.send_str(" " * 70_000)
                assert (await client.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
                assert client.close_code == 1009
            async with session.ws_connect(address, headers=headers) as client:
                await client.receive_str()
                streamer.socket.shutdown(socket.SHUT_RDWR)
                assert json.loads(await client.receive_str()) == {"error": "Device disconnected"}

    with device(relay, "pad-1") as streamer:
        asyncio.run(asyncio.wait_for(talk(streamer), PATIENCE_S))


def test_a_streamer_is_waited_for_by_viewers_of_the_hub_only(relay: Relay) -> None:
    """Whoever polls a device before it has registered is told that there is none."""
    assert request(relay, "POST", "/polled_connections", {"device_id": "cvd-later"})[:2] == (
        404,
        "Device not found\n",
    )
    with device(relay, "cvd-later"):
        assert post(relay, "/polled_connections", {"device_id": "cvd-later"})["device_info"] == INFO


def test_what_is_not_there_is_404_as_the_stock_operator_says_it(relay: Relay) -> None:
    for method, path in (
        ("POST", "/devices"),
        ("GET", "/polled_connections"),
        ("GET", "/connect_client"),
        ("PUT", "/"),
    ):
        status, text, _ = request(relay, method, path)
        assert (status, text) == (404, "404 page not found\n"), path
    assert request(relay, "POST", "/polled_connections", "{")[0] == 400
    with device(relay, "pad-1"):
        assert request(relay, "GET", "/devices/pad-1/connect")[:2] == (400, "Bad Request\n")


def test_our_connector_stands_where_upstreams_operator_has_its_own(relay: Relay) -> None:
    with device(relay, "pad-1"):
        status, text, headers = request(relay, "GET", "/devices/pad-1/files/js/server_connector.js")
        assert status == 200
        assert headers["content-type"].startswith("text/javascript")
        for name in ("deviceId", "createConnector", "createParentController"):
            assert f"function {name}(" in text
        # Nobody listens on the port that it names.
        status, text, headers = request(relay, "GET", "/devices/pad-1/files/client.html")
        assert (status, text, headers["x-cutf-proxy"]) == (502, "", "op-device")


# -- who may -------------------------------------------------------------------------------------------------------


def test_nothing_is_told_without_a_token(relay: Relay) -> None:
    for path in ("/devices", "/infra_config", "/api/devices", "/devices/x/connect", "/api/session"):
        assert request(relay, "GET", path, Accept="*/*")[0] == 401, path
        assert request(relay, "GET", path, Authorization="Bearer wrong")[0] == 401, path
        assert request(relay, "GET", path, Cookie="cfctl_session=wrong")[0] == 401, path
    assert request(relay, "GET", "/", Accept="*/*")[0] == 200
    assert request(relay, "GET", "/static/../web.py", Accept="*/*")[0] == 401
    assert request(relay, "GET", "/static/__init__.py", Accept="*/*")[0] == 404


def test_a_session_is_of_use_to_pages_of_the_relay_alone(relay: Relay) -> None:
    address = relay.listeners["web"]["address"]
    secret = {"token": relay.token("operator")}
    assert request(relay, "POST", "/session", secret, Origin="http://evil.example")[0] == 403
    assert request(relay, "POST", "/session", secret, Accept="*/*")[0] == 403
    status, _, headers = request(relay, "POST", "/session", secret, Origin=address)
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    name = cookie.partition(";")[0]
    assert request(relay, "GET", "/devices", Cookie=name)[0] == 200
    with device(relay, "pad-1"):
        body = {"device_id": "pad-1"}
        assert request(relay, "POST", "/polled_connections", body, Cookie=name)[0] == 403
        assert (
            request(relay, "POST", "/polled_connections", body, Cookie=name, Origin="http://evil.example")[0] == 403
        )
        assert request(relay, "POST", "/polled_connections", body, Cookie=name, Origin="null")[0] == 403
        assert request(relay, "POST", "/polled_connections", body, Cookie=name, Origin=address)[0] == 200
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        upgrade["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        path = "/devices/pad-1/connect"
        assert request(relay, "GET", path, Cookie=name, Origin="http://evil.example", **upgrade)[0] == 403
        assert request(relay, "GET", path, Cookie=name, **upgrade)[0] == 403
    assert request(relay, "DELETE", "/session", Cookie=name, Origin=address)[0] == 200
    assert request(relay, "GET", "/devices", Cookie=name)[0] == 401


def test_pages_bring_their_policy(relay: Relay) -> None:
    _, text, headers = request(relay, "GET", "/", Accept="*/*")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in text
    assert " style=" not in text
    assert " onclick=" not in text


def test_a_pattern_hides_other_devices_and_a_viewer_gets_no_direct_way(relay: Relay) -> None:
    narrow = {"Authorization": f"Bearer {relay.token('viewer', devices='farm-*')}"}
    viewer = {"Authorization": f"Bearer {relay.token('viewer')}"}
    with device(relay, "pad-1") as streamer:
        assert request(relay, "GET", "/devices", **narrow)[1] == "[]\n"
        assert request(relay, "GET", "/devices/pad-1", **narrow)[0] == 404
        assert request(relay, "GET", "/devices/pad-1/adb", **viewer)[0] == 403
        _, text, _ = request(relay, "POST", "/polled_connections?direct=1", {"device_id": "pad-1"}, **viewer)
        place = f"/polled_connections/{json.loads(text)['connection_id']}"
        # Somebody else's connection is nobody's.
        assert request(relay, "POST", f"{place}/:forward", {"payload": {"type": "request-offer"}}, **viewer)[0] == 200
        told = streamer.read()
        offers = [{"type": "request-offer"}, told["payload"]]
        assert offers[1]["type"] == "request-offer"
        # The relay's own client, not the viewer's: what the viewer says does not reach the device.
        answer = {"payload": {"type": "answer", "sdp": "of the viewer"}}
        request(relay, "POST", f"{place}/:forward", answer, **viewer)
        streamer.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            streamer.read()


def test_a_link_counts_once(relay: Relay) -> None:
    environment = {**os.environ, "CFCTL_PATHS_RUNTIME": str(relay.root / "run"), "PYTHONPATH": str(REPO)}
    for name in ("config", "state", "cache"):
        environment[f"CFCTL_PATHS_{name.upper()}"] = str(relay.root / name)
    program = [sys.executable, "-m", "cfctl", "open", "--role", "viewer", "--json"]
    with device(relay, "pad-1"):
        done = subprocess.run([*program, "pad-1"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        link = json.loads(done.stdout)
        conforms(link, "link")
        assert link["device"] == "pad-1"
        assert link["role"] == "viewer"
        url = urlsplit(link["url"])
        code = dict(pair.split("=") for pair in url.fragment.split("&"))["code"]
        origin = f"{url.scheme}://{url.netloc}"
        status, text, _ = request(relay, "POST", "/session", {"code": code}, Origin=origin)
        assert (status, json.loads(text)["role"]) == (200, "viewer")
        assert request(relay, "POST", "/session", {"code": code}, Origin=origin)[0] == 401
        assert code not in (relay.root / "state/relay/audit.log").read_text()
        unknown = subprocess.run([*program, "nothing"], env=environment, capture_output=True, text=True, check=False)
        assert unknown.returncode == 1
        assert "nothing" in unknown.stderr + unknown.stdout
