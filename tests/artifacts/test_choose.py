"""What --host-package and --images mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl import steps
from cfctl.artifacts import choose, store
from cfctl.errors import UsageError
from tests.artifacts import archives
from tests.artifacts.test_store import Listener


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return an unpacked host package."""
    launcher = tmp_path / "package/bin/launch_cvd"
    launcher.parent.mkdir(parents=True)
    launcher.write_bytes(archives.LAUNCHER)
    return tmp_path / "package"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a directory of images."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/super.img").touch()
    return tmp_path / "images"


def test_nothing_is_the_embedded_guest() -> None:
    assert choose.choose(None, None, {}) == choose.Choice(None, None)
    with pytest.raises(UsageError, match="--images needs a host package"):
        choose.choose(None, "/somewhere", {})


def test_directories_are_taken_as_they_are(package: Path, images: Path) -> None:
    choice = choose.choose(os.fspath(package), os.fspath(images), {})
    assert (choice.host_package, choice.images) == (choose.Chosen(package), choose.Chosen(images))
    assert choice.entries == []
    assert store.entries() == []


def test_archives_and_names(tmp_path: Path) -> None:
    archive, pictures = archives.package(tmp_path / "p.tar.gz"), archives.images(tmp_path / "i.zip")
    choice = choose.choose(os.fspath(archive), os.fspath(pictures), {})
    assert [entry.kinds for entry in choice.entries] == [("host-package",), ("images",)]
    store.add(pictures, name="phone")
    assert choose.choose(choice.entries[0].short, "phone", {}) == choose.Choice(
        choose.Chosen(choice.entries[0].tree, choice.entries[0]),
        choose.Chosen(choice.entries[1].tree, store.find("phone")),
    )
    for word, said in (("phone", "--images takes it"), (os.fspath(pictures), "--images takes it")):
        with pytest.raises(UsageError, match=said):
            choose.choose(word, None, {})
    with pytest.raises(UsageError, match="--host-package takes it"):
        choose.choose(os.fspath(archive), os.fspath(archive), {})


def test_what_is_not_there(package: Path, images: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        choose.choose("/nowhere/cf", None, {})
    with pytest.raises(UsageError, match="nor in the cache"):
        choose.choose("nowhere", None, {})
    with pytest.raises(UsageError, match="is not a host package"):
        choose.choose(os.fspath(images), None, {})
    with pytest.raises(UsageError, match="holds no images"):
        choose.choose(os.fspath(package), os.fspath(package / "bin"), {})


def test_both_unpacked_into_one_directory(package: Path) -> None:
    (package / "super.img").touch()
    choice = choose.choose(os.fspath(package), f"{package}/", {"ANDROID_PRODUCT_OUT": "/elsewhere"})
    assert choice == choose.Choice(choose.Chosen(package), None)


def test_a_directory_that_still_holds_the_archive(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    archives.package(tmp_path / "dist/cvd-host_package.tar.gz")
    archives.tar(tmp_path / "dist/other.tar.gz")
    chosen = choose.choose(os.fspath(tmp_path / "dist"), None, {}).host_package
    assert chosen
    assert chosen.entry


def test_a_builds_variables(tmp_path: Path, package: Path, images: Path) -> None:
    environ = {"ANDROID_HOST_OUT": os.fspath(package), "ANDROID_PRODUCT_OUT": os.fspath(images)}
    listener = Listener()
    with steps.reporting(listener):
        choice = choose.choose(None, None, environ)
    assert choice == choose.Choice(choose.Chosen(package), choose.Chosen(images))
    assert listener.notes == [
        f"Host package: {package} (from $ANDROID_HOST_OUT).",
        f"Images: {images} (from $ANDROID_PRODUCT_OUT).",
    ]
    # Flags win.
    assert choose.choose(None, os.fspath(images), environ).images == choose.Chosen(images)
    (package / "super.img").touch()
    assert choose.choose(os.fspath(package), None, environ).images is None
    assert choose.choose(None, None, environ).images == choose.Chosen(images)


def test_a_build_that_packed_for_soong(tmp_path: Path) -> None:
    soong = tmp_path / "out/soong/host/linux-x86"
    soong.mkdir(parents=True)
    archives.package(soong / "cvd-host_package.tar.gz")
    chosen = choose.choose(None, None, {"ANDROID_HOST_OUT": f"{tmp_path}/out/host/linux-x86"}).host_package
    assert chosen
    assert chosen.entry
    assert chosen.entry.source == str(soong / "cvd-host_package.tar.gz")


def test_a_build_that_has_not_run(tmp_path: Path) -> None:
    listener = Listener()
    with steps.reporting(listener):
        assert choose.choose(None, None, {"ANDROID_HOST_OUT": os.fspath(tmp_path)}) == choose.Choice(None, None)
    assert "the embedded guest is booted" in listener.notes[0]
