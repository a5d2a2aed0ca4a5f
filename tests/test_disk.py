"""What is said of a disk that is full or read-only, and of nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cfctl import disk
from cfctl.errors import CfctlError


def oserror(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing(tmp_path: Path, code: int) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(CfctlError) as caught, disk.writing(path):
        raise oserror(code)
    assert caught.value.brief == f"{path} cannot be written: {os.strerror(code)}"
    # The command works: it names what is there.
    command = "findmnt -T" if code == errno.EROFS else "df -h"
    assert (caught.value.resolution or "").endswith(f"{command} {tmp_path}")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk.writing(tmp_path):
        raise oserror(errno.EACCES)


def test_elsewhere(tmp_path: Path) -> None:
    found = disk.error(tmp_path, oserror(errno.EROFS), elsewhere="keep it in DIRECTORY")
    assert found.resolution == "Mount it writable, or keep it in DIRECTORY"


def test_a_file_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    disk.replace(path, b"one", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    done: list[str] = []
    sync = os.fsync

    def noted(fd: int) -> None:
        # What a power cut leaves is what was on the disk when the name was given.
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        assert path.read_bytes() == b"one"
        sync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    disk.replace(path, b"two", mode=0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o644)
    assert len(done) == 1
    assert done[0].startswith(".record.json-")

    disk.replace(path, b"three", wait=False)
    assert (path.read_bytes(), len(done)) == (b"three", 1)

    def full(_fd: int) -> None:
        raise oserror(errno.ENOSPC)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        disk.replace(path, b"four")
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]
    assert path.read_bytes() == b"three"


def test_its_mode_is_the_umasks_unless_it_is_said(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        disk.replace(tmp_path / "mine", b"")
        disk.replace(tmp_path / "shared", b"", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o644
