"""The SHA-256 of an archive, or of what is in a directory: the name of an entry in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import IO

from cfctl import paths, steps
from cfctl.artifacts import entries, members, unpack

#: In the cache: the hashes of files that were read before, by what stat(2) says of them.
SEEN = ".seen"
_CHUNK = 1 << 20


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with every write to a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def of_archive(file: IO[bytes], path: Path) -> str:
    """Return the SHA-256 of an archive: read once, then known by what stat(2) says of the file."""
    status = os.fstat(file.fileno())
    key = hashlib.sha256(repr((os.fspath(path), identity(status))).encode()).hexdigest()
    seen = paths.current().artifacts / SEEN / key
    with contextlib.suppress(OSError):
        if entries.HASH.fullmatch(known := seen.read_text()):
            return known
    digest = hashlib.sha256()
    done = 0
    with steps.step(f"read {path.name} ({unpack.gib(status.st_size)})"):
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            steps.progress(done, status.st_size)
    file.seek(0)
    # A cache that cannot be written only costs the time of reading it again.
    with contextlib.suppress(OSError):
        entries.make_directory(seen.parent)
        entries.write(seen, digest.hexdigest())
    return digest.hexdigest()


def of_directory(path: Path, *, files_only: bool, total: int) -> str:
    """Return the SHA-256 of the names, kinds and contents of what is in a directory.

    :param files_only: leave out the directories in it.
    :param total: bytes that there are to be read.
    """
    digest = hashlib.sha256()
    done = 0
    for member in members.of_directory(path, files_only=files_only):
        head = (member.name, member.kind.value, member.size, member.executable, member.target)
        digest.update(repr(head).encode(errors="surrogateescape"))
        if member.kind is members.Kind.FILE:
            with member.open() as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    steps.progress(done, total)
    return digest.hexdigest()
