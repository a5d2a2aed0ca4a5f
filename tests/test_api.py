"""The Python API takes what the command line takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl import api
from cfctl.artifacts import store
from cfctl.errors import UsageError
from cfctl.launch.hostpackage import HostPackage
from tests.artifacts import archives


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache of its own, and no variables of a build."""
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    for name in ("ANDROID_HOST_OUT", "ANDROID_SOONG_HOST_OUT", "ANDROID_PRODUCT_OUT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def test_archives_and_names(tmp_path: Path, cache: Path) -> None:
    archive = archives.package(tmp_path / "cvd-host_package.tar.gz")
    entry = store.add(archive, name="nightly")
    for word in (archive, "nightly"):
        with api.chosen(word, archives.images(tmp_path / "img.zip")) as (package, images):
            assert HostPackage.open(Path(package)).path.is_relative_to(cache)
            assert images is not None
            assert Path(images).is_relative_to(cache)
            assert store.prune([]) == [], "what is being launched from is in use"
    assert entry.tree in {gone.tree for gone in store.prune([])}


def test_a_builds_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out/bin").mkdir(parents=True)
    (tmp_path / "out/bin/launch_cvd").touch()
    monkeypatch.setenv("ANDROID_HOST_OUT", str(tmp_path / "out"))
    with api.chosen(None, None) as (package, images):
        assert (package, images) == (str(tmp_path / "out"), None)


def test_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="does not exist"), api.chosen("/no/such/place", None):
        pass
