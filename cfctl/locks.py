"""Locks that the kernel releases when their holder dies: flock(2), never a file whose mere existence counts.

Three kinds: one lock for a piece of work (:func:`exclusive`), one for a program that runs once (:func:`sole`), and
the ownership of an instance number (:class:`NumberLock`), which upstream's cvd and acloud respect because it is their
own protocol (android-cuttlefish ``cvd/instances/lock``; reference: launcher.md section 16).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import disk
from cfctl.errors import CfctlError, HostLacks, NumberTaken
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_IN_USE = b"I"
_FREE = b"N"
_GROUP = "cvdnetwork"

#: struct flock (bits/fcntl.h) on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")


@contextlib.contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` for the block; wait for another holder.

    :param path: made if missing, with its directory; never removed, so that all holders lock the same inode.
    :param on_wait: called once if somebody else holds the lock.
    :raises CfctlError: if the disk is full or read-only.
    """
    fd = _opened(path)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def sole(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for the block, if nobody else does; :func:`holder` tells others who it is.

    A record lock (fcntl(2)): unlike flock(2), the kernel names its holder. It belongs to the process, and is lost if
    any descriptor of the file is closed there: nobody but this opens it.

    :raises BlockingIOError: if another process holds it.
    :raises CfctlError: if the disk is full or read-only.
    """
    fd = _opened(path)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds :func:`sole`; None if none does.

    Not for that process to ask, which would lose the lock. It is 0 if that process runs in a PID namespace that we do
    not see.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, *_, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else pid


def _opened(path: Path) -> int:
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class UnusableLock(CfctlError):
    """Somebody has put a link or a directory where a number's lock file belongs; another number may do."""


class NumberLock:
    """The ownership of one instance number.

    While the object (or any process that inherited its descriptors) lives, the flocks are held and nobody else
    can take the number. The byte ``I`` in the files keeps the number after that, until :meth:`release`.

    :param instance: the number that is owned.
    :param fds: one locked descriptor per lock directory.
    """

    def __init__(self, instance: Instance, fds: Sequence[int]) -> None:
        self.instance = instance
        self.fds = tuple(fds)

    @classmethod
    def take(
        cls, instance: Instance, directories: Sequence[Path], *, ours: bool = False, mark: bool = True
    ) -> NumberLock:
        """Take a number in every lock directory that exists, and in the first one, which is made.

        :param directories: today's place first.
        :param ours: the byte ``I`` that is there is our own device's: take the number over.
        :param mark: write ``I``, which keeps the number when the flocks are gone. Without it a holder that is killed
            leaves nothing behind.
        :raises NumberTaken: if somebody holds or has marked it; nothing is changed then.
        :raises HostLacks: if the lock files cannot be written.
        :raises CfctlError: if the disk is full; the number is free then.
        """
        fds: list[int] = []
        try:
            for index, directory in enumerate(directories):
                if index == 0:
                    make_directory(directory)
                elif not directory.is_dir():
                    continue
                fds.append(_lock(directory / instance.lock_name, instance, ours=ours))
            if mark:
                _write(fds, _IN_USE)
        except BaseException:
            if not ours:
                # Those that took the mark before the disk was full: an overwritten byte needs no room.
                with contextlib.suppress(CfctlError):
                    _write([fd for fd in fds if os.pread(fd, 1, 0) == _IN_USE], _FREE)
            for fd in fds:
                os.close(fd)
            raise
        return cls(instance, fds)

    def release(self) -> None:
        """Give the number back: write ``N`` and let the flocks go.

        :raises CfctlError: if that cannot be written; the flocks are gone all the same.
        """
        try:
            _write(self.fds, _FREE)
        finally:
            self.close()

    def close(self) -> None:
        """Let this process's hold go; the byte ``I`` and inherited descriptors keep the number."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def _write(fds: Sequence[int], byte: bytes) -> None:
    """Write into lock files.

    :raises CfctlError: for one that could not be written; the disk is full, say.
    """
    for fd in fds:
        path = Path(f"/proc/self/fd/{fd}")
        try:
            os.pwrite(fd, byte, 0)
        except OSError as exc:
            raise disk.error(path.readlink(), exc) from exc


def _lock(path: Path, instance: Instance, *, ours: bool) -> int:
    """Return a locked descriptor of the number's lock file, with nothing written yet."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # cvd removes the file when it gives a number back: a lock on a removed file is worth nothing.
            if _same_file(fd, path):
                break
        except BlockingIOError:
            os.close(fd)
            raise NumberTaken(
                f"instance number {instance.number} is in use",
                f"{path} is locked by a running device.",
                "See who has it with: cfctl ps",
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    first = os.pread(fd, 1, 0)
    if first == _IN_USE and not ours:
        os.close(fd)
        raise NumberTaken(
            f"instance number {instance.number} is marked as in use",
            f"{path} says so, though nobody holds it: cvd keeps numbers that way, and so does a device that was "
            "killed.",
            "If no such device runs (cfctl ps, cvd fleet), give the number back with: cfctl clean\n"
            f"Or, whatever clean thinks of it: rm {path}",
        )
    return fd


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    # The tools of other users must be able to open it whatever the umask was; only the owner may change it.
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnusableLock(f"{path} is not a regular file", None, f"Look at it and remove it: ls -l {path}")
    return fd


def _unwritable(path: Path, exc: OSError) -> CfctlError:
    directory = path.parent
    if exc.errno == errno.ELOOP:
        return UnusableLock(
            f"{path} is a symbolic link",
            "A lock behind a link could be anybody's file; it was not touched.",
            f"Look where it leads, and remove the link: ls -l {path}; sudo rm {path}",
        )
    owner = "nobody knows whom"
    with contextlib.suppress(OSError, KeyError):
        owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    if exc.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return disk.error(path, exc)
    return HostLacks(
        f"the lock files of the instance numbers cannot be written: {path}",
        f"{exc.strerror}. The directory belongs to {owner}.",
        f"Let the members of group {_GROUP} write there: "
        f"sudo chgrp {_GROUP} {directory} && sudo chmod 2775 {directory}\n"
        f"and be one of them: sudo usermod -aG {_GROUP} $USER (then log in again)",
    )


def _same_file(fd: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    return False


def make_directory(directory: Path) -> None:
    """Make a lock directory that all members of cvdnetwork can use, whoever came first."""
    for path in (directory.parent, directory):
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as exc:
            raise _unwritable(path, exc) from exc
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(_GROUP).gr_gid)
            path.chmod(0o2775)
