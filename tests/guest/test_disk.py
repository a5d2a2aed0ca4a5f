"""The guest's disk, its snapshots and its picture, without a VM."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.control import picture
from cfctl.errors import CfctlError, UsageError
from cfctl.guest import disk, snapshot
from cfctl.guest.layout import Places, prepare
from cfctl.guest.snapshot import Snapshot
from cfctl.instance import Instance


def test_a_disk_is_blank_and_costs_nothing(tmp_path: Path) -> None:
    made = tmp_path / disk.NAME
    disk.ensure(made)
    assert made.stat().st_size == disk.SIZE
    assert made.stat().st_blocks == 0
    made.write_bytes(b"written")
    disk.ensure(made)
    assert made.read_bytes() == b"written"
    disk.blank(made)
    assert made.read_bytes() == bytes(disk.SIZE)


def test_a_copy_has_the_same_bytes_and_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    disk.blank(source)
    with source.open("r+b") as file:
        for position in (0, 5 << 20, disk.SIZE - 10):
            file.seek(position)
            file.write(os.urandom(10))
    disk.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 64
    disk.blank(source)
    disk.copy(source, target)
    assert target.read_bytes() == bytes(disk.SIZE)


def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    disk.blank(tmp_path / "a")
    with pytest.raises(OSError, match="No such file"):
        disk.copy(tmp_path / "a", tmp_path / "gone/b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return Places.of(tmp_path, None, {"TMPDIR": str(tmp_path)})


# A short name: it is part of a socket's path, which must fit into 107 bytes.
@pytest.mark.parametrize("keep", [True, False])
def test_kept_disk(places: Places, keep: bool) -> None:
    instance = Instance(1)
    link = places.home / "cuttlefish_assembly"
    prepare(places, [instance], assembly_link=link)
    places.disk(instance).write_bytes(b"written")
    (places.instance(instance) / "logs/kernel.log").write_text("old")
    (places.instance(instance) / "old").mkdir()
    prepare(places, [instance], assembly_link=link, keep_disks=keep)
    assert (places.disk(instance).read_bytes() == b"written") is keep
    assert places.disk(instance).exists()
    assert (places.instance(instance) / "logs/kernel.log").read_text() == ""
    assert not (places.instance(instance) / "old").exists()


CONFIG = {
    "cfctl_accelerator": "tcg",
    "instances": {"1": {"cpus": 2, "memory_mb": 256, "gpu_mode": "none", "kernel_path": "/a/kernel"}},
}


def write(directory: Path, **changed: object) -> Path:
    directory.mkdir(exist_ok=True)
    meta = directory / snapshot.META
    document = {"guest_snapshot": {"1": "instances/cvd-1"}, "cfctl": snapshot._machine(CONFIG, "QEMU 7")}
    meta.write_text(json.dumps({**document, **changed}))
    return meta


def test_a_snapshot_is_of_one_machine(tmp_path: Path) -> None:
    taken = Snapshot.read(write(tmp_path / "s"))
    taken.check(CONFIG, "QEMU 7")
    assert taken.memory(Instance(1)) == tmp_path / "s/instances/cvd-1/guest_vm"
    moved = {**CONFIG, "instances": {"1": {**CONFIG["instances"]["1"], "kernel_path": "/elsewhere/kernel"}}}  # type: ignore[index]
    taken.check(moved, "QEMU 7")
    with pytest.raises(UsageError, match="the snapshot has QEMU QEMU 7, and this launch QEMU 8"):
        taken.check(CONFIG, "QEMU 8")
    other = {**CONFIG, "instances": {"1": {**CONFIG["instances"]["1"], "cpus": 4}}}  # type: ignore[index]
    with pytest.raises(UsageError, match="the snapshot has cpus of cvd-1 2, and this launch 4"):
        taken.check(other, "QEMU 7")
    with pytest.raises(UsageError, match="the snapshot is of instance 1, and this launch of 2, 10"):
        taken.check({"instances": {"10": {}, "2": {}}}, "QEMU 7")
    with pytest.raises(UsageError, match="has no cvd-2"):
        taken.directory(Instance(2))
    with pytest.raises(UsageError, match="another launcher's"):
        Snapshot.read(write(tmp_path / "s", cfctl=None)).check(CONFIG, "QEMU 7")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"guest_snapshot": [1]}', '{"guest_snapshot": {"1": "../../etc"}}']
)
def test_what_is_no_snapshot(tmp_path: Path, text: str) -> None:
    (tmp_path / snapshot.META).write_text(text)
    with pytest.raises(UsageError, match="is not a snapshot"):
        Snapshot.read(tmp_path / snapshot.META)


def test_a_picture() -> None:
    png = picture.png(b"P6\n2 1\n255\n\xff\0\0\0\xff\0")
    assert png.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x01\x08\x02\0\0\0")
    start = png.index(b"IDAT")
    assert zlib.decompress(png[start + 4 : png.index(b"IEND") - 8]) == b"\0\xff\0\0\0\xff\0"


@given(st.binary(max_size=40) | st.binary(max_size=20).map(b"P6 2 1 255\n".__add__))
def test_what_is_no_picture(raw: bytes) -> None:
    try:
        assert picture.png(raw).startswith(b"\x89PNG")
    except CfctlError as error:
        assert error.brief == "QEMU's picture cannot be read"  # noqa: PT017 (both ends are right)
