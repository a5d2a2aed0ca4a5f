"""``cfctl host run`` in a sandbox, and what it has told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.schemas import conforms
from tests.system.sandbox import Sandbox

#: Generous: a loaded machine is no fault of the watcher's.
PATIENCE_S = 60


@dataclass
class Watch:
    """A running watcher.

    :param pid: as the sandbox sees it.
    """

    box: Sandbox
    child: subprocess.Popen[str]
    log: Path
    pid: int = 0

    def events(self) -> list[dict[str, Any]]:
        """Return all that it has told so far."""
        # A line may be half written.
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in lines]
        for event in found:
            conforms(event, "watch")
        return found

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] in kinds]

    def mended(self) -> list[str]:
        """Return what it has mended, object by object."""
        return [change["object"] for event in self.of("mended") for change in event["changes"]]

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := true():
                return found
            assert self.child.poll() is None, f"it ended: {self.log.read_text()}"
            time.sleep(0.05)
        raise AssertionError(f"never: {what}\n{self.log.read_text()}")

    def signal(self, name: str) -> None:
        self.box.run("kill", f"-{name}", str(self.pid))


def watchers(box: Sandbox) -> set[int]:
    return {pid for pid, line in box.processes().items() if "cfctl host run" in line}


@contextlib.contextmanager
def watching(box: Sandbox, *args: str, env: Mapping[str, str] | None = None) -> Iterator[Watch]:
    """Run the watcher for the block, until it has come up."""
    log = box.root / f"watch-{time.monotonic_ns()}.log"
    before = watchers(box)
    with log.open("w") as sink:
        child = box.start(*box.cfctl_argv("host", "run", "--json", *args), env=env, stdout=sink, stderr=sink)
    watch = Watch(box, child, log)
    try:
        watch.until(lambda: watch.of("ready", "waiting", "down"), "its first word")
        (watch.pid,) = watchers(box) - before
        yield watch
    finally:
        if child.poll() is None:
            box.run("pkill", "-TERM", "-f", "cfctl host run", check=False)
            try:
                child.wait(PATIENCE_S)
            finally:
                child.kill()
                child.wait()
