"""A terminal with a person at it: runs a command of a sandbox on a pseudo-terminal, types, reads what is shown."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

from tests.system.sandbox import Sandbox


class Terminal:
    """A command on a terminal of its own.

    :param keyboard: the person's end.
    """

    def __init__(self, keyboard: int, process: subprocess.Popen[bytes]) -> None:
        self.keyboard = keyboard
        self.process = process
        self._shown = b""

    def type(self, text: str) -> None:
        """Type a text, control characters and all."""
        os.write(self.keyboard, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size, as a window's owner does: the kernel tells the programs."""
        resize(self.keyboard, rows, columns)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Wait until a text is shown, and return what came up to it."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._shown:
            assert self._read(deadline), f"{text!r} was not shown, but: {self._shown!r}"
        before, _, self._shown = self._shown.partition(text.encode())
        return before.decode(errors="replace")

    def end(self, seconds: float = 60) -> int:
        """Wait until the command has ended, and return its exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            self._read(time.monotonic() + 0.1)
            assert time.monotonic() < deadline, f"it did not end; shown: {self._shown!r}"
        return self.process.returncode

    def settings(self) -> list[Any]:
        """Return how the terminal is set: raw or not, and the like."""
        return termios.tcgetattr(self.keyboard)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.keyboard], [], [], max(0.0, deadline - time.monotonic()))
        # The last one to have it open is gone: EIO.
        with contextlib.suppress(OSError):
            if ready and (data := os.read(self.keyboard, 65536)):
                self._shown += data
                return True
        return False


def resize(terminal: int, rows: int, columns: int) -> None:
    """Set the size of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


@contextlib.contextmanager
def at_terminal(host: Sandbox, *argv: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    """Run a command of the sandbox at a terminal for the block."""
    keyboard, screen = pty.openpty()
    resize(screen, rows, columns)
    process = subprocess.Popen(
        host.argv(argv),
        env=host.environment(env={"TERM": "xterm"}),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        # It becomes the terminal of the session, whose programs hear of Ctrl-C and of the window's size.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(screen)
    try:
        yield Terminal(keyboard, process)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
