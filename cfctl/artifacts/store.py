"""The cache of unpacked archives: one directory per content hash, read-only, whole or not there.

``HASH/tree`` is what the archive held and ``HASH/entry.json`` tells about it; the directory gets its name when both
are on the disk. A lock file per hash keeps two from unpacking the same, and ``prune`` from what is being used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cfctl import locks, paths, steps
from cfctl.artifacts import content, members, unpack
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_ENTRY, _TREE, _LOCKS, _SEEN = "entry.json", "tree", ".locks", ".seen"
_CHUNK = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
#: What may stand for a hash, if no other begins so.
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one archive became.

    :param id: the SHA-256 of the archive; of a directory, that of what is in it.
    :param name: what people call it; None if they do not.
    :param source: where it came from.
    :param kinds: ``host-package``, ``images`` or both.
    :param size: bytes as the files show them; ``room`` are those that need room on the disk.
    :param seal: what :func:`_seal` said when it was unpacked.
    """

    id: str
    name: str | None
    source: str
    kinds: tuple[str, ...]
    files: int
    size: int
    room: int
    added_at: str
    seal: str
    cache: Path

    @property
    def directory(self) -> Path:
        """The entry's own directory in the cache."""
        return self.cache / self.id

    @property
    def tree(self) -> Path:
        """What the archive held."""
        return self.directory / _TREE

    @property
    def content(self) -> content.Content:
        """Where in the tree the host package and the images are."""
        return content.look(self.tree)

    @property
    def short(self) -> str:
        """As much of the hash as people need."""
        return self.id[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``images list --json`` shows it (docs/schema/images.json)."""
        document = asdict(self) | {"path": os.fspath(self.tree), "kinds": list(self.kinds)}
        del document["cache"], document["seal"]
        return document


def add(path: Path, *, name: str | None = None) -> Entry:
    """Unpack an archive, or copy a directory, into this user's cache, unless it is there already.

    :param path: a tar, tar.gz or zip, or a directory.
    :param name: what to call it; an entry that is called so loses the name.
    :raises UsageError: if it is no archive, or holds neither a host package nor images.
    :raises UnsafeArchive, HostLacks, CfctlError: if it cannot be unpacked; nothing is left then.
    """
    if name is not None and (not _LABEL.fullmatch(name) or _PREFIX.fullmatch(name)):
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
        identity = _hash_of(file, path)
        if known := _known(identity):
            return known
        status = os.fstat(file.fileno())
        with _unpacking(identity) as (scratch, known):
            if known:
                return known
            with (
                steps.step(f"unpack {path.name} ({unpack.gib(status.st_size)})"),
                members.opened(file, path) as found,
            ):
                totals = unpack.unpack(
                    found,
                    scratch / _TREE,
                    source=path,
                    packed=status.st_size,
                    on_piece=lambda _: steps.progress(os.lseek(file.fileno(), 0, os.SEEK_CUR), status.st_size),
                )
            if _identity(os.fstat(file.fileno())) != _identity(status):
                raise CfctlError(f"{path} was changed while it was unpacked", "Nothing was kept.", "Try again.")
            return _keep(scratch, identity, path, totals)


def _add_directory(path: Path) -> Entry:
    kind = content.look(path)
    if not kind.kinds:
        raise _neither(path)
    files_only = kind.host_package is None and kind.images == path
    total = sum(member.size for member in members.of_directory(path, files_only=files_only))
    with steps.step(f"read {path.name} ({unpack.gib(total)})"):
        identity = _hash_of_directory(path, files_only=files_only, total=total)
    if known := _known(identity):
        return known
    with _unpacking(identity) as (scratch, known):
        if known:
            return known
        with steps.step(f"copy {path.name} ({unpack.gib(total)})"):
            totals = unpack.unpack(
                members.of_directory(path, files_only=files_only),
                scratch / _TREE,
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


# -- hashes ------------------------------------------------------------------------------------------------


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_of(file: IO[bytes], path: Path) -> str:
    """Return the SHA-256 of an archive: read once, then known by what stat(2) says of the file."""
    status = os.fstat(file.fileno())
    key = hashlib.sha256(repr((os.fspath(path), _identity(status))).encode()).hexdigest()
    seen = paths.current().artifacts / _SEEN / key
    with contextlib.suppress(OSError):
        if _HASH.fullmatch(known := seen.read_text()):
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
        seen.parent.mkdir(parents=True, exist_ok=True)
        _write(seen, digest.hexdigest())
    return digest.hexdigest()


def _hash_of_directory(path: Path, *, files_only: bool, total: int) -> str:
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


# -- entries -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _unpacking(identity: str) -> Iterator[tuple[Path, Entry | None]]:
    """Give a directory to unpack into, or the entry if another has made it by now; one at a time for each hash."""
    cache = paths.current().artifacts
    note = f"Waiting for another cfctl that unpacks {identity[:12]} ..."
    try:
        with locks.exclusive(_lock(cache, identity), on_wait=lambda: steps.note(note)):
            # Readable by all: another user's launch holds it while it reads what root has unpacked.
            _lock(cache, identity).chmod(0o644)
            if known := _read(cache, identity):
                yield Path(), known
                return
            # Under the lock, what a killed unpacking left is nobody's; nor is an entry that lacks its description.
            for left in (*cache.glob(f".unpack-{identity}-*"), cache / identity):
                unpack.remove(left)
            _sweep(cache)
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
    kinds = content.look(scratch / _TREE).kinds
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
        seal=_seal(scratch / _TREE),
        cache=cache,
    )
    scratch.chmod(0o755)
    _describe(found, scratch)
    scratch.rename(cache / identity)
    _sync(cache)
    return found


def _seal(tree: Path) -> str:
    """Return a hash of the names, modes, sizes and times of a tree: every write changes it, and it is cheap."""
    digest = hashlib.sha256()
    for root, directories, files in os.walk(tree):
        directories.sort()
        for name in sorted(files):
            status = (here := Path(root) / name).lstat()
            about = (os.fspath(here.relative_to(tree)), status.st_mode, status.st_size, status.st_mtime_ns)
            digest.update(repr(about).encode(errors="surrogateescape"))
    return digest.hexdigest()


def check(path: Path) -> None:
    """Look whether what lies in the cache is still what was unpacked; anything elsewhere is not ours to judge.

    :raises CfctlError: if somebody has changed it.
    """
    for entry in entries():
        if path.is_relative_to(entry.directory) and _seal(entry.tree) != entry.seal:
            raise CfctlError(
                f"{entry.name or entry.short} in the cache was changed since it was unpacked",
                f"{entry.tree} is read by every device that was launched from it, and written by none.",
                "Remove the devices that use it (cfctl ps), then: "
                f"cfctl images prune && cfctl images add {entry.source}",
            )


def _describe(found: Entry, directory: Path) -> None:
    document = asdict(found)
    del document["cache"], document["id"]
    _write(directory / _ENTRY, json.dumps(document, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    scratch = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}")
    with scratch.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.chmod(0o644)
    scratch.rename(path)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock(cache: Path, identity: str) -> Path:
    return cache / _LOCKS / identity


def _read(cache: Path, identity: str) -> Entry | None:
    """Return an entry, None if there is none that is whole."""
    try:
        document = json.loads((cache / identity / _ENTRY).read_bytes())
        document["kinds"] = tuple(document["kinds"])
        return Entry(id=identity, cache=cache, **document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _caches() -> list[Path]:
    own = paths.current().artifacts
    return list(dict.fromkeys([own, paths.SYSTEM_CACHE / own.name]))


def _known(identity: str) -> Entry | None:
    return next((found for cache in _caches() if (found := _read(cache, identity))), None)


def entries(*, own: bool = False) -> list[Entry]:
    """Return what is in this user's cache and in the system's, the newest first.

    :param own: only this user's.
    """
    found: dict[str, Entry] = {}
    for cache in [paths.current().artifacts] if own else _caches():
        for directory in cache.glob("[0-9a-f]*"):
            if _HASH.fullmatch(directory.name) and (entry := _read(cache, directory.name)):
                found.setdefault(entry.id, entry)
    return sorted(found.values(), key=lambda entry: (entry.added_at, entry.id), reverse=True)


def find(word: str) -> Entry:
    """Return the entry that a name, a hash or the beginning of one stands for.

    :raises UsageError: if there is none, or more than one.
    """
    known = entries()
    found = [entry for entry in known if entry.name == word]
    if not found and _PREFIX.fullmatch(word):
        found = [entry for entry in known if entry.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{word!r} is not one package",
            "\n".join(f"{entry.short}  {entry.source}" for entry in found),
            "Give more of the hash: cfctl images list",
        )
    names = ", ".join(entry.name or entry.short for entry in known)
    raise UsageError(
        f"{word!r} is neither a file or directory, nor in the cache",
        f"The cache holds: {names}. Of a hash, 6 digits are needed." if names else "The cache is empty.",
        "Add it: cfctl images add FILE --name NAME",
    )


def _call_it(found: Entry, name: str) -> Entry:
    for other in entries(own=True):
        if other.name == name and other.id != found.id:
            steps.note(f"{name} was {other.short}, and is {found.short} now.")
            _describe(replace(other, name=None), other.directory)
    named = replace(found, name=name)
    try:
        _describe(named, found.directory)
    except OSError as exc:
        raise CfctlError(
            f"{found.directory} cannot be written: {exc.strerror}", "It is in the system's cache."
        ) from exc
    return named


@contextlib.contextmanager
def held(found: Collection[Entry]) -> Iterator[None]:
    """Keep entries from being pruned for the block.

    :raises CfctlError: if one was pruned just before.
    """
    with contextlib.ExitStack() as stack:
        for entry in found:
            try:
                fd = os.open(_lock(entry.cache, entry.id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue  # another user's, or removed with its lock: seen just below
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_SH)
        for entry in found:
            if _read(entry.cache, entry.id) is None:
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
    for entry in entries(own=True):
        if any(path.is_relative_to(entry.directory) for path in used):
            continue
        if dry_run or _remove(entry):
            removed.append(entry)
    if not dry_run:
        _sweep(cache)
        kept = {entry.id for entry in entries()}
        for seen in (cache / _SEEN).glob("[0-9a-f]*"):
            with contextlib.suppress(OSError):
                if seen.read_text() not in kept:
                    seen.unlink()
    return removed


def _sweep(cache: Path) -> None:
    """Remove what killed unpackings and removals have left."""
    for left in cache.glob(".unpack-*"):
        with _try_lock(_lock(cache, left.name.split("-")[1])) as free:
            if free:
                unpack.remove(left)


def _remove(entry: Entry) -> bool:
    with _try_lock(_lock(entry.cache, entry.id)) as free:
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
