"""Making the guest's image, without a network."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from cfctl import arch as arches
from cfctl import distro, elf, paths, process
from cfctl.errors import GuestImageUnavailable
from cfctl.guest import debian, image
from cfctl.guest.image import Image

X86 = arches.by_name("x86_64")


def test_libraries_of_a_real_program() -> None:
    program = Path(sys.executable).resolve().read_bytes()
    assert elf.is_elf(program)
    libraries = elf.needed(program)
    assert libraries[0].startswith("/lib")
    assert "libc.so.6" in libraries


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh", b"\x7fELF\x01\x01" + bytes(99), b"\x7fELF\x02\x01" + b"\xff" * 99]
)
def test_what_is_no_program(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF file"):
        elf.needed(data)


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    for name, depends in {"c": "b-x,a", "b-x": "a", "a": "", "other": ""}.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")
    assert list(image._modules(tmp_path, ("c", "built_in"))) == ["a", "b_x", "c"]


def test_a_program_that_the_packages_lack(tmp_path: Path) -> None:
    with pytest.raises(GuestImageUnavailable, match="the packages have no program busybox"):
        image.initramfs(tmp_path, X86)


def test_commands_of_the_real_busybox() -> None:
    program = process.find("busybox")
    if program is None:
        pytest.skip("busybox is not installed (make setup)")
    said = process.run([program, "--list"], timeout=10).stdout.split()
    assert set(image.applets(program.read_bytes())) == set(said) - {"busybox"}
    with pytest.raises(GuestImageUnavailable, match="the package's busybox lacks cat, chmod, dd, echo"):
        image.applets(b"no table")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give caches of its own."""
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "SYSTEM_CACHE", tmp_path / "system")
    monkeypatch.setattr(paths, "PREBUILT_GUEST", tmp_path / "prebuilt")
    return tmp_path


def fake(directory: Path) -> Image:
    directory.mkdir(parents=True)
    made = Image(directory)
    for path in (made.kernel, made.initramfs, made.description):
        path.write_bytes(b"{}")
    return made


def test_where_an_image_is_looked_for(caches: Path) -> None:
    assert image.find(X86) is None
    prebuilt = fake(caches / "prebuilt/x86_64")
    assert image.find(X86) == prebuilt
    assert image.find(arches.by_name("aarch64")) is None
    system = fake(caches / "system/guest" / image.key(X86))
    assert image.find(X86) == system
    own = fake(caches / "cache/guest" / image.key(X86))
    assert image.ensure(X86) == own
    own.description.unlink()
    assert image.find(X86) == system


def test_a_build_that_fails_leaves_nothing(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(arch: arches.Arch, scratch: Path, directory: Path) -> None:
        directory.mkdir()
        raise GuestImageUnavailable("no network")

    monkeypatch.setattr(image, "_build", build)
    (caches / "cache/guest/.build-killed").mkdir(parents=True)
    with pytest.raises(GuestImageUnavailable):
        image.ensure(X86)
    assert [path.name for path in (caches / "cache/guest").iterdir()] == [".lock"]


@pytest.mark.parametrize("link", [True, False])
def test_copy(tmp_path: Path, link: bool) -> None:
    source = fake(tmp_path / "a")
    source.kernel.write_bytes(gzip.compress(b"x" * 99))
    made = image.copy(source, tmp_path / "b", link=link)
    assert made.whole
    assert made.kernel.read_bytes() == source.kernel.read_bytes()
    assert made.kernel.samefile(source.kernel) is link


# -- apt -----------------------------------------------------------------------------------------------------


def test_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda command: None)
    with pytest.raises(GuestImageUnavailable) as caught:
        debian.PrivateApt(tmp_path, X86)
    assert caught.value.details == "It is made from Debian packages, and there is no apt here."
    assert "cfctl guest build DIR" in str(caught.value.resolution)


def test_without_sources_of_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda command: Path("/bin") / command)
    monkeypatch.setattr(debian, "_ETC_APT", tmp_path / "etc")
    with pytest.raises(GuestImageUnavailable, match="serves the release"):
        debian.PrivateApt(tmp_path / "scratch", X86)


def test_an_archive_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if process.find("apt-get") is None:
        pytest.skip("apt is not installed: this is no Debian")
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(distro, "os_release", lambda: {"VERSION_CODENAME": "nowhere"})
    monkeypatch.setattr(debian, "_ETC_APT", tmp_path / "etc")
    (tmp_path / "etc/sources.list").write_text("deb http://127.0.0.1:1/debian nowhere main\n")
    apt = debian.PrivateApt(tmp_path / "scratch", X86)
    with pytest.raises(GuestImageUnavailable) as caught:
        apt.update()
    assert caught.value.brief == "the packages of the embedded guest cannot be fetched"
    assert "127.0.0.1" in str(caught.value.details)
