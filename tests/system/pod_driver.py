"""Kills pod mode's set-up and tear-down at every point, inside a sandbox that is a pod.

``python -m tests.system.pod_driver setup|teardown``; prints how many points were tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfctl import config
from cfctl.hostres import host, pod_mode
from tests.system.host_driver import killed_at, run, servers

SETTINGS = config.load(environ={})


def snapshot() -> dict[str, Any]:
    links = json.loads(run("ip", "-d", "-j", "addr"))
    for link in links:
        link["addr_info"] = [info for info in link["addr_info"] if info["family"] == "inet"]
    return {
        "links": links,
        "routes": sorted(run("ip", "-d", "-4", "route", "show", "table", "all").splitlines()),
        "rules": run("nft", "list", "ruleset"),
        "servers": servers(),
        "files": sorted(
            str(path) for path in Path("/run").rglob("*") if "cuttlefish" in path.name or "host/" in str(path)
        ),
    }


def set_up() -> None:
    pod_mode.setup(SETTINGS)
    work = pod_mode.check(SETTINGS)
    assert work.changes == (), work.changes
    assert len(servers()) == 1
    assert run("ip", "-4", "-o", "addr", "show", "dev", "eth0") == ""


def crash(verb: str) -> int:
    """Kill ``verb`` at every point in turn; a tear-down, or a set-up and a tear-down, must mend it."""
    clean = snapshot()
    point = 0
    while True:
        work: Callable[[], object] = host.teardown
        if verb == "teardown":
            set_up()
        else:
            work = lambda: pod_mode.setup(SETTINGS)  # noqa: E731
        killed = killed_at(point, work)
        if point % 2 or not killed:
            set_up()
        host.teardown()
        now = snapshot()
        assert now == clean, f"after a kill at point {point}: {[part for part in now if now[part] != clean[part]]}"
        if not killed:
            return point
        point += 1


if __name__ == "__main__":
    print(crash(sys.argv[1]))
