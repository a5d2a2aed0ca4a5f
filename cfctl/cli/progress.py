"""How steps and boot phases look: a live line on a terminal, plain lines elsewhere. All on standard error.

A step inside a step is shown while it runs, and keeps no line of its own.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

from cfctl.cli.colour import use_colour

if TYPE_CHECKING:
    from cfctl.steps import Reporter

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.1

#: Where nothing can be drawn over, the progress of a long step is said this often.
_SAY_S = 5.0

#: The width of a bar, in columns.
_BAR = 20

_CLEAR = "\r\x1b[K"
_GREEN, _RED, _CYAN, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[2m", "\x1b[0m"


def reporter() -> Reporter:
    """Return the reporter that suits standard error."""
    return Terminal() if use_colour(sys.stderr) else Plain()


def duration(seconds: float) -> str:
    """Return a time for people: hundredths where they matter."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def _took(took: float | None, typical: float | None) -> str:
    if took is None:
        return ""
    return f"  (+{took:.1f} s{'' if typical is None else f', typically {typical:.1f} s'})"


def _wrapped(line: str, columns: int) -> str:
    """Return a line filled to a width, its indentation kept."""
    indent = line[: len(line) - len(line.lstrip())]
    filled = textwrap.wrap(line.strip(), columns, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(filled) or line


class Plain:
    """One line per finished step: for logs, pipes and ``NO_COLOR``."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._said = 0.0

    def begin(self, title: str) -> None:
        """Say nothing yet."""
        self._stack.append(title)
        self._said = time.monotonic()

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Print the step with its time."""
        self._stack.pop()
        if not self._stack:
            word = "interrupted:" if ok is None else "ok    " if ok else "FAILED"
            self.note(f"{word} {title} ({duration(seconds)})")

    def note(self, text: str) -> None:
        """Print it as it is."""
        print(text, file=sys.stderr, flush=True)

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Print the phase with the time since the launch, and what it took."""
        self.note(f"  {seconds:5.1f} s  {name:<11} {detail}{_took(took, typical)}".rstrip())

    def progress(self, done: int, total: int) -> None:
        """Print how much is done, in long steps only."""
        if self._stack and time.monotonic() - self._said >= _SAY_S:
            self._said = time.monotonic()
            self.note(f"       {self._stack[-1]}: {_percent(done, total)} %")


def _percent(done: int, total: int) -> int:
    return min(100, 100 * done // total) if total > 0 else 100


def _bar(done: int, total: int) -> str:
    """Return a bar of a fixed width with the percentage."""
    percent = _percent(done, total)
    full = percent * _BAR // 100
    return f"{'█' * full}{'░' * (_BAR - full)} {percent:3} %"


class Terminal:
    """A spinner while steps run, then a tick with the time of the outermost."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._progress = ""
        self._phase: tuple[str, float] | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, title: str) -> None:
        """Start the spinner."""
        with self._lock:
            self._stack.append(title)
            self._progress = ""
        if self._thread is None:
            self._done.clear()
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Replace the spinner by the outcome."""
        with self._lock:
            self._stack.pop()
            self._progress = ""
            self._phase = None
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
        columns = shutil.get_terminal_size().columns
        lines = (_wrapped(line, columns) for line in text.split("\n"))
        self._print("\n".join(lines))

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        """Print it above the spinner, which goes on from there."""
        self._print(f"  {_DIM}{seconds:5.1f} s{_PLAIN}  {name:<11} {_DIM}{detail}{_took(took, typical)}{_PLAIN}")
        with self._lock:
            self._phase = (detail, time.monotonic()) if self._stack else None

    def progress(self, done: int, total: int) -> None:
        """Draw a bar beside the spinner."""
        self._progress = f"  {_bar(done, total)}"

    def _print(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"{_CLEAR}{text}\n")
            sys.stderr.flush()

    def _spin(self) -> None:
        tick = 0
        while not self._done.wait(_TICK_S):
            with self._lock:
                titles = " › ".join(self._stack)
                if self._phase:
                    titles += f" › {self._phase[0]} for {duration(time.monotonic() - self._phase[1])}"
                width = shutil.get_terminal_size().columns - 3 - len(self._progress)
                spinner = f"{_CYAN}{_SPINNER[tick % len(_SPINNER)]}{_PLAIN}"
                sys.stderr.write(f"{_CLEAR}{spinner} {titles[: max(0, width)]}{self._progress}")
                sys.stderr.flush()
            tick += 1
        with self._lock:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
