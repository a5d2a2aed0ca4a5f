"""Unpacking: nothing lands outside, nothing fills the disk, and what is kept is what was packed."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.artifacts import members, unpack
from cfctl.artifacts.unpack import Limits
from cfctl.errors import CfctlError, HostLacks, UnsafeArchive, UsageError
from tests.artifacts import archives


def unpacked(archive: Path, target: Path, limits: Limits | None = None) -> Path:
    with archive.open("rb") as file, members.opened(file, archive) as found:
        unpack.unpack(found, target, source=archive, packed=archive.stat().st_size, limits=limits)
    return target


def test_what_is_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    tree = unpacked(archives.package(tmp_path / "p.tar.gz"), tmp_path / "tree")
    start = tree / "bin/cvd_internal_start"
    assert start.read_bytes() == archives.LAUNCHER
    assert start.stat().st_mtime == 1_700_000_000
    # Executable as it was, setuid no more, and read-only for everybody.
    assert stat.S_IMODE(start.stat().st_mode) == 0o555
    assert stat.S_IMODE((tree / "etc/config.json").stat().st_mode) == 0o444
    assert stat.S_IMODE((tree / "bin").stat().st_mode) == 0o555
    assert (tree / "bin/launch_cvd").readlink() == Path("cvd_internal_start")
    unpack.remove(tree)
    assert not tree.exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_hard_links_inside(tmp_path: Path, mode: str) -> None:
    link = archives.special("b", tarfile.LNKTYPE, "a")
    tree = unpacked(archives.tar(tmp_path / "p.tar", ("a", b"one"), link, mode=mode), tmp_path / "tree")
    assert (tree / "b").read_bytes() == b"one"


def test_zeros_are_holes(tmp_path: Path) -> None:
    tree = unpacked(archives.images(tmp_path / "i.zip"), tmp_path / "tree")
    disk = (tree / "super.img").stat()
    assert disk.st_size == (8 << 20) + 4
    assert disk.st_blocks * 512 <= 64 << 10
    assert (tree / "super.img").read_bytes() == bytes(4 << 20) + b"data" + bytes(4 << 20)


@given(
    st.lists(st.sampled_from([b"\0" * 4096, b"x" * 4096, b"\0" * 100, b"y" * 5000, b"\0" * (1 << 20)]), max_size=6)
)
def test_holes_change_nothing(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    directory = tmp_path_factory.mktemp("holes")
    tree = unpacked(archives.zip_(directory / "a.zip", ("a.img", b"".join(parts))), directory / "tree")
    assert (tree / "a.img").read_bytes() == b"".join(parts)


@pytest.mark.parametrize(
    "member",
    [
        ("../escape", b"x"),
        ("/escape", b"x"),
        ("a/../../escape", b"x"),
        archives.special("link", tarfile.SYMTYPE, "/etc/passwd"),
        archives.special("link", tarfile.SYMTYPE, "../outside"),
        archives.special("a/link", tarfile.SYMTYPE, "../../outside"),
        archives.special("link", tarfile.LNKTYPE, "/etc/passwd"),
        archives.special("link", tarfile.LNKTYPE, "../outside"),
        archives.special("link", tarfile.LNKTYPE, "missing"),
        archives.special("node", tarfile.CHRTYPE),
        archives.special("node", tarfile.BLKTYPE),
        archives.special("pipe", tarfile.FIFOTYPE),
        archives.special("etc", tarfile.SYMTYPE, "bin"),
        ("etc/config.json", b"twice"),
        ("etc/config.json/under", b"a file as a directory"),
    ],
    # A TarInfo shows its address, which no two processes share.
    ids=lambda member: member.name if isinstance(member, tarfile.TarInfo) else member[0],
)
def test_members_that_are_refused(tmp_path: Path, member: tuple[str, bytes] | tarfile.TarInfo) -> None:
    archive = archives.package(tmp_path / "p.tar.gz", member)
    with pytest.raises(UnsafeArchive):
        unpacked(archive, tmp_path / "tree")
    assert not list(tmp_path.rglob("*escape*"))


def test_links_that_leave_only_together(tmp_path: Path) -> None:
    up = archives.special("a/b/c/top", tarfile.SYMTYPE, "../../..")
    # By its letters it stays in a/b/c; by way of the other link it leads out.
    out = archives.special("out", tarfile.SYMTYPE, "a/b/c/top/../secret")
    (tmp_path / "secret").write_text("s")
    with pytest.raises(UnsafeArchive, match="was not unpacked") as refused:
        unpacked(archives.tar(tmp_path / "p.tar.gz", ("a/b/c/file", b""), up, out), tmp_path / "tree")
    assert "outside of it" in (refused.value.details or "")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = archives.special("d", tarfile.SYMTYPE, "../outside")
    with pytest.raises(UnsafeArchive):
        unpacked(archives.tar(tmp_path / "p.tar", link, ("d/file", b"x"), mode="w"), tmp_path / "tree")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["../escape", "/escape", "a/../../escape"])
def test_zip_members_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive):
        unpacked(archives.zip_(tmp_path / "i.zip", (name, b"x")), tmp_path / "tree")


def test_zip_link_out_of_the_tree(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        archive.writestr(info, "../../etc/passwd")
    with pytest.raises(UnsafeArchive):
        unpacked(tmp_path / "i.zip", tmp_path / "tree")


def test_zip_programs_without_modes(tmp_path: Path) -> None:
    archive = tmp_path / "p.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in (("bin/launch_cvd", archives.LAUNCHER), ("etc/x", b"text")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0
            file.writestr(info, content)
            file.infolist()[-1].external_attr = 0
    tree = unpacked(archive, tmp_path / "tree")
    assert os.access(tree / "bin/launch_cvd", os.X_OK)
    assert stat.S_IMODE((tree / "etc/x").stat().st_mode) == 0o444


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_bomb(tmp_path: Path, form: str) -> None:
    content = bytes(50 << 20)
    archive = tmp_path / f"bomb.{form}"
    if form == "zip":
        archives.zip_(archive, ("super.img", content))
    else:
        archives.tar(archive, ("super.img", content))
    small = Limits(always=1 << 20)
    with pytest.raises(UnsafeArchive) as refused:
        unpacked(archive, tmp_path / "tree", small)
    assert "50.0 MiB" in (refused.value.details or "")
    assert "200 times are allowed" in (refused.value.details or "")
    # The same archive is welcome where such sizes are.
    unpacked(archive, tmp_path / "tree2")


def test_a_bomb_of_many_members(tmp_path: Path) -> None:
    archive = archives.zip_(tmp_path / "many.zip", *((str(n), b"") for n in range(50)))
    with pytest.raises(UnsafeArchive, match="was not unpacked"):
        unpacked(archive, tmp_path / "tree", Limits(members=49))


def test_a_bomb_of_overlapping_members(tmp_path: Path) -> None:
    archive = archives.zip_(tmp_path / "overlap.zip", ("a.img", os.urandom(5000)), ("b.img", os.urandom(5000)))
    raw = bytearray(archive.read_bytes())
    # The second entry of the directory at the end claims more packed bytes than the file has.
    second = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, second + 20, 500_000)
    archive.write_bytes(raw)
    with pytest.raises(UnsafeArchive) as refused:
        unpacked(archive, tmp_path / "tree")
    assert "overlap" in (refused.value.details or "")


def test_a_full_disk_is_told_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archives.tar(tmp_path / "p.tar.gz", ("data.img", os.urandom(3 << 20)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(40 << 20, 36 << 20, 4 << 20))
    with pytest.raises(HostLacks) as refused:
        unpacked(archive, tmp_path / "tree")
    assert (refused.value.details or "").startswith("4.0 MiB are free at ")
    assert "of which 2.0 MiB are to stay free; it needs 3.0 MiB and more." in (refused.value.details or "")


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_an_archive_that_is_cut_off(tmp_path: Path, form: str) -> None:
    archive = tmp_path / f"p.{form}"
    content = os.urandom(100_000)
    if form == "zip":
        archives.zip_(archive, ("a.img", content))
    else:
        archives.tar(archive, ("a.img", content), ("b.img", content), mode="w" if form == "tar" else "w:gz")
    whole = archive.read_bytes()
    for keep in (len(whole) // 3, len(whole) - 5000, 512 + 100_352):
        archive.write_bytes(whole[: min(keep, len(whole) - 1)])
        with pytest.raises(CfctlError, match="is damaged or cut off"):
            unpacked(archive, tmp_path / f"tree-{keep}")


@given(
    st.binary(max_size=600), st.sampled_from([b"PK\x03\x04", b"\x1f\x8b\x08", b"\0" * 257 + b"ustar\0" + b"0" * 200])
)
def test_garbage_is_an_error_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, head: bytes
) -> None:
    directory = tmp_path_factory.mktemp("garbage")
    (directory / "a").write_bytes(head + garbage)
    with pytest.raises(CfctlError):
        unpacked(directory / "a", directory / "tree")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"<html>not found</html>")
    with pytest.raises(UsageError, match="is no archive"):
        unpacked(tmp_path / "a", tmp_path / "tree")


def test_sparse_members_of_a_tar(tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")

    packed = tmp_path / "s.tar.gz"
    subprocess.run(["tar", "-C", tmp_path, "--sparse", "-czf", packed, "disk.img"], check=True, timeout=30)
    tree = unpacked(packed, tmp_path / "tree")
    assert (tree / "disk.img").read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert (tree / "disk.img").stat().st_blocks * 512 < 1 << 20
