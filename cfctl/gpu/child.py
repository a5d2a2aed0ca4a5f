"""A program that may crash, hang or flood: started, watched, and killed at the end, with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: No honest answer is longer; what a program prints is kept in memory.
OUTPUT_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a child.

    :param problem: how it went wrong, as a verb (``crashed: signal 11 (SIGSEGV)``); None if it ended by itself.
    :param status: its exit status; 0 where there is a problem.
    :param output: everything that it printed, standard output and error.
    """

    problem: str | None
    status: int = 0
    output: str = ""

    @property
    def last_line(self) -> str:
        """What it said last, for a message."""
        lines = self.output.strip().splitlines()
        return lines[-1][:200] if lines else "it printed nothing"


class Child:
    """One child as a context manager; it is killed at the end of the block, whatever it does.

    :raises CfctlError: on entering, if it cannot be started.
    """

    def __init__(
        self, argv: Sequence[str | os.PathLike[str]], *, deadline: float, env: Mapping[str, str] | None = None
    ) -> None:
        self._argv = argv
        self._deadline = deadline
        self._env = env

    def __enter__(self) -> Child:
        # A pipe could fill up or be kept open by a helper of the driver, and a file would need room on a disk.
        self._output = os.memfd_create("cfctl-gpu-probe")
        self._file = Path(f"/proc/self/fd/{self._output}")
        self._until = time.monotonic() + self._deadline
        try:
            self._process = process.start(self._argv, output=self._file, env=self._env)
        except BaseException:
            os.close(self._output)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The whole session: a driver may have started programs of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Not for ever: a process that hangs inside the kernel's part of a driver cannot be killed.
        until = time.monotonic() + 1
        while self._process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.close(self._output)

    def ended(self) -> Ended:
        """Wait until the child ends, its deadline passes, or it prints more than any answer has."""
        while (status := self._process.poll()) is None and not self._flooded():
            if time.monotonic() > self._until:
                return Ended(f"hangs: it gave no answer within {self._deadline:g} s", 0, self._text())
            time.sleep(0.002)
        if self._flooded():
            return Ended(f"printed more than {OUTPUT_LIMIT >> 20} MiB")
        output = self._text()
        if status is not None and status < 0:
            return Ended(f"crashed: signal {-status}{_signal_name(-status)}", 0, output)
        return Ended(None, status or 0, output)

    def _text(self) -> str:
        return os.pread(self._output, OUTPUT_LIMIT, 0).decode(errors="replace")

    def _flooded(self) -> bool:
        return os.fstat(self._output).st_size > OUTPUT_LIMIT


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return ""
