"""A device's own view: whatever a launcher does in it, the original stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl.artifacts import store, view
from cfctl.errors import CfctlError
from tests.artifacts import archives


def photograph(directory: Path) -> dict[str, tuple[object, ...]]:
    """Return everything that a write could change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (status.st_mode, status.st_mtime_ns, status.st_nlink, content)
    return found


def test_whatever_is_done_in_it(tmp_path: Path) -> None:
    big = os.urandom(1 << 20)
    entry = store.add(archives.package(tmp_path / "p.tar.gz", ("bin/crosvm", big), ("usr/share/a/b", b"deep")))
    before = photograph(entry.tree)
    here = tmp_path / "device/host"
    view.make(entry.tree, here, own=view.PACKAGE)
    assert (here / "bin/crosvm").read_bytes() == big
    assert (here / "bin/launch_cvd").resolve() == (here / "bin/cvd_internal_start")
    assert os.access(here / "bin/cvd_internal_start", os.X_OK)
    # As `cvd create` does, and worse.
    (here / "bin/crosvm").unlink()
    (here / "bin/crosvm").symlink_to("/bin/true")
    (here / "bin/cvdalloc").symlink_to("/usr/lib/cuttlefish-common/bin/cvdalloc")
    (here / "etc/config.json").write_text("changed")
    with (here / "bin/cvd_internal_start").open("ab") as file:
        file.write(b"# more")
    (here / "usr/share/a").rename(here / "usr/elsewhere")
    assert photograph(entry.tree) == before
    view.make(entry.tree, here, own=view.PACKAGE)
    assert (here / "etc/config.json").read_bytes() == b"{}"
    view.make(entry.tree, here, own=view.PACKAGE)
    assert photograph(entry.tree) == before


def test_no_hard_links(tmp_path: Path) -> None:
    entry = store.add(archives.package(tmp_path / "p.tar.gz", ("bin/big", os.urandom(1 << 20))))
    view.make(entry.tree, tmp_path / "view", own=view.PACKAGE)
    inodes = {path.stat().st_ino for path in entry.tree.rglob("*") if path.is_file()}
    for path in (tmp_path / "view").rglob("*"):
        assert path.lstat().st_ino not in inodes


def test_links_of_a_build_lead_where_they_led(tmp_path: Path) -> None:
    (tmp_path / "out/host/bin").mkdir(parents=True)
    (tmp_path / "out/soong").mkdir()
    (tmp_path / "out/soong/crosvm").write_text("soong's")
    (tmp_path / "out/host/bin/crosvm").symlink_to("../../soong/crosvm")
    (tmp_path / "out/host/bin/gone").symlink_to("nowhere")
    view.make(tmp_path / "out/host", tmp_path / "view", own=view.PACKAGE)
    assert (tmp_path / "view/bin/crosvm").read_text() == "soong's"
    assert (tmp_path / "view/bin/gone").is_symlink()


def test_an_original_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CfctlError, match="could not be made ready for the device"):
        view.make(tmp_path / "gone", tmp_path / "view", own=view.PACKAGE)
    assert not (tmp_path / "view").exists()


def test_what_only_a_build_has_is_linked_as_one(tmp_path: Path) -> None:
    for name in ("bin", "testcases/deep", "obj"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "file").touch()
    view.make(tmp_path / "out", tmp_path / "view", own=view.PACKAGE)
    assert (tmp_path / "view/obj").is_symlink()
    assert (tmp_path / "view/testcases/deep/file").exists()
    assert not (tmp_path / "view/bin").is_symlink()
    view.make(tmp_path / "out", tmp_path / "view", own=())
    assert (tmp_path / "view/bin").is_symlink()
