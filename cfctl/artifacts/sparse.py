"""Writing files with holes: guests' disks hold long runs of zeros, which need no room on the disk."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The block of every file system in use; a run of zeros that is shorter saves nothing.
_BLOCK = 4096
_CHUNK = 256 * _BLOCK
_ZEROS = bytes(_CHUNK)


def write(source: IO[bytes], target: Path, *, before: Callable[[int, int], None]) -> int:
    """Write what ``source`` gives into a new file, with holes where it gives blocks of zeros; sync it to the disk.

    :param before: is told before every piece how many bytes come, and how many of them need room; may raise.
    :return: the size of the file.
    :raises OSError: if it cannot be written; what is there of it stays.
    """
    size = 0
    with target.open("xb", buffering=0) as sink:
        while chunk := _full(source):
            pieces = [] if chunk == _ZEROS[: len(chunk)] else list(_data(chunk))
            before(len(chunk), sum(len(piece) for _, piece in pieces))
            for offset, piece in pieces:
                _write_all(sink.fileno(), piece, size + offset)
            size += len(chunk)
        sink.truncate(size)
        os.fsync(sink.fileno())
    return size


def _full(source: IO[bytes]) -> bytes:
    """Read a whole chunk, so that blocks stay aligned; less only at the end."""
    parts: list[bytes] = []
    missing = _CHUNK
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _data(chunk: bytes) -> list[tuple[int, bytes]]:
    """Return the pieces of a chunk that are not blocks of zeros, each with its offset."""
    pieces: list[tuple[int, bytes]] = []
    start: int | None = None
    for offset in range(0, len(chunk), _BLOCK):
        block = chunk[offset : offset + _BLOCK]
        if block == _ZEROS[: len(block)]:
            if start is not None:
                pieces.append((start, chunk[start:offset]))
                start = None
        elif start is None:
            start = offset
    if start is not None:
        pieces.append((start, chunk[start:]))
    return pieces


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
