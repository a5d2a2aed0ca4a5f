"""Interrupts: they end a verb once, and do not disturb what is undone then."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from cfctl import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_SAID = "Cleaning up; it ends by itself."


@contextlib.contextmanager
def first_counts() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, but only the first of them.

    Those that come while it is on its way up, through everything that is undone, are answered with a word. Whoever
    ignores one (nohup) goes on ignoring it.
    """
    came = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            steps.note(_SAID)
            return
        came = True
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold off SIGINT, SIGTERM and SIGHUP for the block: an impatient second Ctrl-C must not leave half of it.

    Outside of the main thread, where Python delivers no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hold_off(_number: int, _frame: FrameType | None) -> None:
        steps.note(_SAID)

    with _handled_by(hold_off):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # A handler, not SIG_IGN: programs that are started meanwhile must not inherit deafness.
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in _ENDING:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            if former is not None:
                signal.signal(number, former)
