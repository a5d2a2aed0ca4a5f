"""The guest's disk: what it writes outlives a restart, and a powerwash makes it blank.

It has upstream's name, ``overlay.img``, and is a plain sparse file: blank blocks cost nothing. The guest makes a file
system on it when it finds nothing there.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "overlay.img"

#: As the guest sees it.
SIZE = 64 << 20

_CHUNK = 1 << 20


def ensure(disk: Path) -> None:
    """Make a blank disk, if there is none."""
    if not disk.exists():
        blank(disk)


def blank(disk: Path) -> None:
    """Make a disk blank; it appears whole or not at all."""
    fresh = disk.with_suffix(".new")
    with fresh.open("wb") as file:
        file.truncate(SIZE)
    fresh.replace(disk)


def copy(source: Path, target: Path) -> None:
    """Copy a disk that nobody writes to; holes stay holes.

    :raises OSError: if there is no room; nothing is left then.
    """
    fresh = target.with_suffix(".new")
    try:
        with source.open("rb") as reader, fresh.open("wb") as writer:
            size = os.fstat(reader.fileno()).st_size
            writer.truncate(size)
            start = 0
            while (start := _data(reader.fileno(), start, size)) < size:
                end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
                reader.seek(start)
                writer.seek(start)
                while start < end and (chunk := reader.read(min(_CHUNK, end - start))):
                    writer.write(chunk)
                    start += len(chunk)
        shutil.copymode(source, fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _data(fd: int, start: int, size: int) -> int:
    """Return where the next data begins; the size if there is none (lseek(2), SEEK_DATA)."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return size
        raise
