"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# No test asserts how long something takes: on a busy machine an example may take any time.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
