"""How steps and boot phases look: a live line on a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from cfctl.cli.common import use_colour

if TYPE_CHECKING:
    from cfctl.steps import Reporter

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.1


def reporter() -> Reporter:
    """Return the reporter that suits standard error."""
    return Terminal() if use_colour(sys.stderr) else Plain()


class Plain:
    """One line per finished step: for logs, pipes and ``NO_COLOR``."""

    def begin(self, title: str) -> None:
        """Say nothing yet."""

    def finish(self, title: str, seconds: float, *, ok: bool) -> None:
        """Print the step with its time."""
        print(f"{'ok    ' if ok else 'FAILED'} {title} ({seconds:.1f} s)", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print it as it is."""
        print(text, file=sys.stderr, flush=True)

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Print the phase with the time since the launch."""
        print(f"  {seconds:5.1f} s  {name:<18} {detail}".rstrip(), file=sys.stderr, flush=True)


class Terminal:
    """A spinner while a step runs, then a tick with its time."""

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

    def finish(self, title: str, seconds: float, *, ok: bool) -> None:
        """Replace the spinner by the outcome."""
        with self._lock:
            if self._stack:
                self._stack.pop()
        if not self._stack and self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
        mark = "\x1b[32m✓\x1b[0m" if ok else "\x1b[31m✗\x1b[0m"
        self._print(f"{mark} {title} \x1b[2m{seconds:.1f} s\x1b[0m")

    def note(self, text: str) -> None:
        """Print it above the spinner."""
        self._print(text)

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Print it above the spinner."""
        self._print(f"  \x1b[2m{seconds:5.1f} s\x1b[0m  {name:<18} \x1b[2m{detail}\x1b[0m")

    def _print(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"\r\x1b[K{text}\n")
            sys.stderr.flush()

    def _spin(self) -> None:
        tick = 0
        while not self._done.wait(_TICK_S):
            with self._lock:
                title = self._stack[-1] if self._stack else ""
                sys.stderr.write(f"\r\x1b[K\x1b[36m{_SPINNER[tick % len(_SPINNER)]}\x1b[0m {title}")
                sys.stderr.flush()
            tick += 1
        with self._lock:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
