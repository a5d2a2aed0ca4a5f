"""The bridge from sync code to async clients, interrupted."""

from __future__ import annotations

import asyncio
import signal

import pytest

from cfctl import signals
from cfctl.control import sync


def test_what_is_interrupted_is_taken_down_by_those_who_help_with_it() -> None:
    ended: list[str] = []

    async def help_(told: asyncio.Event) -> None:
        await told.wait()
        ended.append("helper")

    async def work() -> None:
        told = asyncio.Event()
        helper = asyncio.create_task(help_(told))
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            told.set()
            await helper
            ended.append("work")

    with signals.first_counts(), pytest.raises(KeyboardInterrupt):
        sync.run(work())
    assert ended == ["helper", "work"]
