"""A set-up or a teardown that is killed between any two steps is finished by the next one."""

from __future__ import annotations

import pytest

from tests.system.host_helpers import python
from tests.system.sandbox import Sandbox


@pytest.mark.parametrize("verb", ["setup", "teardown", "switch", "iptables"])
def test_a_kill_at_any_point_is_mended(sandbox: Sandbox, verb: str) -> None:
    points, kills = map(int, python(sandbox, "tests.system.host_driver", "crash", verb).stdout.split())
    # Fewer mean that the driver no longer sees what the verb does, or what that changes.
    assert points >= {"setup": 40, "teardown": 10, "switch": 20, "iptables": 60}[verb]
    assert kills >= {"setup": 15, "teardown": 10, "switch": 50, "iptables": 40}[verb]
