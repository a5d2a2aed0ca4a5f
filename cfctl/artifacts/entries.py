"""What lies in the cache: one directory per content hash, whole or not there.

``HASH/tree`` is what an archive held and ``HASH/entry.json`` tells about it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfctl import disk, paths
from cfctl.artifacts import content
from cfctl.errors import UsageError

_ENTRY, TREE, _LOCKS = "entry.json", "tree", ".locks"
HASH = re.compile(r"[0-9a-f]{64}")
#: What may stand for a hash, if no other begins so.
PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one archive became.

    :param id: the SHA-256 of the archive; of a directory, that of what is in it.
    :param name: what people call it; None if they do not.
    :param source: where it came from.
    :param kinds: ``host-package``, ``images`` or both.
    :param size: bytes as the files show them; ``room`` are those that need room on the disk.
    :param seal: what :func:`seal` said when it was unpacked.
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
        return self.directory / TREE

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


def lock(cache: Path, identity: str) -> Path:
    """Return the lock file of a hash; it stays when its entry goes."""
    return cache / _LOCKS / identity


def make_directory(directory: Path) -> None:
    """Make a directory of the cache: everybody may enter what is made of the cache for it, whatever the umask."""
    disk.make_shared(directory, top=paths.current().cache)


def read(cache: Path, identity: str) -> Entry | None:
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


def known(identity: str) -> Entry | None:
    """Return the entry of a hash, in this user's cache or in the system's; None if there is none."""
    return next((found for cache in _caches() if (found := read(cache, identity))), None)


def entries(*, own: bool = False) -> list[Entry]:
    """Return what is in this user's cache and in the system's, the newest first.

    :param own: only this user's.
    """
    found: dict[str, Entry] = {}
    for cache in [paths.current().artifacts] if own else _caches():
        try:
            names = os.listdir(cache)  # noqa: PTH208 (glob raises, or not, by the version of Python)
        except OSError:
            continue  # not there, or root lets nobody else in
        for name in names:
            if HASH.fullmatch(name) and (entry := read(cache, name)):
                found.setdefault(entry.id, entry)
    return sorted(found.values(), key=lambda entry: (entry.added_at, entry.id), reverse=True)


def find(word: str) -> Entry:
    """Return the entry that a name, a hash or the beginning of one stands for.

    :raises UsageError: if there is none, or more than one.
    """
    there = entries()
    found = [entry for entry in there if entry.name == word]
    if not found and PREFIX.fullmatch(word):
        found = [entry for entry in there if entry.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{word!r} is not one package",
            "\n".join(f"{entry.short}  {entry.source}" for entry in found),
            "Give more of the hash: cfctl images list",
        )
    names = ", ".join(entry.name or entry.short for entry in there)
    raise UsageError(
        f"{word!r} is neither a file or directory, nor in the cache",
        f"The cache holds: {names}. Of a hash, 6 digits are needed." if names else "The cache is empty.",
        "Add it: cfctl images add FILE --name NAME",
    )


def describe(found: Entry, directory: Path) -> None:
    """Write what tells about an entry into its directory."""
    document = asdict(found)
    del document["cache"], document["id"]
    write(directory / _ENTRY, json.dumps(document, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Write a small file that everybody may read, whole or not at all."""
    disk.replace(path, text.encode(), mode=0o644)


def seal(tree: Path) -> str:
    """Return a hash of the names, modes, sizes and times of a tree: every write changes it, and it is cheap."""
    digest = hashlib.sha256()
    for root, directories, files in os.walk(tree):
        directories.sort()
        for name in sorted(files):
            status = (here := Path(root) / name).lstat()
            about = (os.fspath(here.relative_to(tree)), status.st_mode, status.st_size, status.st_mtime_ns)
            digest.update(repr(about).encode(errors="surrogateescape"))
    return digest.hexdigest()
