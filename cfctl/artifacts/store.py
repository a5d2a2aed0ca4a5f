"""The cache of unpacked archives: one directory per content hash, read-only, whole or not there.

A directory gets its name when what the archive held and what tells about it (entries.py) are both on the disk. A lock
file per hash keeps two from unpacking the same, and ``prune`` from what is being used.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import locks, paths, steps
from cfctl.artifacts import content, hashes, members, unpack
from cfctl.artifacts import entries as entries_
from cfctl.artifacts.entries import PREFIX, TREE, Entry, entries, find, known
from cfctl.artifacts.pruning import held, prune, sweep
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "add", "check", "entries", "find", "held", "prune"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def add(path: Path, *, name: str | None = None) -> Entry:
    """Unpack an archive, or copy a directory, into this user's cache, unless it is there already.

    :param path: a tar, tar.gz or zip, or a directory.
    :param name: what to call it; an entry that is called so loses the name.
    :raises UsageError: if it is no archive, or holds neither a host package nor images.
    :raises UnsafeArchive, HostLacks, CfctlError: if it cannot be unpacked; nothing is left then.
    """
    if name is not None and (not _LABEL.fullmatch(name) or PREFIX.fullmatch(name)):
        raise UsageError(
            f"{name!r} is not a name for a package",
            "A name has 1 to 63 letters, digits, dots, dashes and underscores, and does not look like a hash.",
        )
    found = _add_directory(path) if path.is_dir() else _add_archive(path)
    return _call_it(found, name) if name is not None else found


def _add_archive(path: Path) -> Entry:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise UsageError(f"{path} cannot be read", exc.strerror) from exc
    with file:
        members.recognise(file, path)
        identity = hashes.of_archive(file, path)
        if there := known(identity):
            return there
        status = os.fstat(file.fileno())
        with _unpacking(identity) as (scratch, there):
            if there:
                return there
            with (
                steps.step(f"unpack {path.name} ({unpack.gib(status.st_size)})"),
                members.opened(file, path) as found,
            ):
                totals = unpack.unpack(
                    found,
                    scratch / TREE,
                    source=path,
                    packed=status.st_size,
                    on_piece=lambda _: steps.progress(os.lseek(file.fileno(), 0, os.SEEK_CUR), status.st_size),
                )
            if hashes.identity(os.fstat(file.fileno())) != hashes.identity(status):
                raise CfctlError(f"{path} was changed while it was unpacked", "Nothing was kept.", "Try again.")
            return _keep(scratch, identity, path, totals)


def _add_directory(path: Path) -> Entry:
    kind = content.look(path)
    if not kind.kinds:
        raise _neither(path)
    files_only = kind.host_package is None and kind.images == path
    total = sum(member.size for member in members.of_directory(path, files_only=files_only))
    with steps.step(f"read {path.name} ({unpack.gib(total)})"):
        identity = hashes.of_directory(path, files_only=files_only, total=total)
    if there := known(identity):
        return there
    with _unpacking(identity) as (scratch, there):
        if there:
            return there
        with steps.step(f"copy {path.name} ({unpack.gib(total)})"):
            totals = unpack.unpack(
                members.of_directory(path, files_only=files_only),
                scratch / TREE,
                source=path,
                packed=0,
                on_piece=lambda done: steps.progress(done, total),
            )
        return _keep(scratch, identity, path, totals)


def _neither(path: Path) -> UsageError:
    return UsageError(
        f"{path} holds neither a host package nor a guest's images",
        f"A host package has bin/{' or bin/'.join(content.LAUNCHERS)}, images end in .img.",
        f"Give {content.PACKAGE_ARCHIVE}, a zip of images (aosp_cf_*-img-*.zip), or a directory with either.",
    )


def _call_it(found: Entry, name: str) -> Entry:
    for other in entries(own=True):
        if other.name == name and other.id != found.id:
            steps.note(f"{name} was {other.short}, and is {found.short} now.")
            entries_.describe(replace(other, name=None), other.directory)
    named = replace(found, name=name)
    try:
        entries_.describe(named, found.directory)
    except OSError as exc:
        raise CfctlError(
            f"{found.directory} cannot be written: {exc.strerror}", "It is in the system's cache."
        ) from exc
    return named


def check(path: Path) -> None:
    """Look whether what lies in the cache is still what was unpacked; anything elsewhere is not ours to judge.

    :raises CfctlError: if somebody has changed it.
    """
    for entry in entries():
        if path.is_relative_to(entry.directory) and entries_.seal(entry.tree) != entry.seal:
            raise CfctlError(
                f"{entry.name or entry.short} in the cache was changed since it was unpacked",
                f"{entry.tree} is read by every device that was launched from it, and written by none.",
                "Remove the devices that use it (cfctl ps), then: "
                f"cfctl images prune && cfctl images add {entry.source}",
            )


# -- unpacking ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _unpacking(identity: str) -> Iterator[tuple[Path, Entry | None]]:
    """Give a directory to unpack into, or the entry if another has made it by now; one at a time for each hash."""
    cache = paths.current().artifacts
    note = f"Waiting for another cfctl that unpacks {identity[:12]} ..."
    try:
        entries_.make_directory(entries_.lock(cache, identity).parent)
        with locks.exclusive(entries_.lock(cache, identity), on_wait=lambda: steps.note(note)):
            # Readable by all: another user's launch holds it while it reads what root has unpacked.
            entries_.lock(cache, identity).chmod(0o644)
            if there := entries_.read(cache, identity):
                yield Path(), there
                return
            # Under the lock, what a killed unpacking left is nobody's; nor is an entry that lacks its description.
            for left in (*cache.glob(f".unpack-{identity}-*"), cache / identity):
                unpack.remove(left)
            sweep(cache)
            scratch = Path(tempfile.mkdtemp(prefix=f".unpack-{identity}-", dir=cache))
            try:
                yield scratch, None
            finally:
                unpack.remove(scratch)
    except OSError as exc:
        raise CfctlError(
            f"{cache} cannot be written: {exc.strerror}",
            None,
            f"Look at it: df -h {cache}; ls -ld {cache}\n"
            "or keep the cache elsewhere: export CFCTL_PATHS_CACHE=DIRECTORY",
        ) from exc


def _keep(scratch: Path, identity: str, source: Path, totals: unpack.Totals) -> Entry:
    """Describe what was unpacked and give it its place."""
    kinds = content.look(scratch / TREE).kinds
    if not kinds:
        raise _neither(source)
    cache = paths.current().artifacts
    added = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    found = Entry(
        id=identity,
        name=None,
        source=os.fspath(source),
        kinds=kinds,
        files=totals.files,
        size=totals.size,
        room=totals.data,
        added_at=added,
        seal=entries_.seal(scratch / TREE),
        cache=cache,
    )
    scratch.chmod(0o755)
    entries_.describe(found, scratch)
    scratch.rename(cache / identity)
    _sync(cache)
    return found


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
