"""The audit log: whole lines, few files, and a disk that does not let us write keeps nobody from his work."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cfctl.relay import audit
from cfctl.relay.audit import Audit
from cfctl.relay.caller import About


def call(**more: Any) -> Any:
    about = {"caller": None, "token": None, **more}
    return SimpleNamespace(address="127.0.0.1:5", method="/cfctl.v1.Devices/Stop", about=About("phone"), **about)


#: Of somebody who is known: no line about him is left out.
TOKEN: Any = SimpleNamespace(id="0123abcd", user="alice")


def test_lines(tmp_path: Path) -> None:
    log = Audit(tmp_path / "relay/audit.log")
    log.open()
    log.write(call(), "token-refused", 0.12345)
    (line,) = map(json.loads, (tmp_path / "relay/audit.log").read_text().splitlines())
    assert line.pop("time").endswith("Z")
    assert line == {
        "peer": "127.0.0.1:5",
        "user": None,
        "token": None,
        "method": "/cfctl.v1.Devices/Stop",
        "device": "phone",
        "result": "token-refused",
        "seconds": 0.123,
    }
    assert (tmp_path / "relay/audit.log").stat().st_mode & 0o777 == 0o600
    log.close()


def test_it_stays_small(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.log", largest=1000)
    log.open()
    for number in range(200):
        log.write(call(token=TOKEN), f"number-{number}", 0)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", *(f"audit.log.{age}" for age in range(1, audit.KEPT + 1))]
    assert all(file.stat().st_size <= 1000 for file in files)
    newest = [json.loads(line)["result"] for line in files[0].read_text().splitlines()]
    assert newest[-1] == "number-199"
    before = [json.loads(line)["result"] for line in files[1].read_text().splitlines()]
    assert int(before[-1].partition("-")[2]) + 1 == int(newest[0].partition("-")[2])


def test_a_disk_that_fills_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """The kernel then takes a part of it, as it does at a limit of the process: what is written are whole lines."""
    log = Audit(tmp_path / "audit.log")
    log.open()
    log.write(call(), "before", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "audit.log").stat().st_size + 20, hard))
    try:
        log.write(call(), "lost", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(call(), "after", 0)
    log.close()
    lines = (tmp_path / "audit.log").read_text().splitlines()
    assert [json.loads(line)["result"] for line in lines] == ["before", "after"]


def test_it_is_opened_again_after_it_was_moved_away(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.log")
    log.open()
    (tmp_path / "audit.log").rename(tmp_path / "moved")
    log.open()
    log.write(call(), "ok", 0)
    assert (tmp_path / "audit.log").read_text().count("\n") == 1
    assert (tmp_path / "moved").read_text() == ""
    log.close()


def test_a_disk_that_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Audit(tmp_path / "audit.log")
    log.open()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._fd)
    os.close(full)
    for _ in range(3):
        log.write(call(), "ok", 0)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'audit.log'} cannot be written: [Errno 28] No space left on device"
    ]
    log.close()


def test_strangers_do_not_write_over_what_mattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(tmp_path / "audit.log", largest=4000)
    log.open()
    log.write(call(token=TOKEN), "of-alice", 0)
    for _ in range(10_000):
        log.write(call(), "token-refused", 0)
    log.write(call(token=TOKEN), "of-alice-too", 0)
    monkeypatch.setattr(audit, "STRANGERS_S", 0.0)
    log.write(call(), "token-refused", 0)
    log.close()
    text = "".join(file.read_text() for file in sorted(tmp_path.iterdir(), reverse=True))
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["result"] for line in lines if line["token"]] == ["of-alice", "of-alice-too"]
    assert len(lines) == 2 + audit.STRANGERS + 1
    assert lines[-1]["left_out"] == 10_000 - audit.STRANGERS
