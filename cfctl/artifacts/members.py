"""What an archive holds, member by member: tar, tar.gz, zip, and a directory look the same from here on."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import time
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cfctl.errors import CfctlError, UnsafeArchive, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: An end of archive is two blocks of zeros (pax(1), ustar); tarfile takes a missing one for an end as well.
_TAR_BLOCK = 512

#: A link's target in a zip is its content; PATH_MAX is 4096 (limits.h).
_LONGEST_TARGET = 4096


_NO_FILE = "a device, a pipe or something else that a package has no use for"


class Kind(Enum):
    """What a member is; anything else is refused when it is met."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"


@dataclass(frozen=True, slots=True)
class Member:
    """One thing in an archive.

    :param name: its path in the archive, as it stands there.
    :param size: in bytes, as the archive declares it.
    :param executable: whether it may be run; None if the archive does not say.
    :param mtime: seconds since 1970.
    :param target: where a link leads; for a hard link a member's name.
    :param open: gives a file's content; only until the next member is asked for.
    """

    name: str
    kind: Kind
    size: int
    executable: bool | None
    mtime: float
    target: str
    open: Callable[[], IO[bytes]]


class Format(Enum):
    """The kinds of archives."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    ZIP = "zip"


def recognise(file: IO[bytes], path: Path) -> Format:
    """Tell what kind of archive a file is, by its first bytes.

    :raises UsageError: if it is none.
    """
    file.seek(0)
    head = file.read(_TAR_BLOCK)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return Format.ZIP
    if head[:2] == b"\x1f\x8b":
        return Format.TAR_GZ
    if head[257:262] == b"ustar":
        return Format.TAR
    raise UsageError(
        f"{path} is no archive that cfctl can unpack",
        "It is neither a tar, nor a gzipped tar, nor a zip." if head else "It is empty.",
        "Give cvd-host_package.tar.gz, a zip of images, or a directory. Was the download complete?",
    )


@contextmanager
def opened(file: IO[bytes], path: Path) -> Iterator[Iterator[Member]]:
    """Go through the members of an archive, in its order.

    :param file: the archive, open for reading; ``path`` is its name for people.
    :raises UsageError: if it is no archive.
    :raises CfctlError: from the iteration, if the archive is damaged.
    :raises UnsafeArchive: from the iteration, for devices, pipes and the like.
    """
    form = recognise(file, path)
    try:
        if form is Format.ZIP:
            with zipfile.ZipFile(file) as archive:
                yield _zip(archive, path)
        elif form is Format.TAR_GZ:
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield _tar(_Remembering(unzipped), path)
        else:
            yield _tar(_Remembering(file), path)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as exc:
        raise damaged(path, str(exc)) from exc
    except (NotImplementedError, RuntimeError) as exc:
        # What zipfile raises for a compression that it lacks, and for a member that needs a password.
        text = str(exc)
        why = "It needs a password." if "password" in text else f"{text}."
        raise CfctlError(
            f"{path} cannot be unpacked", why, "Unpack it by hand, and give the directory: unzip -d DIRECTORY FILE"
        ) from exc


def damaged(path: Path, why: str) -> CfctlError:
    """Return the error for an archive that is not whole."""
    return CfctlError(
        f"{path} is damaged or cut off",
        why or None,
        "Fetch it again, and compare its checksum. Nothing of it was kept.",
    )


class _Remembering(io.RawIOBase):
    """A stream that remembers its last read, which for a whole tar is a block of zeros."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.last = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.last = self._stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _tar(stream: _Remembering, path: Path) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:", errorlevel=1) as archive:
        for info in archive:
            yield _tar_member(archive, info, path)
        if stream.last != bytes(_TAR_BLOCK):
            raise damaged(path, "It ends without the mark of its end.")


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> Member:
    if info.isreg():
        kind = Kind.FILE
    elif info.isdir():
        kind = Kind.DIRECTORY
    elif info.issym():
        kind = Kind.SYMLINK
    elif info.islnk():
        kind = Kind.HARD_LINK
    else:
        raise UnsafeArchive(
            path, f"{info.name!r} is a device, a pipe or something else that a package has no use for"
        )

    def content() -> IO[bytes]:
        found = archive.extractfile(info)
        if found is None:
            raise damaged(path, f"{info.name!r} has no content.")
        return found

    size = info.size if kind is Kind.FILE else 0
    return Member(info.name, kind, size, bool(info.mode & 0o111), info.mtime, info.linkname, content)


def _zip(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    infos = archive.infolist()
    packed, room = sum(info.compress_size for info in infos), os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]
    if packed > room:
        # The way of the zip bombs without recursion: members that share their bytes.
        raise UnsafeArchive(path, f"its members claim {packed} packed bytes, but the file has {room}: they overlap")
    for info in infos:
        yield _zip_member(archive, info, path)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Member:
    mode = info.external_attr >> 16
    kind, target = Kind.FILE, ""
    if info.is_dir():
        kind = Kind.DIRECTORY
    elif stat.S_ISLNK(mode):
        kind = Kind.SYMLINK
        if info.file_size > _LONGEST_TARGET:
            raise UnsafeArchive(path, f"{info.filename!r} is a link with a target of {info.file_size} bytes")
        target = os.fsdecode(archive.read(info))
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UnsafeArchive(path, f"{info.filename!r} is {_NO_FILE}")
    executable = bool(mode & 0o111) if mode else None
    try:
        mtime = time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        mtime = 0.0
    size = info.file_size if kind is Kind.FILE else 0
    return Member(info.filename, kind, size, executable, mtime, target, lambda: archive.open(info))


def of_directory(directory: Path, *, files_only: bool) -> Iterator[Member]:
    """Go through a directory as if it were an archive, in an order that does not depend on the disk.

    :param files_only: only the files at its top: a build's product directory holds much that is no image.
    :raises UnsafeArchive: for a device, a socket or a pipe.
    """
    for root, directories, files in os.walk(directory):
        here = Path(root)
        directories.sort()
        for name in sorted([*directories, *files]):
            member = _directory_member(here / name, directory)
            if not files_only or member.kind is Kind.FILE:
                yield member
        if files_only:
            return
        # Links to directories are members of their own, and not followed.
        directories[:] = [name for name in directories if not (here / name).is_symlink()]


def _directory_member(path: Path, directory: Path) -> Member:
    status = path.lstat()
    kind, target = Kind.FILE, ""
    if stat.S_ISLNK(status.st_mode):
        kind, target = Kind.SYMLINK, os.fspath(path.readlink())
    elif stat.S_ISDIR(status.st_mode):
        kind = Kind.DIRECTORY
    elif not stat.S_ISREG(status.st_mode):
        raise UnsafeArchive(directory, f"{path} is a device, a socket or a pipe")
    size = status.st_size if kind is Kind.FILE else 0
    return Member(
        str(path.relative_to(directory)),
        kind,
        size,
        bool(status.st_mode & 0o111),
        status.st_mtime,
        target,
        lambda: path.open("rb"),
    )
