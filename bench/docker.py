"""How long it takes from ``cfctl docker create`` to a booted device, for one container and for four at once.

Beside it, ``docker run`` of the bare base image: what the engine itself takes for a container. On an engine of the
program's own, in namespaces of its own. Prints a table and, as the last line, JSON. Run it as root with: make bench
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cfctl import paths
from cfctl.guest import package
from tests.system import dockerd, sandbox
from tests.system.dockerd import Engine

_RUNS = 3
_FLEET = "[devices.bench]\ncount = 4\npublish = []\n"


def _timed(work: Callable[[], object], *, undo: Callable[[], object]) -> float:
    """Return the median of some runs; the first, which fills caches, does not count."""
    seconds = []
    for turn in range(_RUNS + 1):
        started = time.perf_counter()
        work()
        if turn:
            seconds.append(time.perf_counter() - started)
        undo()
    return statistics.median(seconds)


def _measure(engine: Engine) -> dict[str, float]:
    host = engine.box

    def create_and_boot() -> None:
        host.cfctl("docker", "create", "bench")
        host.cfctl("docker", "start", "bench", timeout=300)

    def bare(count: int) -> None:
        for number in range(count):
            engine.docker("run", "-d", "--name", f"bare-{number}", dockerd.BASE, "sleep", "600")

    def remove_bare() -> None:
        engine.docker("rm", "-f", *engine.docker("ps", "-aq").stdout.split())

    host.run("sh", "-c", "cat >/tmp/bench.toml", stdin=_FLEET)
    return {
        "docker run, 1": _timed(lambda: bare(1), undo=remove_bare),
        "docker run, 4": _timed(lambda: bare(4), undo=remove_bare),
        "cfctl docker create, 1": _timed(
            lambda: host.cfctl("docker", "create", "bench"), undo=lambda: host.cfctl("docker", "rm", "bench")
        ),
        "create to booted, 1": _timed(create_and_boot, undo=lambda: host.cfctl("docker", "rm", "bench")),
        "create to booted, 4 (up --parallel 4)": _timed(
            lambda: host.cfctl("docker", "up", "/tmp/bench.toml", "--parallel", "4", timeout=600),
            undo=lambda: host.cfctl("docker", "down", "/tmp/bench.toml"),
        ),
    }


def main() -> None:
    """Measure and print."""
    # The guest in the image is made out here, where there is a network.
    os.environ["CFCTL_PATHS_CACHE"] = str(sandbox.CACHE)
    paths.SYSTEM_CACHE = sandbox.CACHE
    package.ensure()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        box = stack.enter_context(sandbox.sandbox(Path(directory) / "box"))
        engine = stack.enter_context(dockerd.running(box))
        box.env["DOCKER_HOST"] = engine.url
        dockerd.build_image(engine)
        found = _measure(engine)
    print(f"{'what':<40} {'median s':>9}")
    for name, seconds in found.items():
        print(f"{name:<40} {seconds:9.3f}")
    print(json.dumps({name: round(seconds, 4) for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
