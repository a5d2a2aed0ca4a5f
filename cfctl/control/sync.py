"""The one bridge from sync code (the Python API and the command line) to the async clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a client's coroutine to its end and return its result."""
    return asyncio.run(coroutine)
