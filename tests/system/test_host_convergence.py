"""Whatever happened before, one ``host setup`` mends it and one ``host teardown`` leaves nothing."""

from __future__ import annotations

from tests.system.host_helpers import python
from tests.system.sandbox import Sandbox


def test_a_kill_at_any_time_is_mended(sandbox: Sandbox) -> None:
    assert python(sandbox, "tests.system.host_driver", "timed", "1").stdout == "5\n"


def test_any_damage_is_mended(sandbox: Sandbox) -> None:
    assert int(python(sandbox, "tests.system.host_driver", "damage", "60").stdout) >= 60
