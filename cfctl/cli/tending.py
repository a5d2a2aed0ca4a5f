"""Beside the watcher of the host: root's devices that are to come back, and their logs, looked after in a thread."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A device that died is found within this time; a round without one costs some milliseconds.
_ROUND_S = 5.0


@contextlib.contextmanager
def tending(tell: Callable[[str], None]) -> Iterator[None]:
    """Look after this user's devices while the block runs; a boot that is under way then goes on by itself.

    :param tell: hears what was done, from another thread.
    """
    ended = threading.Event()
    # Not waited for at the end: it may be in the middle of a boot, which is the launcher's work.
    threading.Thread(target=_rounds, args=(ended, tell), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _rounds(ended: threading.Event, tell: Callable[[str], None]) -> None:
    from cfctl import config, steps
    from cfctl.errors import CfctlError
    from cfctl.launch import keeper

    said = None
    with steps.reporting(_Told(tell)):
        while not ended.wait(_ROUND_S):
            try:
                keeper.tend(now=datetime.now(UTC), timeout=config.load()["launch.timeout"])
            except (OSError, CfctlError) as error:
                if str(error) != said:
                    said = str(error)
                    tell(f"devices could not be looked after: {error}")


class _Told:
    """The reporter of a round: what was begun to be booted again, and what anybody notes."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._depth = 0

    def begin(self, title: str) -> None:
        """Tell of the outermost step."""
        self._depth += 1
        if self._depth == 1:
            self._tell(title)

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Tell how the outermost step ended."""
        self._depth -= 1
        if self._depth == 0:
            self._tell(f"{title}: {'done' if ok else 'failed'} after {seconds:.0f} s")

    def note(self, text: str) -> None:
        """Tell it."""
        self._tell(text)

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Nothing: a boot that nobody waits for is not followed."""

    def progress(self, done: int, total: int) -> None:
        """Nothing likewise."""
