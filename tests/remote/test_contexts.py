"""The file of contexts: what is written is read, by nobody else, whole, whoever writes at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import paths
from cfctl.errors import CfctlError, NoSuchContext, RelayUntrusted, UsageError
from cfctl.remote import choice, contexts
from cfctl.remote.contexts import Book, Context

REPO = Path(__file__).resolve().parents[2]
LAB = Context("lab", "lab.example:7070", "ab" * 32, "PEM", "cfctl-relay", "secret")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_PATHS_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_what_is_written_is_read(home: Path) -> None:
    assert contexts.load() == Book()
    contexts.add(LAB)
    other = Context("other", "unix:/run/cfctl/relay.sock")
    contexts.add(other)
    assert contexts.load() == Book((LAB, other))
    newer = Context("lab", "lab.example:7071", "cd" * 32)
    assert contexts.add(newer).get("lab") == newer
    assert contexts.use("lab").current == "lab"
    assert choice.in_use() == "lab"
    assert contexts.use("local").current == ""
    contexts.use("lab")
    assert contexts.remove("lab") == Book((other,))
    assert choice.in_use() == ""


def test_nobody_else_may_read_it(home: Path) -> None:
    before = os.umask(0)
    try:
        contexts.add(LAB)
    finally:
        os.umask(before)
    about = paths.current().contexts.stat()
    assert stat.S_IMODE(about.st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(file.name for file in home.iterdir()) == [".contexts.lock", "contexts.json"]


def test_the_token_is_never_shown() -> None:
    assert "secret" not in json.dumps(LAB.as_dict(current=True))


def test_many_writers_at_once_lose_nothing(home: Path) -> None:
    code = (
        "import sys\nfrom cfctl.remote import contexts\n"
        "for n in range(5): contexts.add(contexts.Context(f'c{sys.argv[1]}-{n}', 'h:1'))"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    writers = [subprocess.Popen([sys.executable, "-c", code, str(number)], env=env) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(contexts.load().contexts) == 20


@pytest.mark.parametrize("text", ["", "[]", '{"contexts": [{"name": 1}], "current": ""}', '{"contexts": []}', "{"])
def test_a_damaged_file_is_named(home: Path, text: str) -> None:
    home.mkdir()
    (home / "contexts.json").write_text(text)
    with pytest.raises(CfctlError, match=r"contexts\.json is damaged"):
        contexts.load()


def test_what_a_later_version_has_added_does_no_harm(home: Path) -> None:
    home.mkdir()
    row = {"name": "lab", "address": "h:1", "colour": "green"}
    (home / "contexts.json").write_text(json.dumps({"contexts": [row], "current": "lab"}))
    assert contexts.load() == Book((Context("lab", "h:1"),), "lab")


def test_one_that_is_not_known() -> None:
    contexts.add(LAB)
    for call in (contexts.use, contexts.remove, choice.context):
        with pytest.raises(NoSuchContext) as caught:
            call("lap")
        # Nobody makes a context to remove it.
        made = "" if call is contexts.remove else "\nOr make it: cfctl context add lap HOST:PORT"
        assert str(caught.value) == (
            f"there is no context 'lap'\nContexts: lab.\nList them: cfctl context list{made}"
        )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("lab.example:7070", "lab.example:7070"),
        ("192.0.2.1:07070", "192.0.2.1:7070"),
        ("[2001:db8::1]:7070", "[2001:db8::1]:7070"),
        ("unix:/run/cfctl/relay.sock", "unix:/run/cfctl/relay.sock"),
        ("unix:///run/cfctl/relay.sock", "unix:/run/cfctl/relay.sock"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert contexts.address(text) == address


@pytest.mark.parametrize(
    "text",
    ["lab", "lab:", ":7070", "lab:0", "lab:65536", "2001:db8::1:7070", "a b:1", "me@lab:1", "http://lab:1", "unix:x"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        contexts.address(text)


@pytest.mark.parametrize("text", ["local", "", "-lab", "a/b", "a" * 64, "lab:1"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="a context cannot be called"):
        contexts.name(text)


def test_fingerprints_as_tools_write_them() -> None:
    plain = "0123456789abcdef" * 4
    pairs = ":".join(plain[at : at + 2] for at in range(0, 64, 2)).upper()
    for text in (plain, pairs, f"SHA256:{plain}", f"sha256 Fingerprint={pairs}", f" {plain}\n", f"sha-256={plain}"):
        assert contexts.fingerprint(text) == plain
    for wrong in ("", plain[1:], plain + "0", "g" * 64):
        with pytest.raises(UsageError, match="no SHA-256 fingerprint"):
            contexts.fingerprint(wrong)


@given(st.text(), st.text())
def test_nothing_that_is_typed_is_a_bug(one: str, other: str) -> None:
    for read in (contexts.address, contexts.name, contexts.fingerprint):
        # Anything else would fail the test.
        with contextlib.suppress(UsageError):
            read(one + ":" + other)


def test_an_address_is_for_the_relay_that_was_pinned_there() -> None:
    contexts.add(LAB)
    assert choice.context("lab.example:7070") == LAB
    assert choice.context("unix:/run/x").is_local_socket
    with pytest.raises(RelayUntrusted) as caught:
        choice.context("lab.example:7071")
    assert "Nothing was sent" in str(caught.value)
    assert "cfctl context add NAME lab.example:7071" in str(caught.value)
