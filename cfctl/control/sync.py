"""The one bridge from sync code (the Python API and the command line) to the async clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

#: Between an interruption and the cancelling of all that is left. A connection is taken down in less; an answer that
#: must not be abandoned may take as long as its request.
_PATIENCE_S = 2.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a client's coroutine to its end and return its result.

    Interrupted, the coroutine alone is cancelled at first: what it takes down has tasks of its own, and would never
    be down if these were cancelled too.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            loop.run_until_complete(asyncio.wait({task}, timeout=_PATIENCE_S))
            if task.done() and not task.cancelled():
                # Asked for, so that nobody says that it was never heard.
                task.exception()
            raise
