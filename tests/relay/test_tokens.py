"""Tokens: what is stored, what counts, and what two who write at once leave."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from cfctl.control.operations import Role
from cfctl.errors import CfctlError, RelayBusy, UsageError
from cfctl.relay import itself, people, tokens
from cfctl.relay.tokens import Store, Token

_HOUR = timedelta(hours=1)


def made(store: Store, ttl: timedelta = _HOUR, **more: str) -> tuple[Token, str]:
    token, secret = tokens.make(
        user=more.get("user", "me"), level=Role.OPERATOR, devices=more.get("devices", "*"), ttl=ttl
    )
    store.add(token)
    return token, secret


def test_a_secret_is_recognized_and_stored_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "relay/tokens.json"
    token, secret = made(Store(path))
    assert Store(path).recognize(secret) == token
    assert token.level is Role.OPERATOR
    assert secret not in path.read_text()
    assert secret.rpartition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "digest" not in token.as_dict()


@pytest.mark.parametrize("wrong", ["", "x", "cfctl_", "cfctl_0123abcd_" + "A" * 43, "A" * 100_000, "cfctl_é_x"])
def test_what_is_no_secret(tmp_path: Path, wrong: str) -> None:
    store = Store(tmp_path / "tokens.json")
    made(store)
    assert store.recognize(wrong) is None


def test_the_id_of_one_and_the_secret_of_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "tokens.json")
    one, secret = made(store)
    other, _ = made(store)
    assert store.recognize(secret.replace(one.id, other.id)) is None


def test_what_has_expired_does_not_count_and_is_forgotten_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    store = Store(path)
    gone, secret = made(store, -_HOUR)
    old, _ = made(store, timedelta(days=-2))
    assert gone.expired
    assert store.recognize(secret) is None
    assert [token.id for token in store.all()] == [gone.id]
    assert old.id not in path.read_text()


def test_a_store_notices_what_another_process_has_done(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "tokens.json"), Store(tmp_path / "tokens.json")
    token, secret = made(theirs)
    assert ours.recognize(secret) == token
    theirs.revoke(token.id)
    assert ours.recognize(secret) is None


def test_who_may_revoke(tmp_path: Path) -> None:
    store = Store(tmp_path / "tokens.json")
    token, _ = made(store, user="me")
    with pytest.raises(UsageError, match="there is no token"):
        store.revoke(token.id, user="you")
    assert store.revoke(token.id, user="me") == token
    with pytest.raises(UsageError):
        store.revoke(token.id)


def test_many_at_once(tmp_path: Path) -> None:
    def work() -> None:
        for _ in range(10):
            made(Store(tmp_path / "tokens.json"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Store(tmp_path / "tokens.json").all()) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tokens": [{"id": 1}]}', "\xff"])
def test_a_file_that_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CfctlError, match="cannot be read") as caught:
        Store(path).all()
    assert f"mv {path}" in (caught.value.resolution or "")
    with pytest.raises(CfctlError):
        made(Store(path))
    assert path.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize(
    ("text", "found"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("7d", 604800), ("366d", 31622400)]
)
def test_lifetimes(text: str, found: int) -> None:
    assert tokens.lifetime(text).total_seconds() == found


@pytest.mark.parametrize("text", ["", "8", "h", "0h", "-1h", "1w", "367d", "9999999d", "1.5h", "8h "])
def test_what_is_no_lifetime(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        tokens.lifetime(text)


@pytest.mark.parametrize("pattern", ["", "x" * 201, "a\nb", "é"])
def test_what_is_no_pattern(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="is no pattern"):
        made(Store(tmp_path / "tokens.json"), devices=pattern)


def test_the_list_has_no_digest(tmp_path: Path) -> None:
    token, _ = made(Store(tmp_path / "tokens.json"))
    assert set(token.as_dict()) == {"id", "user", "role", "devices", "created_at", "expires_at", "expired"}
    assert json.loads(json.dumps(token.as_dict()))


def test_nobody_has_any_number_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfctl.relay.itself._MOST_TOKENS", 2)
    store = Store(tmp_path / "tokens.json")
    root, other = people.by_uid(0), people.by_name("nobody")

    def create(own: people.User, ttl: str = "1h") -> str:
        made, _ = itself.create(store, own, user="", role="viewer", devices="*", ttl=ttl)
        return made.id

    first = create(other)
    create(other)
    with pytest.raises(RelayBusy, match="nobody has 2 tokens") as caught:
        create(other)
    assert "cfctl relay token revoke" in (caught.value.resolution or "")
    assert create(root)
    store.revoke(first)
    assert create(other)
