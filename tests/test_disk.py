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
