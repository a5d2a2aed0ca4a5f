"""A cache of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl import paths


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where archives are unpacked to."""
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(paths, "SYSTEM_CACHE", tmp_path / "system-cache")
    return tmp_path / "cache" / "artifacts"
