"""What systemd is told (sd_notify(3)), over a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.hostres.service_manager import Manager


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        yield sock


def test_everything_that_is_said(systemd: socket.socket) -> None:
    manager = Manager()
    manager.ready("well")
    manager.status("hm")
    manager.stopping()
    manager.alive()
    said = [systemd.recv(1000).decode() for _ in range(4)]
    assert said == ["READY=1\nSTATUS=well", "STATUS=hm", "STOPPING=1", "WATCHDOG=1"]
    manager.reloading()
    first, second = systemd.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.partition("=")[2].isdecimal()
    assert manager.every_s is None
    # Programs that we start are no services.
    assert "NOTIFY_SOCKET" not in os.environ


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("2000000", None, 1.0), ("2000000", "ours", 1.0), ("2000000", "1", None), ("0", None, None)],
)
def test_how_often_it_wants_to_hear(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    assert Manager().every_s == seconds


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/at/all", "@nobody"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    Manager().ready("well")
