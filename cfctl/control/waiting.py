"""Waiting for a descriptor, which asyncio has for its own streams only."""

from __future__ import annotations

import asyncio


async def ready(fd: int, *, to_write: bool) -> None:
    """Wait until a descriptor can be read from, or written to."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    (loop.add_writer if to_write else loop.add_reader)(fd, wake)
    try:
        await woken
    finally:
        (loop.remove_writer if to_write else loop.remove_reader)(fd)
