"""The Python API takes what the command line takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl import api
from cfctl.artifacts import store
from cfctl.errors import UsageError
from cfctl.launch import boot, registry
from cfctl.launch.hostpackage import HostPackage
from tests.artifacts import archives
from tests.launch import devices


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
    # Written once: a zip holds the time of its writing, and another zip is another entry.
    guest = archives.images(tmp_path / "img.zip")
    for word in (archive, "nightly"):
        with api.chosen(word, guest) as (package, images):
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


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> api.Device:
    """Give a device that was stopped, with a log of three lines."""
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path / "state"))
    record = devices.record(stopped_at=registry.now())
    registry.create(record)
    log = boot.kernel_log(record, record.instances[0])
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    return api.Device(record.name)


@pytest.mark.parametrize("position", [0, -1, 2])
def test_instances_that_there_are_not(phone: api.Device, position: int) -> None:
    with pytest.raises(UsageError, match=f"has 1 instance, no {position}"):
        phone.logs(position=position)


def test_so_many_lines_of_a_log(phone: api.Device) -> None:
    assert phone.logs() == ("one", "two", "three")
    assert phone.logs(last=2) == ("two", "three")
    assert phone.logs(last=0) == ()
    with pytest.raises(UsageError, match="last=-1"):
        phone.logs(last=-1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_times_that_have_passed(timeout: float) -> None:
    with pytest.raises(UsageError, match=r"timeout must be more than 0"):
        api.Device.launch("phone", host_package="/no/such/place", timeout=timeout)


def test_flags_are_a_list() -> None:
    # A string is a sequence too: of letters.
    with pytest.raises(UsageError, match="flags are a list"):
        api.Device.launch("phone", flags="--x_res=1080")


def test_settings_by_their_name(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[host]\ninstances = 200\n")
    with pytest.raises(UsageError, match="200 is not a value"):
        api.Host(config_file=str(file)).plan()
