"""How long work tells about itself without printing.

The core says ``with step("make 40 taps"):`` and ``note("...")``; whoever started the work decides what becomes of
it by installing a :class:`Reporter` (the command line draws it, tests record it, ``--events`` writes JSON lines).
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reporter(Protocol):
    """What becomes of the steps of a piece of work."""

    def begin(self, title: str) -> None:
        """Hear that a step has begun."""

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Hear that the step has ended, after so many seconds: well, with an error, or (None) interrupted."""

    def note(self, text: str) -> None:
        """Hear something that people should know, whatever the step."""

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Hear that a booting device has come to a new phase, ``seconds`` after the launch began."""


class Silent:
    """The reporter that nobody listens to."""

    def begin(self, title: str) -> None:
        """Ignore it."""

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Ignore it."""


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


def note(text: str) -> None:
    """Say something that people should know."""
    _reporter.get().note(text)


def phase(name: str, detail: str, seconds: float) -> None:
    """Say that a booting device has come to a new phase."""
    _reporter.get().phase(name, detail, seconds)
