"""What the tests of packages share."""

from __future__ import annotations

import pytest

from tests.packaging import built


@pytest.fixture(scope="session")
def packages() -> built.Built:
    return built.packages()
