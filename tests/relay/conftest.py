"""Fixtures of the relay's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before gRPC is imported: tests start programs while it has threads, and they need none of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from tests.relay import relays


@pytest.fixture(scope="module")
def relay() -> Iterator[relays.Relay]:
    """Give a relay to all tests of a module, with little patience for callers that do not come to the point."""
    limits = {"handshake_s": 1.0, "introduce_s": 2.0, "per_peer": 40, "strangers": 100, "connections": 200}
    with relays.running(limits=limits, metrics="127.0.0.1:0", drain_s=5) as running:
        yield running
