"""Sessions of browsers outlive the relay: hashed, bounded, and no longer than what they were made with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cfctl.control.operations import Role
from cfctl.errors import TokenRefused
from cfctl.relay import people, tokens
from cfctl.relay.web.access import Access
from cfctl.relay.web.cookies import Cookies

_ROOT = people.by_uid(0)
_PEER = "192.0.2.1"


def started(directory: Path) -> Access:
    """Return what a relay that starts now makes of its files."""
    return Access(_ROOT, tokens.Store(directory / "tokens.json"), Cookies(directory / "relay" / "sessions.json"))


def test_a_session_outlives_the_relay_and_no_secret_is_stored(tmp_path: Path) -> None:
    made, secret = tokens.make(user="root", level=Role.OPERATOR, devices="phone", ttl=timedelta(hours=1))
    tokens.Store(tmp_path / "tokens.json").add(made)
    before = started(tmp_path)
    by_token, _ = before.begin(_PEER, secret=secret)
    by_link, _ = before.begin(_PEER, code=before.link(_ROOT, Role.VIEWER, "pad-*"))
    left, _ = before.begin(_PEER, code=before.link(_ROOT, Role.VIEWER, "*"))
    before.end(left)

    after = started(tmp_path)
    assert after.admit(_PEER, by_token, "").role == Role.OPERATOR
    looks = after.admit(_PEER, by_link, "")
    assert looks.role == Role.VIEWER
    assert looks.sees("pad-1")
    assert not looks.sees("phone")
    assert after.still(looks)
    with pytest.raises(TokenRefused):
        after.admit(_PEER, left, "")

    file = tmp_path / "relay" / "sessions.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for told in (by_token, by_link, secret, made.digest):
        assert told not in file.read_text()


def test_what_counts_no_more_lets_nobody_in_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tokens.Store(tmp_path / "tokens.json")
    made, secret = tokens.make(user="root", level=Role.OPERATOR, devices="*", ttl=timedelta(hours=1))
    store.add(made)
    access = started(tmp_path)
    revoked, _ = access.begin(_PEER, secret=secret)
    monkeypatch.setattr("cfctl.relay.web.access._SESSION", timedelta(0))
    old, _ = access.begin(_PEER, code=access.link(_ROOT, Role.VIEWER, "*"))
    store.revoke(made.id)
    again = started(tmp_path)
    for name in (revoked, old, "", "never given", "\udcff"):
        with pytest.raises(TokenRefused, match=r"calls without a valid token"):
            again.admit(_PEER, name, "")
    # They are not kept for ever either.
    again.link(_ROOT, Role.VIEWER, "*")
    assert (tmp_path / "relay" / "sessions.json").read_text().count("digest") == 0


def test_the_file_has_no_more_of_a_user_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfctl.relay.web.cookies._MOST", 2)
    access = started(tmp_path)
    names = [access.begin(_PEER, code=access.link(_ROOT, Role.VIEWER, "*"))[0] for _ in range(4)]
    again = started(tmp_path)
    for gone in names[:2]:
        with pytest.raises(TokenRefused):
            again.admit(_PEER, gone, "")
    for kept in names[2:]:
        assert again.admit(_PEER, kept, "")


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "broken",
        "[]",
        '{"sessions": [{}]}',
        '{"sessions": [{"digest": "1", "stored": false, "token": {"id": "link-1"}}]}',
        '{"sessions": [{"digest": "1", "stored": false, "token": {"id": "link-1", "digest": "", "user": "root",'
        ' "role": "emperor", "devices": "*", "created_at": "", "expires_at": "2100-01-01T00:00:00+00:00"}}]}',
        '{"sessions": [{"digest": "1", "stored": false, "token": {"id": "link-1", "digest": "", "user": "root",'
        ' "role": "viewer", "devices": "*", "created_at": "", "expires_at": "some day"}}]}',
    ],
)
def test_a_damaged_file_lets_nobody_in_and_keeps_nobody_out(tmp_path: Path, damaged: str) -> None:
    file = tmp_path / "relay" / "sessions.json"
    file.parent.mkdir()
    file.write_text(damaged)
    access = started(tmp_path)
    name, _ = access.begin(_PEER, code=access.link(_ROOT, Role.VIEWER, "*"))
    assert access.admit(_PEER, name, "")
    assert started(tmp_path).admit(_PEER, name, "")


def test_where_nothing_can_be_written_a_session_lasts_as_long_as_the_relay(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("no directory")
    access = started(tmp_path)
    name, _ = access.begin(_PEER, code=access.link(_ROOT, Role.VIEWER, "*"))
    assert access.admit(_PEER, name, "")
    with pytest.raises(TokenRefused):
        started(tmp_path).admit(_PEER, name, "")
