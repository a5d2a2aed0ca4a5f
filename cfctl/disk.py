"""Making directories that all users read, and what is said where nothing can be written."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


def error(where: Path, exc: OSError, *, elsewhere: str = "") -> CfctlError:
    """Return the error for a file or directory that cannot be written.

    :param elsewhere: what else helps where the file system is read-only.
    """
    there = next(path for path in (where, *where.parents) if os.path.exists(path))  # noqa: PTH110 (it never raises)
    if exc.errno in _FULL:
        help_ = f"Make room there: df -h {there}"
    elif exc.errno == errno.EROFS:
        help_ = f"Mount it writable{f', or {elsewhere}' if elsewhere else f': findmnt -T {there}'}"
    else:
        help_ = f"Look at who may write there: ls -ld {there}"
    return CfctlError(f"{where} cannot be written: {exc.strerror}", None, help_)


def make_shared(directory: Path, *, top: Path) -> None:
    """Make a directory; everybody may enter what is made for it, whatever the umask.

    :param top: the highest directory that is ours; those above it are made as others make them.
    :raises OSError: if it cannot be made.
    """
    places = (directory, *directory.parents)
    missing = [path for path in places if path.is_relative_to(top) and not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        path.chmod(0o755)


@contextlib.contextmanager
def writing(where: Path) -> Iterator[None]:
    """Say so if the block finds the disk full or read-only; other errors are the block's own.

    :raises CfctlError: naming ``where``.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in (*_FULL, errno.EROFS):
            raise error(where, exc) from exc
        raise
