"""Unpacking what a stranger has packed: nothing lands outside of the target, and nothing fills the disk.

Links are made last, so that no file is ever written through one, and then looked at as the kernel follows them:
a chain of links can leave the tree though each by itself looks harmless.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cfctl.artifacts import sparse
from cfctl.artifacts.members import Kind, Member
from cfctl.errors import CfctlError, HostLacks, UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GIB = 1 << 30

#: How the files of a tree may be used: read by everybody, changed by nobody. Also what drops setuid bits.
_DIRECTORY, _PROGRAM, _FILE = 0o555, 0o555, 0o444


@dataclass(frozen=True, slots=True)
class Limits:
    """What no host package or set of images reaches, and a bomb does.

    :param members: Android's largest package has some thousand files.
    :param ratio: unpacked to packed size. A guest's empty disks pack very well, hence ``always``.
    :param always: bytes up to which no ratio is too high.
    :param reserve: bytes that stay free on the disk.
    """

    members: int = 100_000
    ratio: int = 200
    always: int = 64 * GIB
    reserve: int = GIB


@dataclass(slots=True)
class Totals:
    """What was unpacked: bytes as the files show them, and those that are no holes."""

    files: int = 0
    size: int = 0
    data: int = 0


class _Budget:
    """Counts what an archive unpacks to, and refuses what is too much.

    :param packed: the size of the archive; 0 for a directory, which cannot be a bomb.
    """

    def __init__(self, source: Path, packed: int, target: Path, limits: Limits) -> None:
        self.totals = Totals()
        self._source, self._packed, self._target, self._limits = source, packed, target, limits
        self._members = 0
        disk = shutil.disk_usage(target)
        # On a small disk a whole GiB would be too much to keep.
        self._stay = min(limits.reserve, disk.total // 20)
        self._room = disk.free - self._stay
        self._free = disk.free

    def member(self, member: Member) -> None:
        """Count a member by what the archive declares.

        :raises UnsafeArchive: if no honest archive would have it.
        """
        self._members += 1
        if self._members > self._limits.members:
            raise UnsafeArchive(self._source, f"it has more than {self._limits.members} members")
        self._check(self.totals.size + member.size)

    def piece(self, size: int, data: int) -> None:
        """Count what is about to be written.

        :raises UnsafeArchive: if it is more than an honest archive unpacks to.
        :raises HostLacks: if the disk has no room for it.
        """
        self._check(self.totals.size + size)
        if self.totals.data + data > self._room:
            raise HostLacks(
                f"there is no room to unpack {self._source}",
                f"{gib(self._free)} are free at {self._target.parent.parent}, of which {gib(self._stay)} are to stay "
                f"free; it needs {gib(self.totals.data + data)} and more. Nothing was kept.",
                "Make room: cfctl images prune\nor keep the cache elsewhere: export CFCTL_PATHS_CACHE=DIRECTORY",
            )
        self.totals.size += size
        self.totals.data += data

    def _check(self, size: int) -> None:
        limits = self._limits
        if self._packed and size > limits.always and size > limits.ratio * self._packed:
            raise UnsafeArchive(
                self._source,
                f"it unpacks to {gib(size)} or more, {size // self._packed} times its {gib(self._packed)}; "
                f"{limits.ratio} times are allowed",
            )


def gib(size: int) -> str:
    """Return a size for people."""
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def unpack(
    members: Iterable[Member],
    target: Path,
    *,
    source: Path,
    packed: int,
    limits: Limits | None = None,
    on_piece: Callable[[int], None] = lambda _: None,
) -> Totals:
    """Write an archive's members into the new directory ``target``, synced to the disk and read-only.

    Owners, devices and setuid bits are no part of what is unpacked.

    :param source: the archive's name for people.
    :param packed: its size in bytes.
    :param on_piece: hears after every piece how many bytes were unpacked in all.
    :raises UnsafeArchive: for a member that would land elsewhere, is named twice or is no file, and for bombs.
    :raises HostLacks: if the disk is full.
    :raises CfctlError: if it cannot be written. After any error ``target`` is to be deleted.
    """
    target.mkdir(mode=0o700)
    tree = _Tree(target, source, _Budget(source, packed, target, limits or Limits()), on_piece)
    try:
        for member in members:
            tree.add(member)
        return tree.finish()
    except OSError as exc:
        raise CfctlError(
            f"{source} could not be unpacked",
            f"{exc.filename or target}: {exc.strerror}. Nothing was kept.",
            f"Look at the disk: df -h {target.parent}",
        ) from exc


class _Tree:
    """A tree that is being written."""

    def __init__(self, target: Path, source: Path, budget: _Budget, on_piece: Callable[[int], None]) -> None:
        self._target, self._source, self._budget, self._on_piece = target, source, budget, on_piece
        self._files: dict[PurePosixPath, tuple[int, float]] = {}
        self._links: dict[PurePosixPath, Member] = {}
        self._directories: dict[PurePosixPath, float] = {}

    def add(self, member: Member) -> None:
        """Write a member, or note a link that is made at the end."""
        name = self._name(member.name)
        self._budget.member(member)
        if not name.parts:
            return  # the tree itself
        is_directory = member.kind is Kind.DIRECTORY
        if name in self._files or name in self._links or (name in self._directories and not is_directory):
            raise self._refused(f"{member.name!r} is in it twice")
        if is_directory:
            self._directory(name)
            self._directories[name] = member.mtime
            return
        self._directory(name.parent)
        if member.kind is Kind.SYMLINK:
            self._links[name] = member
        elif member.kind is Kind.HARD_LINK:
            original = self._name(member.target)
            if original not in self._files:
                raise self._refused(f"{member.name!r} is a hard link to {member.target!r}, which is no file of it")
            os.link(self._target / original, self._target / name)
            self._files[name] = self._files[original]
        else:
            self._file(name, member)

    def _file(self, name: PurePosixPath, member: Member) -> None:
        path = self._target / name
        with member.open() as content:
            sparse.write(content, path, before=self._piece)
        executable = _is_program(path) if member.executable is None else member.executable
        self._files[name] = (_PROGRAM if executable else _FILE, member.mtime)
        self._budget.totals.files += 1

    def _piece(self, size: int, data: int) -> None:
        self._budget.piece(size, data)
        self._on_piece(self._budget.totals.size)

    def _directory(self, name: PurePosixPath) -> None:
        for part in (*reversed(name.parents), name):
            if part in self._files or part in self._links:
                raise self._refused(f"{os.fspath(part)!r} is a file or a link, and then a directory")
            if part.parts and part not in self._directories:
                (self._target / part).mkdir(mode=0o700)
                self._directories[part] = time.time()

    def finish(self) -> Totals:
        """Make the links, look where they lead, and make all read-only."""
        for name, member in self._links.items():
            if not member.target or "\0" in member.target:
                raise self._refused(f"{member.name!r} is a link to nowhere")
            (self._target / name).symlink_to(member.target)
        root = os.path.realpath(self._target)
        for name, member in self._links.items():
            path = self._target / name
            leads = os.path.realpath(path)
            if member.target.startswith("/") or not (leads == root or leads.startswith(f"{root}/")):
                raise self._refused(f"{member.name!r} is a link to {member.target!r}, outside of it")
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        for name, (mode, mtime) in self._files.items():
            (self._target / name).chmod(mode)
            os.utime(self._target / name, (mtime, mtime))
        # The deepest first: nothing can be changed in a directory that is read-only already.
        for name, mtime in sorted(self._directories.items(), key=lambda entry: -len(entry[0].parts)):
            self._seal(self._target / name)
            os.utime(self._target / name, (mtime, mtime))
        self._seal(self._target)
        return self._budget.totals

    def _seal(self, directory: Path) -> None:
        directory.chmod(_DIRECTORY)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _name(self, name: str) -> PurePosixPath:
        path = PurePosixPath(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
            raise self._refused(f"{name!r} would land outside of the tree")
        return path

    def _refused(self, why: str) -> UnsafeArchive:
        return UnsafeArchive(self._source, why)


def _is_program(path: Path) -> bool:
    """Tell whether a file whose archive has no modes is to be run: an ELF file or a script."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"\x7fELF", b"#!"))


def remove(tree: Path) -> None:
    """Delete a tree whose directories are read-only.

    :raises CfctlError: if something in it cannot be deleted.
    """
    if tree.is_symlink() or not tree.exists():
        return
    try:
        for root, _, _ in os.walk(tree):
            Path(root).chmod(0o700)
        shutil.rmtree(tree)
    except OSError as exc:
        raise CfctlError(f"{tree} could not be deleted", str(exc), f"Delete it: sudo rm -r {tree}") from exc
