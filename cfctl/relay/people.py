"""Users of the host: whom a call is made for."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from cfctl.errors import UsageError
from cfctl.process import Credentials


@dataclass(frozen=True, slots=True)
class User:
    """A user of the host.

    :param groups: all of them, by number.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def is_root(self) -> bool:
        """Whether it is root, who sees and touches all devices of the host."""
        return self.uid == 0

    @property
    def credentials(self) -> Credentials | None:
        """What a child must become to be this user; None if we are."""
        return None if self.uid == os.geteuid() else Credentials(self.uid, self.gid, self.groups)


def by_uid(uid: int) -> User:
    """Return a user by number.

    :raises UsageError: if the host knows no such user.
    """
    try:
        return _user(pwd.getpwuid(uid))
    except (KeyError, OverflowError) as exc:
        raise UsageError(f"this host knows no user with the number {uid}") from exc


def by_name(name: str) -> User:
    """Return a user by name.

    :raises UsageError: if the host knows no such user.
    """
    try:
        return _user(pwd.getpwnam(name))
    except (KeyError, ValueError) as exc:
        raise UsageError(f"this host knows no user {name!r}", None, "See who is there: getent passwd") from exc


def _user(entry: pwd.struct_passwd) -> User:
    # Only root can become somebody else, and only then do the groups count.
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)
