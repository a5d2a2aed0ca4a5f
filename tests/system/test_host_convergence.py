"""Whatever happened before, one ``host setup`` mends it and one ``host teardown`` leaves nothing."""

from __future__ import annotations

import pytest

from tests.system.host_helpers import python
from tests.system.sandbox import Sandbox


@pytest.mark.parametrize("verb", ["setup", "teardown", "switch", "iptables"])
def test_a_kill_at_any_point_is_mended(sandbox: Sandbox, verb: str) -> None:
    points = int(python(sandbox, "tests.system.host_driver", "crash", verb).stdout)
    # Fewer mean that the driver no longer sees what the verb does.
    assert points >= {"setup": 40, "teardown": 10, "switch": 20, "iptables": 60}[verb]


def test_a_kill_at_any_time_is_mended(sandbox: Sandbox) -> None:
    assert python(sandbox, "tests.system.host_driver", "timed", "1").stdout == "5\n"


def test_any_damage_is_mended(sandbox: Sandbox) -> None:
    assert int(python(sandbox, "tests.system.host_driver", "damage", "60").stdout) >= 60
