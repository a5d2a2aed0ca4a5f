"""How steps and boot phases look: a live line on a terminal, plain lines elsewhere. All on standard error.

A step inside a step is shown while it runs, and keeps no line of its own.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

from cfctl.cli.colour import use_colour

if TYPE_CHECKING:
    from cfctl.steps import Reporter

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.1

_CLEAR = "\r\x1b[K"
_GREEN, _RED, _CYAN, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[2m", "\x1b[0m"


def reporter() -> Reporter:
    """Return the reporter that suits standard error."""
    return Terminal() if use_colour(sys.stderr) else Plain()


def duration(seconds: float) -> str:
    """Return a time for people: hundredths where they matter."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


class Plain:
    """One line per finished step: for logs, pipes and ``NO_COLOR``."""

    def __init__(self) -> None:
        self._depth = 0

    def begin(self, title: str) -> None:
        """Say nothing yet."""
        self._depth += 1

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Print the step with its time."""
        self._depth -= 1
        if self._depth == 0:
            word = "interrupted:" if ok is None else "ok    " if ok else "FAILED"
            self.note(f"{word} {title} ({duration(seconds)})")

    def note(self, text: str) -> None:
        """Print it as it is."""
        print(text, file=sys.stderr, flush=True)

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Print the phase with the time since the launch."""
        self.note(f"  {seconds:5.1f} s  {name:<11} {detail}".rstrip())


class Terminal:
    """A spinner while steps run, then a tick with the time of the outermost."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, title: str) -> None:
        """Start the spinner."""
        with self._lock:
            self._stack.append(title)
        if self._thread is None:
            self._done.clear()
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Replace the spinner by the outcome."""
        with self._lock:
            self._stack.pop()
        if self._stack or self._thread is None:
            return
        self._done.set()
        self._thread.join()
        self._thread = None
        mark = "–" if ok is None else f"{_GREEN}✓{_PLAIN}" if ok else f"{_RED}✗{_PLAIN}"
        took = f"{duration(seconds)}{', interrupted' if ok is None else ''}"
        self._print(f"{mark} {title} {_DIM}{took}{_PLAIN}")

    def note(self, text: str) -> None:
        """Print it above the spinner, filled to the width of the terminal."""
        self._print("\n".join(textwrap.wrap(text, shutil.get_terminal_size().columns)) or text)

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Print it above the spinner."""
        self._print(f"  {_DIM}{seconds:5.1f} s{_PLAIN}  {name:<11} {_DIM}{detail}{_PLAIN}")

    def _print(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"{_CLEAR}{text}\n")
            sys.stderr.flush()

    def _spin(self) -> None:
        tick = 0
        while not self._done.wait(_TICK_S):
            with self._lock:
                titles = " › ".join(self._stack)
                width = shutil.get_terminal_size().columns - 3
                sys.stderr.write(f"{_CLEAR}{_CYAN}{_SPINNER[tick % len(_SPINNER)]}{_PLAIN} {titles[:width]}")
                sys.stderr.flush()
            tick += 1
        with self._lock:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
