"""The cache: unpacked once, whole or not there, pruned only when nothing uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cfctl import steps
from cfctl.artifacts import store
from cfctl.errors import CfctlError, UsageError
from tests.artifacts import archives


class Listener(steps.Silent):
    def __init__(self) -> None:
        self.titles: list[str] = []
        self.done: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def begin(self, title: str) -> None:
        self.titles.append(title.split()[0])

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, done: int, total: int) -> None:
        self.done.append((done, total))


def test_an_archive_is_unpacked_once_and_read_once(tmp_path: Path) -> None:
    archive = archives.package(tmp_path / "p.tar.gz", ("lib/big", os.urandom(3 << 20)))
    listener = Listener()
    with steps.reporting(listener):
        first = store.add(archive)
        assert listener.titles == ["read", "unpack"]
        assert listener.done[-1][0] <= listener.done[-1][1] == archive.stat().st_size
        assert store.add(archive) == first
    assert listener.titles == ["read", "unpack"]
    assert first.kinds == ("host-package",)
    assert first.content.host_package == first.tree
    # The same content under another name is read, and not unpacked.
    copy = tmp_path / "copy.tar.gz"
    copy.write_bytes(archive.read_bytes())
    with steps.reporting(listener):
        assert store.add(copy).id == first.id
    assert listener.titles == ["read", "unpack", "read"]


def test_another_content_is_another_entry(tmp_path: Path) -> None:
    archive = archives.package(tmp_path / "p.tar.gz")
    first = store.add(archive)
    archives.package(archive, ("etc/more", b"1"))
    assert store.add(archive).id != first.id
    assert len(store.entries()) == 2


def test_a_directory_around_everything_is_seen_through(tmp_path: Path) -> None:
    entry = store.add(
        archives.tar(tmp_path / "p.tar.gz", ("cf/bin/launch_cvd", archives.LAUNCHER), ("cf/a.img", b"1"))
    )
    assert entry.kinds == ("host-package", "images")
    assert entry.content.host_package == entry.content.images == entry.tree / "cf"


def test_neither_package_nor_images(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="holds neither a host package nor a guest's images"):
        store.add(archives.tar(tmp_path / "p.tar.gz", ("README", b"hello")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds neither"):
        store.add(tmp_path / "empty")
    assert store.entries() == []
    assert not list(cache.glob(".unpack-*"))


def test_a_directory_is_copied_and_known_by_its_content(tmp_path: Path) -> None:
    images = tmp_path / "product"
    (images / "obj").mkdir(parents=True)
    (images / "obj/huge").write_text("no image")
    (images / "super.img").write_bytes(bytes(1 << 20) + b"x")
    first = store.add(images, name="tonight")
    assert first.kinds == ("images",)
    assert sorted(path.name for path in first.tree.iterdir()) == ["super.img"]
    assert store.add(images).id == first.id
    (images / "super.img").write_bytes(b"y")
    assert store.add(images).id != first.id


def test_names(tmp_path: Path) -> None:
    listener = Listener()
    with steps.reporting(listener):
        one = store.add(archives.package(tmp_path / "1.tar.gz"), name="nightly")
        two = store.add(archives.package(tmp_path / "2.tar.gz", ("etc/2", b"")), name="nightly")
    assert listener.notes == [f"nightly was {one.short}, and is {two.short} now."]
    assert store.find("nightly").id == two.id
    assert store.find(one.id[:8]).name is None
    for bad in ("", "a/b", "-x", "abcdef12"):
        with pytest.raises(UsageError, match="is not a name"):
            store.add(tmp_path / "1.tar.gz", name=bad)
    with pytest.raises(UsageError, match="neither a file or directory, nor in the cache"):
        store.find("weekly")


def test_an_archive_that_fails_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    archive = archives.tar(tmp_path / "p.tar.gz", ("bin/launch_cvd", os.urandom(200_000)))
    archive.write_bytes(archive.read_bytes()[:-50_000])
    with pytest.raises(CfctlError, match="damaged or cut off"):
        store.add(archive)
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == []
    assert not list(cache.glob(".unpack-*"))


def test_what_a_killed_unpacking_left_is_swept_away(tmp_path: Path, cache: Path) -> None:
    archive = archives.package(tmp_path / "p.tar.gz")
    program = f"""
