"""Small files in directories that more than one program writes to: never through a link that somebody planted."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cfctl import disk

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> str:
    """Return a file's text; empty if it is missing, unreadable, no regular file or a link."""
    try:
        # Not blocking: somebody may have put a pipe there.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, errors="replace") as file, contextlib.suppress(OSError):
        return file.read()
    return ""


def write(path: Path, text: str, *, mode: int) -> None:
    """Write a file, whole or not at all, with its directory.

    :param mode: its permissions, whatever the umask.
    :raises CfctlError: if the disk is full or read-only.
    """
    make_directory(path.parent)
    replace(path, text, mode=mode)


def replace(path: Path, text: str, *, mode: int) -> None:
    """Write a file, whole or not at all, into a directory of somebody else, which stays as it is.

    :raises CfctlError: if the disk is full or read-only.
    """
    temporary = unfinished(path)
    with disk.writing(path):
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "w") as file:
                os.fchmod(fd, mode)
                file.write(text)
        except OSError:
            # What is empty takes the room of a file all the same.
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(path)


def unfinished(path: Path) -> Path:
    """Return where :func:`write` puts a file before it has its name; a kill may leave it there."""
    return path.with_name(f".{path.name}.new")


def make_directory(directory: Path) -> None:
    """Make a runtime directory, and the one above it; everybody may enter, whatever the umask.

    dnsmasq reads its file of given addresses after it has become an ordinary user.

    :raises CfctlError: if the disk is full or read-only.
    """
    for path in (directory.parent, directory):
        with disk.writing(path):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            if not path.stat().st_mode & 0o001:
                path.chmod(0o755)


def remove_directory(directory: Path) -> None:
    """Remove a runtime directory of ours with the files in it.

    :raises CfctlError: if the disk is read-only.
    """
    with disk.writing(directory):
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
