"""The embedded guest's streamer and its clients: one that asks anew is heard, one that says too much is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Raw

from cfctl.guest.streamer.sessions import Sessions
from cfctl.wire import webrtc_messages as messages

PATIENCE_S = 60.0

ASK = b'{"type":"request-offer"}'


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def serving(tmp_path: Path) -> tuple[Sessions, list[str], list[str]]:
    """Return the sessions of a device without a VM, what the clients are told, and what is said in the log."""
    told: list[str] = []
    log: list[str] = []
    part = {"adb_host_port": 6520, "cpus": 1, "memory_mb": 1, "gpu_mode": "none", "webrtc_device_id": "cvd-1"}
    sessions = Sessions(tmp_path / "vnc", tmp_path / "monitor", part, "display_0", log.append)

    async def forward(_client: int, payload: bytes) -> None:
        told.append(json.loads(payload)["type"])

    sessions.forward = forward
    return sessions, told, log


def test_one_that_asks_anew_as_its_connection_ends_is_heard(tmp_path: Path) -> None:
    async def ask() -> None:
        sessions, told, _ = serving(tmp_path)
        await sessions.hear(messages.ClientMsg(7, Raw(ASK)))
        await until(lambda: told == ["offer"])
        closing = asyncio.ensure_future(sessions._peers[7].close())
        await asyncio.sleep(0)
        # Its end has begun, and nobody has seen it yet.
        await sessions.hear(messages.ClientMsg(7, Raw(ASK)))
        await closing
        await until(lambda: told == ["offer", "offer"])
        await sessions.hear(messages.ClientDisconnected(7))
        await until(lambda: not sessions._orders)
        assert not sessions._peers
        await sessions.close()

    asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))


def test_one_that_says_too_much_is_not_heard(tmp_path: Path) -> None:
    async def flood() -> None:
        sessions, _, log = serving(tmp_path)
        for _ in range(1000):
            await sessions.hear(messages.ClientMsg(7, Raw(b'{"type":"bogus"}')))
        assert sessions._orders[7].qsize() <= 256
        assert log[-1] == "client 7 says too much at once"
        await until(lambda: not sessions._orders)
        await sessions.close()

    asyncio.run(asyncio.wait_for(flood(), PATIENCE_S))