import os, signal
from pathlib import Path
from cfctl.artifacts import sparse, store
real = sparse.write
def killed(*args, **kwargs):
    real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
sparse.write = killed
store.add(Path({os.fspath(archive)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False, timeout=60)
    assert done.returncode == -9
    assert len(list(cache.glob(".unpack-*"))) == 1
    assert store.entries() == []
    # An entry without its description, as a disk that lost power may have it, is none.
    entry = store.add(archive)
    assert not list(cache.glob(".unpack-*"))
    (entry.directory / "entry.json").write_text("{")
    assert store.entries() == []
    assert store.add(archive).tree.is_dir()


def test_two_at_once_unpack_once(tmp_path: Path) -> None:
    archive = archives.package(tmp_path / "p.tar.gz", ("lib/big", os.urandom(8 << 20)))
    listeners = [Listener(), Listener()]

    def add(listener: Listener) -> None:
        with steps.reporting(listener):
            store.add(archive)

    threads = [threading.Thread(target=add, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(listener.titles.count("unpack") for listener in listeners) == 1


def test_prune_spares_what_is_used_and_what_is_held(tmp_path: Path, cache: Path) -> None:
    used, held, idle = (
        store.add(archives.package(tmp_path / f"{n}.tar.gz", ("etc/n", bytes([n])))) for n in range(3)
    )
    (cache / f".unpack-{idle.id}-left").mkdir()
    paths = [used.tree / "bin"]
    with store.held([held]):
        assert {entry.id for entry in store.prune(paths, dry_run=True)} == {held.id, idle.id}
        assert len(store.entries()) == 3
        assert [entry.id for entry in store.prune(paths)] == [idle.id]
    assert {entry.id for entry in store.entries()} == {used.id, held.id}
    assert not list(cache.glob(".unpack-*"))
    assert [entry.id for entry in store.prune(paths)] == [held.id]
    with pytest.raises(CfctlError, match="removed from the cache just now"), store.held([held]):
        raise AssertionError


def test_prune_spares_what_is_used_through_links(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.add(archives.package(tmp_path / "p.tar.gz"))
    (tmp_path / "nightly").symlink_to(entry.tree)
    assert store.prune([tmp_path / "nightly"]) == []
    # The cache itself by another way, as where a user's home is a link.
    (tmp_path / "home").symlink_to(cache.parent)
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "home"))
    assert store.prune([entry.tree]) == []
    assert [gone.id for gone in store.prune([])] == [entry.id]


def test_the_systems_cache_is_read(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archives.package(tmp_path / "p.tar.gz")
    entry = store.add(archive, name="shared")
    cache.parent.rename(tmp_path / "system-cache")
    assert store.find("shared").directory == tmp_path / "system-cache/artifacts" / entry.id
    listener = Listener()
    with steps.reporting(listener):
        assert store.add(archive).id == entry.id
    assert "unpack" not in listener.titles
    assert store.prune([]) == []
    document = store.find("shared").as_dict()
    assert json.loads(json.dumps(document))["path"].startswith(str(tmp_path / "system-cache"))


def test_what_was_changed_in_the_cache_is_not_launched(tmp_path: Path) -> None:
    entry = store.add(archives.package(tmp_path / "p.tar.gz"))
    store.check(entry.tree)
    store.check(tmp_path)
    program = entry.tree / "bin/cvd_internal_start"
    program.chmod(0o755)
    program.write_bytes(archives.LAUNCHER.replace(b"1", b"0"))
    program.chmod(0o555)
    store.check(tmp_path)
    with pytest.raises(CfctlError, match="in the cache was changed since it was unpacked"):
        store.check(entry.tree)
