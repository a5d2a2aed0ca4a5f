"""Callers that read slowly: whoever writes waits for them, and nothing piles up in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cfctl.relay import people
from cfctl.v1 import devices_pb2, devices_pb2_grpc
from tests.launch.devices import record
from tests.relay.relays import PATIENCE_S, Relay, wait

_LINES = 5_000
_LINE = "x" * 4000


@pytest.fixture
def device(relay: Relay) -> Iterator[str]:
    """Give a device that is down, with a log of 20 MB."""
    home = relay.root / "state/devices/phone"
    logs = home / "cuttlefish/instances/cvd-1/logs"
    logs.mkdir(parents=True)
    (logs / "kernel.log").write_text("".join(f"{number} {_LINE}\n" for number in range(_LINES)))
    made = record(name="phone", stopped_at="2026-01-01T00:00:00.000Z")
    made.owner = people.by_uid(relay.root.stat().st_uid).name
    (home / "device.json").write_bytes(msgspec.json.encode(made))
    yield "phone"
    (home / "device.json").unlink()


def test_a_log_waits_for_its_reader(relay: Relay, device: str) -> None:
    with relay.here() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        assert stub.Get(devices_pb2.GetRequest(name=device), timeout=PATIENCE_S).state == "stopped"
        before = relay.rss()
        stream = stub.Logs(devices_pb2.LogsRequest(name=device, which="kernel"), timeout=PATIENCE_S)
        assert next(stream).line.startswith("0 x")
        (pid,) = wait(lambda: _logging(relay), "the log to be read")
        _stands_still(pid)
        assert relay.rss() - before < 10 << 10, "KiB"
        rest = [line.line.partition(" ")[0] for line in stream]
        assert rest == [str(number) for number in range(1, _LINES)]


def _logging(relay: Relay) -> list[int]:
    """Return the relay's children that read logs."""
    tasks = Path(f"/proc/{relay.process.pid}/task").iterdir()
    pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return [int(pid) for pid in pids if b"\0logs\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _stands_still(pid: int) -> None:
    """Wait until a program writes no more, though it is not done."""
    written, since = -1, time.monotonic()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() - since < 1:
        assert time.monotonic() < deadline, "it writes and writes"
        now = int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])
        if now != written:
            written, since = now, time.monotonic()
        time.sleep(0.05)
    assert written < _LINES * len(_LINE), "it is done, and somebody keeps it all"
