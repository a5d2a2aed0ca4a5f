"""Fifty at once: one changes the host, the others wait and say so, and what is left is what one of them wanted."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.system.host_helpers import changes, read_host, snapshot
from tests.system.sandbox import Sandbox

CALLS = 50
_WAITING = "Waiting for another cfctl that changes the host."
_KINDS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("setup", "--instances", "1"), 1),
    (("setup", "--instances", "3"), 3),
    (("setup", "--instances", "6"), 6),
    (("setup", "--instances", "0"), 0),
    (("teardown",), 0),
)


def _legal(box: Sandbox) -> dict[int, Any]:
    """Return what an independent reader sees after each call alone."""
    seen = {}
    for args, count in _KINDS:
        box.cfctl("host", *args)
        seen[count] = read_host(box)
    return seen


def test_fifty_at_once(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    legal = _legal(sandbox)
    assert snapshot(sandbox) == before
    # The same order each time; the kernel decides who is next.
    calls = [_KINDS[index % len(_KINDS)] for index in range(CALLS)]
    random.Random(1).shuffle(calls)
    running = [sandbox.start(*sandbox.cfctl_argv("host", *args, "--json"), stdout=-1, stderr=-1) for args, _ in calls]
    said = [process.communicate(timeout=300) for process in running]
    failed = [(calls[index][0], *said[index]) for index, process in enumerate(running) if process.returncode]
    assert failed == []
    # Nearly all find the lock taken: one of them is inside.
    assert sum(_WAITING in err for _, err in said) > CALLS / 2
    # Each says what it wanted and got, not what somebody else did.
    assert [json.loads(out)["instances"] for out, _ in said] == [count for _, count in calls]

    found = sandbox.json("host", "status", check=False)
    served = found["served"]
    assert read_host(sandbox) == legal[served]
    assert found["state"] == ("ready" if served else "absent")
    if served:
        assert changes(sandbox, "host", "setup") == []
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before
