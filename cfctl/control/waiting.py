"""Waiting: for a descriptor, which asyncio has for its own streams only, and for what must not be cut short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


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


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work that is done to its end also when whoever waits is cancelled; it must have a deadline."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        # Nobody wants to know any more how it ended.
        if not task.cancelled():
            task.exception()
        raise
