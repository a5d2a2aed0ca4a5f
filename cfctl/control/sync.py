"""The one bridge from sync code (the Python API and the command line) to the async clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a client's coroutine to its end and return its result.

    Interrupted, the coroutine alone is cancelled, and ends by itself: what it takes down has tasks of its own, and
    would never be down if these were cancelled too.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            loop.run_until_complete(asyncio.wait({task}))
            if not task.cancelled():
                # Asked for, so that nobody says that it was never heard.
                task.exception()
            raise
