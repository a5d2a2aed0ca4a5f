"""Undoing half-done work without being interrupted a second time."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from cfctl import steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold off SIGINT, SIGTERM and SIGHUP for the block: an impatient second Ctrl-C must not leave half of it.

    Outside of the main thread, where Python delivers no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hold_off(_number: int, _frame: FrameType | None) -> None:
        steps.note("Cleaning up; it ends by itself.")

    # A handler, not SIG_IGN: programs that are started meanwhile must not inherit deafness.
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in _ENDING:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, hold_off)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
