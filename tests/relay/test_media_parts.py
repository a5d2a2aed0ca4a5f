"""The pure parts of the fan-out: a viewer's buffer and pace, hands, credentials, and whose link it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from cfctl.control.operations import Role
from cfctl.errors import NotAllowed, TokenRefused
from cfctl.relay import people, tokens
from cfctl.relay.media import ice
from cfctl.relay.media.frames import Buffer, Frame, Pace
from cfctl.relay.media.hands import Hands
from cfctl.relay.media.ice import Ice
from cfctl.relay.streamers import Streamers
from cfctl.relay.web.access import Access, level, same_origin
from cfctl.relay.web.cookies import Cookies
from cfctl.relay.web.ports import owner_of
from cfctl.wire import webrtc_channels as channels


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def frame(number: int, at: float, *, key: bool = False, size: int = 100) -> Frame:
    return Frame(bytes(size), number, key, at)


def test_a_buffer_begins_with_a_key_frame() -> None:
    clock = Clock()
    buffer = Buffer(clock)
    buffer.push(frame(1, clock.now))
    assert (len(buffer), buffer.needs_key, buffer.dropped) == (0, True, 1)
    buffer.push(frame(2, clock.now, key=True))
    buffer.push(frame(3, clock.now))
    assert [found.timestamp for found in iter(buffer.pop, None)] == [2, 3]


def test_a_viewer_who_is_behind_goes_on_from_the_next_key_frame() -> None:
    clock = Clock()
    buffer = Buffer(clock)
    buffer.push(frame(0, clock.now, key=True))
    for number in range(1, 200):
        buffer.push(frame(number, clock.now))
    assert len(buffer) <= 50
    assert buffer.needs_key
    buffer.push(frame(200, clock.now))
    assert buffer.pop() is None
    buffer.push(frame(201, clock.now, key=True))
    buffer.push(frame(202, clock.now))
    assert [found.timestamp for found in iter(buffer.pop, None)] == [201, 202]


def test_of_sound_no_frame_stands_for_those_before() -> None:
    clock = Clock()
    buffer = Buffer(clock, sound=True)
    for number in range(10):
        buffer.push(frame(number, clock.now, key=True))
    assert [found.timestamp for found in iter(buffer.pop, None)] == list(range(10))
    assert buffer.dropped == 0


def test_what_is_too_old_or_too_much_is_not_sent() -> None:
    clock = Clock()
    buffer = Buffer(clock)
    buffer.push(frame(0, clock.now, key=True))
    clock.now += 2
    assert buffer.pop() is None
    assert buffer.needs_key
    buffer.push(frame(1, clock.now, key=True, size=900_000))
    buffer.push(frame(2, clock.now, size=200_000))
    assert (len(buffer), buffer.needs_key) == (0, True)


def test_a_viewers_pace_is_what_he_measures() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.sent(10_000_000)
    assert pace.wait() == 0
    pace.measured(1_000_000)
    pace.sent(375_000)  # two seconds at 1.5 Mbit/s
    assert pace.wait() == pytest.approx(1.5)
    clock.now += 1
    assert pace.wait() == pytest.approx(0.5)
    clock.now += 3.5
    assert pace.silent
    pace.heard()
    assert not pace.silent


def touch(*ids: int, down: bool = True, label: str = "display_0") -> channels.MultiTouch:
    return channels.MultiTouch(list(ids), [1] * len(ids), [2] * len(ids), int(down), label)  # type: ignore[arg-type]


def test_fingers_of_two_viewers_are_told_apart() -> None:
    hands = Hands("shared")
    for viewer in (1, 2):
        hands.enter(viewer, may_control=True)
        assert hands.controls(viewer)
    assert hands.input(1, touch(5)) == touch(0)
    assert hands.input(2, touch(5)) == touch(1)
    assert hands.input(2, touch(5, 6)) == touch(1, 2)
    assert hands.input(1, touch(5, down=False)) == touch(0, down=False)
    # Lifted already.
    assert hands.input(1, touch(5, down=False)) is None
    assert hands.input(1, touch(8)) == touch(0)
    assert hands.leave(2) == ([touch(1, 2, down=False)], [])
    assert hands.input(1, touch(*range(20, 34))) == touch(*range(1, 10))


def test_who_only_looks_never_controls() -> None:
    hands = Hands("one")
    hands.enter(1, may_control=False)
    hands.enter(2, may_control=True)
    assert not hands.controls(1)
    assert hands.controls(2)
    hands.press(2, channels.Press("power", "down"))
    assert hands.take(1) == ([], [])
    assert hands.holder == 2
    assert hands.leave(2) == ([], [channels.Press("power", "up")])
    assert hands.holder is None


def test_credentials_of_turn_are_what_coturn_checks() -> None:
    name, password = ice.credentials("alice", "secret", 1000, 60)
    assert name == "1060:alice"
    assert base64.b64decode(password) == hmac.digest(b"secret", b"1060:alice", hashlib.sha1)
    servers = Ice(turn=("turn:192.0.2.1",), secret="secret", clock=lambda: 1000).for_viewer("alice").ice_servers
    assert servers[0].username == f"{1000 + ice.TURN_S}:alice"
    assert Ice().for_viewer("alice").ice_servers == []


@pytest.mark.parametrize(
    ("headers", "bearer", "same"),
    [
        ({"Host": "a:1", "Origin": "http://a:1"}, False, True),
        ({"Host": "a:1", "Origin": "https://A:1"}, False, True),
        ({"Host": "a:1", "Origin": "http://a:2"}, False, False),
        ({"Host": "a:1", "Origin": "http://a:2"}, True, False),
        ({"Host": "a:1", "Origin": "http://b:1"}, False, False),
        ({"Host": "a:1", "Origin": "null"}, False, False),
        ({"Host": "a:1", "Origin": "http://x@a:1"}, False, False),
        ({"Host": "a:1"}, False, False),
        ({"Host": "a:1"}, True, True),
        ({"Origin": "http://"}, False, False),
    ],
)
def test_whose_page_asks(headers: dict[str, str], *, bearer: bool, same: bool) -> None:
    assert same_origin(headers, bearer=bearer) is same


def test_links_and_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = people.by_uid(0)
    store = tokens.Store(tmp_path / "tokens.json")
    access = Access(own, store, Cookies(tmp_path / "sessions.json"))
    code = access.link(own, Role.VIEWER, "phone")
    name, token = access.begin("192.0.2.1", code=code)
    assert (token.role, token.devices) == ("viewer", "phone")
    assert access.admit("192.0.2.1", name, "").sees("phone")
    assert not access.admit("192.0.2.1", name, "").sees("other")
    with pytest.raises(TokenRefused):
        access.begin("192.0.2.1", code=code)
    monkeypatch.setattr("cfctl.relay.web.access.LINK_S", -1.0)
    with pytest.raises(TokenRefused):
        access.begin("192.0.2.1", code=access.link(own, Role.VIEWER, "phone"))
    made, secret = tokens.make(user=own.name, level=Role.OPERATOR, devices="*", ttl=timedelta(hours=1))
    store.add(made)
    name, _ = access.begin("192.0.2.1", secret=secret)
    caller = access.admit("192.0.2.1", name, "")
    assert access.still(caller)
    store.revoke(made.id)
    assert not access.still(caller)
    with pytest.raises(TokenRefused):
        access.admit("192.0.2.1", name, "")


def test_whoever_guesses_has_to_wait(tmp_path: Path) -> None:
    access = Access(people.by_uid(0), tokens.Store(tmp_path / "tokens.json"), Cookies(tmp_path / "sessions.json"))
    for _ in range(20):
        with pytest.raises(TokenRefused):
            access.begin("192.0.2.1", code="wrong")
    good = access.link(people.by_uid(0), Role.VIEWER, "*")
    with pytest.raises(TokenRefused, match="Too many"):
        access.begin("192.0.2.1", code=good)
    assert access.begin("192.0.2.2", code=good)


def test_nobody_takes_the_links_and_sessions_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfctl.relay.web.access._MOST_LINKS", 2)
    monkeypatch.setattr("cfctl.relay.web.cookies._MOST", 2)
    root, other = people.by_uid(0), people.by_name("nobody")
    access = Access(root, tokens.Store(tmp_path / "tokens.json"), Cookies(tmp_path / "sessions.json"))
    waits = access.link(root, Role.VIEWER, "*")
    session, _ = access.begin("192.0.2.1", code=access.link(root, Role.VIEWER, "*"))
    links = [access.link(other, Role.VIEWER, "*") for _ in range(5)]
    with pytest.raises(TokenRefused):
        access.begin("192.0.2.2", code=links[0])
    first, _ = access.begin("192.0.2.2", code=links[4])
    for _ in range(5):
        access.begin("192.0.2.2", code=access.link(other, Role.VIEWER, "*"))
    with pytest.raises(TokenRefused):
        access.admit("192.0.2.2", first, "")
    assert access.admit("192.0.2.1", session, "")
    assert access.begin("192.0.2.1", code=waits)


def test_any_number_of_addresses_may_be_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfctl.relay.web.access._MOST_REFUSED", 100)
    access = Access(people.by_uid(0), tokens.Store(tmp_path / "tokens.json"), Cookies(tmp_path / "sessions.json"))
    for number in range(1000):
        with pytest.raises(TokenRefused):
            access.begin(f"2001:db8:0:{number:x}::1", code="wrong")
    assert len(access._refused) <= 100


def test_tokens_that_cannot_be_read_are_no_strangers_business(tmp_path: Path) -> None:
    own = people.by_uid(0)
    path = tmp_path / "tokens.json"
    store = tokens.Store(path)
    made, secret = tokens.make(user=own.name, level=Role.OPERATOR, devices="*", ttl=timedelta(hours=1))
    store.add(made)
    access = Access(own, store, Cookies(tmp_path / "sessions.json"))
    name, _ = access.begin("192.0.2.1", secret=secret)
    caller = access.admit("192.0.2.1", name, "")
    path.write_text("broken")
    for refused in (("", f"Bearer {secret}"), (name, "")):
        with pytest.raises(TokenRefused):
            access.admit("192.0.2.1", *refused)
    with pytest.raises(TokenRefused):
        access.begin("192.0.2.1", secret=secret)
    # Who looks goes on looking until somebody can tell.
    assert access.still(caller)
    path.write_text('{"tokens": []}')
    assert not access.still(caller)


def test_a_link_goes_no_further_than_who_has_it_made() -> None:
    assert level("", Role.ADMIN) is Role.OPERATOR
    with pytest.raises(NotAllowed):
        level("admin", Role.OPERATOR)


def test_who_listens_on_a_port_is_asked_of_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert owner_of(listener.getsockname()[1]) == 0
        port = listener.getsockname()[1]
    assert owner_of(port) is None


def test_a_relay_that_is_started_again_gives_out_other_ids() -> None:
    ids = {Streamers().next_id() for _ in range(5)}
    assert len(ids) == 5
    assert all(0 < one < 1 << 30 for one in ids)
