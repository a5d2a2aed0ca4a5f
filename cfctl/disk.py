"""Small files, written whole, directories for all users, and what is said where nothing can be written."""

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


def replace(path: Path, data: bytes, *, mode: int | None = None, wait: bool = True) -> None:
    """Write a small file, whole or not at all, whatever becomes of this process or of the machine's power.

    XFS, the usual one on RHEL, may show a file that was only renamed with nothing in it after a power cut.

    :param mode: its permissions; None is what the umask leaves.
    :param wait: until it is on the disk, which takes 15 ms and more; otherwise the kernel only begins to write at
        once, and a power cut within those leaves it empty.
    :raises OSError: if it cannot be written; the old one stays, and nothing is beside it.
    """
    import secrets

    # Its name says what it was to be, for whoever sweeps after a kill; one of 255 bytes has room for no more.
    scratch = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(scratch, flags, 0o666 if mode is None else mode)
    try:
        with os.fdopen(fd, "wb") as file:
            if mode is not None:
                os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            if wait:
                os.fsync(fd)
            else:
                # What has it written back: the page cache is to do without it (mm/fadvise.c).
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


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


def matching(directory: Path, pattern: str) -> list[Path]:
    """Return what matches below a directory; nothing of what may not be looked into.

    Not even root may look into a home on NFS or FUSE.
    """
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += directory.glob(pattern)
    return found


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
