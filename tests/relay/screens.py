"""Streamers and viewers of the relay's tests, each a program that says what it sees."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.relay.relays import REPO, Relay, wait


class Program:
    """One that runs, and what it has said."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.relay.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)},
        )
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def wait(self, condition: Any, what: str) -> None:
        """Wait until something holds; the program must not end before."""
        wait(lambda: condition() or self.process.poll() is not None, what)
        assert self.process.poll() is None, self.said[-5:]

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Streamer(Program):
    """A stand-in for the stock streamer."""

    def heard(self, label: str) -> list[Any]:
        """Return what came on a data channel, or ``key`` for requests of key frames."""
        return [one.get("data") for one in self.said if one.get("heard") == label]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what happened."""
        return [one for one in self.said if one.get("event") == name]


class Viewer(Program):
    """One who looks, and touches."""

    @property
    def frames(self) -> list[dict[str, Any]]:
        """What it was shown."""
        return [one for one in self.said if "frame" in one]

    def told(self, label: str) -> list[Any]:
        """Return what came on a data channel."""
        return [one["data"] for one in self.said if one.get("channel") == label]

    def hands(self) -> dict[str, Any]:
        """Return what was said last about who controls."""
        found = [json.loads(one) for one in self.told("cfctl-control")]
        return next((one for one in reversed(found) if one["type"] == "hands"), {})

    def send(self, label: str, data: Any) -> None:
        """Send on a data channel."""
        self.wait(lambda: {"open": label} in self.said, f"{label} to open")
        if isinstance(data, bytes):
            self._do(label, {"hex": data.hex()})
        else:
            self._do(label, data if isinstance(data, str) else json.dumps(data))

    def bring(self, kind: str) -> None:
        """Offer a microphone (audio) or camera (video)."""
        self._do("bring", kind)

    def close(self, label: str) -> None:
        """Close a data channel."""
        self._do("close", label)

    def limit(self, bits_per_s: int) -> None:
        """Say that no more arrives."""
        self._do("limit", bits_per_s)

    def _do(self, what: str, about: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, about]) + "\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def streaming(relay: Relay, **wanted: Any) -> Iterator[Streamer]:
    """Run a streamer for the block, registered at a relay."""
    about = {"socket": str(relay.root / "run/streamers.sock"), **wanted}
    streamer = Streamer("streamer", json.dumps(about))
    try:
        streamer.wait(lambda: streamer.events("registered"), "the streamer to register")
        yield streamer
    finally:
        streamer.end()


@contextlib.contextmanager
def viewing(relay: Relay, role: str = "operator", device: str = "pad-1") -> Iterator[Viewer]:
    """Run a viewer for the block, who is shown something."""
    viewer = Viewer("viewer", relay.listeners["web"]["address"], relay.token(role), device)
    try:
        viewer.wait(lambda: viewer.frames, "the first frame")
        yield viewer
    finally:
        viewer.end()
