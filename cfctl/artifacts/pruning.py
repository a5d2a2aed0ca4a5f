"""Entries of the cache that are kept while they are used, and removed when nothing uses them any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths, steps
from cfctl.artifacts import entries, hashes, unpack
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cfctl.artifacts.entries import Entry


@contextlib.contextmanager
def held(found: Collection[Entry]) -> Iterator[None]:
    """Keep entries from being pruned for the block.

    :raises CfctlError: if one was pruned just before.
    """
    with contextlib.ExitStack() as stack:
        for entry in found:
            try:
                fd = os.open(entries.lock(entry.cache, entry.id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue  # another user's, or removed with its lock: seen just below
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_SH)
        for entry in found:
            if entries.read(entry.cache, entry.id) is None:
                raise CfctlError(
                    f"{entry.name or entry.short} was removed from the cache just now", None, "Try again."
                )
        yield


def prune(used: Collection[Path], *, dry_run: bool = False) -> list[Entry]:
    """Remove entries of this user's cache that nothing uses, and what killed unpackings have left.

    :param used: paths that devices use.
    :param dry_run: only tell.
    :return: what was removed, or would be.
    :raises CfctlError: if something cannot be deleted.
    """
    cache = paths.current().artifacts
    removed = []
    # By whatever links: one to a tree of ours, or one above the cache that only some ways to log in resolve.
    leads = {Path(os.path.realpath(path)) for path in used}
    for entry in entries.entries(own=True):
        directory = Path(os.path.realpath(entry.directory))
        if any(path.is_relative_to(directory) for path in leads):
            continue
        if dry_run or _remove(entry):
            removed.append(entry)
    if not dry_run:
        sweep(cache)
        kept = {entry.id for entry in entries.entries()}
        for seen in (cache / hashes.SEEN).glob("[0-9a-f]*"):
            with contextlib.suppress(OSError):
                if seen.read_text() not in kept:
                    seen.unlink()
    return removed


def sweep(cache: Path) -> None:
    """Remove what killed unpackings and removals have left."""
    for left in cache.glob(".unpack-*"):
        with _try_lock(entries.lock(cache, left.name.split("-")[1])) as free:
            if free:
                unpack.remove(left)


def _remove(entry: Entry) -> bool:
    with _try_lock(entries.lock(entry.cache, entry.id)) as free:
        if not free:
            steps.note(f"{entry.name or entry.short} is being used, and stays.")
            return False
        # Its name goes first: what a killed removal leaves looks like a killed unpacking.
        going = entry.cache / f".unpack-{entry.id}-{secrets.token_hex(4)}"
        entry.directory.rename(going)
        unpack.remove(going)
    return True


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        free = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)
