"""The streamer beside a supervisor: started with the VM, started again if it fails, ended with the device."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.guest.bootlog import LauncherLog

#: Names a Python with the streamer's libraries; ``cfctl launch`` sets it to its own.
PYTHON = "CFCTL_PYTHON"

#: In the package's description: the one that the package was built by.
RECORDED = "python"

PROGRAM = "webRTC"

#: The description of a package of ours, written last: what has it is whole, and may be replaced by another.
MARKER = Path("etc") / "cfctl-guest.json"

#: How the streamer ends where its Python has not what it needs: trying again would not help.
LACKS = 4

#: One that fails at once will fail again.
_TRIES = 5
_AGAIN_S = 2.0

_PATIENCE_S = 2.0


def interpreter(package: Path, environ: Mapping[str, str]) -> str | None:
    """Return the Python that the streamer runs on; None if none is known."""
    if named := environ.get(PYTHON):
        return named
    with contextlib.suppress(OSError, ValueError):
        recorded = json.loads((package / MARKER).read_text()).get(RECORDED)
        if isinstance(recorded, str) and os.access(recorded, os.X_OK):
            return recorded
    return None


class Streaming:
    """The streamer's process.

    :param argv: runs it.
    :param output: gets what it prints.
    """

    def __init__(self, argv: list[str], output: Path, log: LauncherLog) -> None:
        self._argv = argv
        self._output = output
        self._log = log
        self._child: process.Child | None = None
        self._watch = -1
        self._pipe = -1
        self._tries = 0
        self._told: dict[str, None] = {}
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start it; a device without it is a device all the same."""
        reader, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._tries += 1
        try:
            self._child = process.start(
                [*self._argv, f"--kernel_log_events_fd={reader}"],
                output=self._output,
                pass_fds=[reader],
                die_with_parent=True,
            )
        except CfctlError as error:
            self._log.write("W", f"no screen for browsers: {error.brief}")
            os.close(self._pipe)
            return
        finally:
            os.close(reader)
        self._watch = os.pidfd_open(self._child.pid)
        asyncio.get_running_loop().add_reader(self._watch, self._ended)
        for event in self._told:
            self._write(event)

    def tell(self, event: str) -> None:
        """Tell it what has happened in the guest; one that is started again is told anew."""
        self._told.pop(event, None)
        self._told[event] = None
        if self._child is not None:
            self._write(event)

    async def stop(self) -> None:
        """End it."""
        if self._again is not None:
            self._again.cancel()
        if self._child is None:
            return
        child = self._forget()
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while child.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                child.send_signal(signal.SIGKILL)
                child.wait(_PATIENCE_S)
                break
            await asyncio.sleep(0.01)

    def _write(self, event: str) -> None:
        # One that does not read must not hold up the device.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, json.dumps({"event": event}).encode() + b"\n")

    def _forget(self) -> process.Child:
        assert self._child is not None  # noqa: S101 (the caller has looked)
        asyncio.get_running_loop().remove_reader(self._watch)
        os.close(self._watch)
        os.close(self._pipe)
        child, self._child = self._child, None
        return child

    def _ended(self) -> None:
        status = self._forget().wait()
        said = ""
        with contextlib.suppress(OSError):
            said = self._output.read_text(errors="replace").strip()[-1000:].replace("\n", " / ")
        again = status != LACKS and self._tries < _TRIES
        self._log.write(
            "W",
            f"the streamer ended with status {status}: {said or 'it printed nothing'}"
            + (f" (again in {_AGAIN_S:g} s)" if again else "; the device goes on without a screen for browsers"),
        )
        if again:
            self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self.start)


def command(package: Path, python: str) -> list[str]:
    """Return what runs the streamer: the package's program on another Python, which has the libraries."""
    # Isolated from its user's environment and directories, but not from its own libraries.
    return [python, "-I", os.fspath(package / "bin" / PROGRAM)]


def output(directory: Path) -> Path:
    """Return the file that gets what the streamer prints."""
    return directory / "logs" / "webRTC.log"
