"""What holds for all tests."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

# No test asserts how long something takes: on a busy machine an example may take any time.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Keep addresses in memory out of the names of tests: every process of pytest-xdist must find the same names."""
    return argname if " at 0x" in repr(val) else None
