"""How long work tells about itself without printing.

The core says ``with step("make 40 taps"):`` and ``note("...")``; whoever started the work decides what becomes of
it by installing a :class:`Reporter` (the command line draws it, tests record it, ``--events`` writes JSON lines).
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Reporter(Protocol):
    """What becomes of the steps of a piece of work."""

    def begin(self, title: str) -> None:
        """Hear that a step has begun."""

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Hear that the step has ended, after so many seconds: well, with an error, or (None) interrupted."""

    def note(self, text: str) -> None:
        """Hear something that people should know, whatever the step."""

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Hear that a booting device has come to a new phase, ``seconds`` after the launch began.

        ``took`` is how long after the phase before it that is, ``typical`` how long it usually is here, where known.
        """

    def progress(self, done: int, total: int) -> None:
        """Hear how much of the innermost step is done, in bytes; often."""


class Silent:
    """The reporter that nobody listens to."""

    def begin(self, title: str) -> None:
        """Ignore it."""

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""


class Events:
    """The reporter of ``--events``: a JSON document for everything that is worth a line.

    :param write: called with each document.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self._write = write
        self._percent = -1

    def begin(self, title: str) -> None:
        """Write nothing: the end of the step is what counts."""
        self._percent = -1

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Write a finished step."""
        self._write({"event": "step", "title": title, "seconds": round(seconds, 3), "ok": bool(ok)})

    def note(self, text: str) -> None:
        """Write a note."""
        self._write({"event": "note", "text": text})

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Write a boot phase."""
        times = {"seconds": seconds, "took": took, "typical": typical}
        document = {key: round(value, 3) for key, value in times.items() if value is not None}
        self._write({"event": "phase", "phase": name, "detail": detail, **document})

    def progress(self, done: int, total: int) -> None:
        """Write each percent of the innermost step, in bytes, once."""
        percent = 100 * done // total if total else 100
        if percent != self._percent:
            self._percent = percent
            self._write({"event": "progress", "done": done, "total": total})


_reporter: contextvars.ContextVar[Reporter] = contextvars.ContextVar("reporter", default=Silent())  # noqa: B039


@contextlib.contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send all steps inside the block to ``reporter``."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and for how long it was."""
    reporter = _reporter.get()
    started = time.monotonic()
    reporter.begin(title)
    try:
        yield
    except KeyboardInterrupt:
        reporter.finish(title, time.monotonic() - started, ok=None)
        raise
    except BaseException:
        reporter.finish(title, time.monotonic() - started, ok=False)
        raise
    reporter.finish(title, time.monotonic() - started, ok=True)


def finished(title: str, seconds: float, *, ok: bool) -> None:
    """Say that something was done elsewhere, and how long it took there."""
    reporter = _reporter.get()
    reporter.begin(title)
    reporter.finish(title, seconds, ok=ok)


def note(text: str) -> None:
    """Say something that people should know."""
    _reporter.get().note(text)


def phase(name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None) -> None:
    """Say that a booting device has come to a new phase (:meth:`Reporter.phase`)."""
    _reporter.get().phase(name, detail, seconds, took=took, typical=typical)


def progress(done: int, total: int) -> None:
    """Say how much of the innermost step is done, in bytes."""
    _reporter.get().progress(done, total)
