"""Writes initramfs archives: cpio in the ``newc`` form that the kernel unpacks (initramfs buffer format)."""

from __future__ import annotations

import stat
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive.

    :param mode: type and permissions, as in ``st_mode``.
    :param data: a file's bytes or a link's target.
    :param device: major and minor number of a device node.
    """

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(stat.S_IFREG | permissions, data)


def link(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def directory(permissions: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(stat.S_IFDIR | permissions)


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return the node of a character device."""
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: dict[str, Entry]) -> bytes:
    """Return an archive; the same entries always give the same bytes.

    Everything belongs to root and dates from 1970. Directories that files need are added.

    :param entries: path without a leading slash -> member.
    """
    complete = dict(entries)
    for path in entries:
        parent = path.rpartition("/")[0]
        while parent:
            complete.setdefault(parent, directory())
            parent = parent.rpartition("/")[0]
    # A directory sorts before what is in it, which is the order that the kernel needs.
    members = [_member(index, path, complete[path]) for index, path in enumerate(sorted(complete), start=1)]
    return b"".join([*members, _member(0, _TRAILER, Entry(0))])


def _member(inode: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
