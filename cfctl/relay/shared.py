"""Answers that are shared: what several ask for at once is found out once, and is good for a moment."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Shared(Generic[T]):
    """The answers to one question, one for each user.

    :param fresh_s: how old an answer may be that is given to somebody else too.
    """

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._known: dict[int, tuple[float, asyncio.Task[T]]] = {}

    async def get(self, uid: int, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer for a user; whoever stops waiting for it does not keep others from it.

        :raises Exception: whatever ``ask`` raises, for everybody who waits.
        """
        asked, task = self._known.get(uid, (0.0, None))
        if task is None or (task.done() and time.monotonic() - asked > self._fresh_s):
            task = asyncio.create_task(ask())
            # Whoever waits for it hears of its error; it is no news to anybody else.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._known[uid] = (time.monotonic(), task)
        return await asyncio.shield(task)

    def forget(self, uid: int) -> None:
        """Ask again the next time."""
        self._known.pop(uid, None)
