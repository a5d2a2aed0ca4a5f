"""Who may ask for the taps of an instance: a member of cvdnetwork that holds the instance's number.

Nothing that the caller says is believed: its user and groups are the kernel's, and its hold on the number is tried.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct

from cfctl import paths
from cfctl.errors import HostLacks, NumberTaken
from cfctl.hostres.desired import GROUP
from cfctl.instance import Instance

#: asm-generic/socket.h; Python has no name for it. The same on x86_64 and aarch64.
_SO_PEERGROUPS = 59
#: struct ucred (unix(7)).
_UCRED = struct.Struct("=iII")
#: As many bytes as Python's getsockopt takes.
_GROUPS_BYTES = 1024


def peer(client: socket.socket) -> tuple[int, set[int]]:
    """Return the user at the other end of a unix socket, and its groups, as they were when it connected."""
    _, uid, gid = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        groups = {gid for (gid,) in struct.iter_unpack("=I", raw)}
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            raise
        # In more than 256 groups: the user database knows them too.
        groups = set(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    return uid, {gid, *groups}


def require_member(uid: int, groups: set[int]) -> None:
    """Make sure that a caller may use the host's taps at all.

    :raises HostLacks: if it is neither root nor a member of cvdnetwork.
    """
    try:
        member = grp.getgrnam(GROUP).gr_gid in groups
    except KeyError:
        member = False
    if uid != 0 and not member:
        raise HostLacks(
            f"you are not a member of group {GROUP}",
            "Only its members and root get taps.",
            f"Join it: sudo usermod -aG {GROUP} $USER (then log in again)",
        )


def require_holder(fd: int, number: int) -> None:
    """Make sure that the descriptor is what holds an instance number: whoever passed it owns the number.

    The descriptor is of the number's lock file in today's place: there cfctl takes every number first. A lock in one
    of the older places proves nothing about the others.

    :raises NumberTaken: otherwise.
    """
    path = paths.instance_lock_directories()[0] / Instance(number).lock_name
    with contextlib.ExitStack() as stack:
        try:
            # Not through a link, and not waiting for a pipe's other end: its directory is not root's alone.
            own = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise _refused(number, f"{path}: {exc.strerror}") from exc
        stack.callback(os.close, own)
        there, passed = os.fstat(own), os.fstat(fd)
        if not stat.S_ISREG(there.st_mode) or not os.path.samestat(there, passed):
            raise _refused(number, f"The descriptor is not that of {path}.")
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            raise _refused(number, f"Nobody has locked {path}.")
        try:
            # A lock belongs to the open file. The true holder has it already and gets it again; to anybody else's
            # descriptor of the same file the kernel says no.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise _refused(number, f"Somebody else has locked {path}.") from exc


def _refused(number: int, why: str) -> NumberTaken:
    return NumberTaken(
        f"this does not prove that you hold instance number {number}",
        why,
        "Devices are launched, and get their numbers, with: cfctl launch",
    )
