"""A device's own view of a host package or of images: what is written into it stays in it.

Directories are the device's own. A file is cloned where the file system can (ioctl_ficlone(2)), copied where it is
small, and otherwise a symbolic link to the original. So a tool may add, replace, rename and delete what it likes, as
upstream's ``cvd`` does with its tools (launcher.md T10) and Android 14 with ``super.img``, and the original stays.
Never a hard link: a write through one would reach everybody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.artifacts import unpack
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Collection

#: ``FICLONE`` of linux/fs.h: _IOW(0x94, 9, int).
_FICLONE = 0x40049409

#: Configuration and scripts are smaller, programs and disks larger.
_SMALL = 256 << 10

#: File capabilities live in this attribute (capabilities(7)); a copy would lose them, and ``cvdalloc`` with them its
#: right to make interfaces.
_CAPABILITIES = "security.capability"


#: What a host package consists of (AOSP's ``cvd-host_package`` module). The output directory of a build holds much
#: more, tens of thousands of files: such a directory is linked as one.
PACKAGE = frozenset(("bin", "etc", "framework", "images", "lib", "lib64", "nativetest", "nativetest64", "usr"))


def make(original: Path, view: Path, *, own: Collection[str]) -> None:
    """Make the view, in place of an older one.

    :param own: the directories at the top of which the device gets its own; others are links.
    :raises CfctlError: if the disk is full or the original cannot be read; no view is left then.
    """
    unpack.remove(view)
    try:
        root = original.resolve()
        for link, here in _directory(original, view, own):
            _link(link, here, root)
    except OSError as exc:
        with contextlib.suppress(CfctlError):
            unpack.remove(view)
        raise CfctlError(
            f"{original} could not be made ready for the device",
            f"{exc.filename or view}: {exc.strerror}.",
            f"Look at the disk: df -h {view.parent}",
        ) from exc


def _directory(original: Path, view: Path, own: Collection[str] | None) -> list[tuple[Path, Path]]:
    """Make everything but the links, and return these: each with its place in the view.

    :param own: the names of directories to go into; None is all.
    """
    view.mkdir(mode=0o755, parents=True)
    links: list[tuple[Path, Path]] = []
    with os.scandir(original) as found:
        for entry in found:
            source, here = original / entry.name, view / entry.name
            if entry.is_symlink():
                links.append((source, here))
            elif entry.is_dir() and own is not None and entry.name not in own:
                here.symlink_to(source)
            elif entry.is_dir():
                links += _directory(source, here, None)
            elif entry.is_file():
                _file(source, here, entry.stat())
    return links


def _link(link: Path, here: Path, root: Path) -> None:
    """Take a link over: one to the package's own files leads to the view's, another to where it always led."""
    target, leads = link.readlink(), link.resolve()
    inside = leads.is_relative_to(root) and not target.is_absolute()
    here.symlink_to(target if inside or not leads.exists() else leads)


def _file(original: Path, here: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o111 and _has_capabilities(original):
        here.symlink_to(original)
    elif status.st_size <= _SMALL:
        shutil.copyfile(original, here)
        _like(here, status)
    elif _clone(original, here):
        _like(here, status)
    else:
        here.symlink_to(original)


def _like(here: Path, status: os.stat_result) -> None:
    here.chmod(0o755 if status.st_mode & 0o111 else 0o644)
    os.utime(here, ns=(status.st_atime_ns, status.st_mtime_ns))


def _has_capabilities(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _CAPABILITIES))
    except OSError:
        return False


def _clone(original: Path, here: Path) -> bool:
    """Clone a file; False where that is not possible."""
    with original.open("rb") as source, here.open("xb") as sink:
        try:
            fcntl.ioctl(sink.fileno(), _FICLONE, source.fileno())
        except OSError as exc:
            here.unlink()
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
    return True
