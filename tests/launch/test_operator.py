"""Where a device's streamer is told to register, and what its user is told when nobody is there."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl import paths
from cfctl.launch import operator

KNOWN = frozenset({operator.FLAG, "cpus"})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a host without a relay."""
    # The path of a socket is short; pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="cfctl-o-") as directory:
        here = Path(directory)
        monkeypatch.setattr(paths, "system", lambda: paths.Paths(here, here, here, here))
        monkeypatch.setattr(paths, "current", lambda: paths.Paths(here / "own", here, here, here / "own"))
        (here / "own").mkdir()
        yield here


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_without_a_relay_the_launcher_is_told_nothing_and_its_user_what_to_do(run: Path) -> None:
    assert operator.flags(KNOWN) == []
    said = operator.advice("phone", KNOWN, stock=run / "stock")
    assert said is not None
    # One command a line, as they are typed: a relay stays in its terminal.
    assert [line.strip() for line in said.splitlines()[1:]] == [
        "cfctl relay serve --web 127.0.0.1:8443",
        "cfctl restart phone",
    ]
    # One that was killed has left its socket: nobody listens there.
    listening(run / "streamers.sock").close()
    assert operator.flags(KNOWN) == []
    assert operator.advice("phone", KNOWN, stock=run / "stock")


def test_the_hosts_relay_comes_before_ones_own(run: Path) -> None:
    with listening(run / "own/streamers.sock"):
        assert operator.flags(KNOWN) == [f"--webrtc_sig_server_addr={run}/own/streamers.sock"]
        with listening(run / "streamers.sock"):
            assert operator.flags(KNOWN) == [f"--webrtc_sig_server_addr={run}/streamers.sock"]
        assert operator.advice("phone", KNOWN, stock=run / "stock") is None


def test_a_stock_operator_needs_neither_flag_nor_word(run: Path) -> None:
    with listening(run / "stock"):
        assert operator.flags(KNOWN) == []
        assert operator.advice("phone", KNOWN, stock=run / "stock") is None


def test_whoever_says_it_himself_or_has_no_such_flag_is_left_alone(run: Path) -> None:
    with listening(run / "streamers.sock"):
        assert operator.flags(frozenset({"cpus"})) == []
    assert operator.advice("phone", frozenset({"cpus"}), stock=run / "stock") is None
