"""Which groups open the devices that graphics needs, and whether this user is in them."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

#: Device files, and what each is for.
_DEVICES = {
    "dev/kvm": "KVM",
    "dev/dri/renderD*": "drawing",
    "dev/nvidiactl": "NVIDIA's driver",
    "dev/nvidia[0-9]*": "NVIDIA's driver",
}


@dataclass(frozen=True, slots=True)
class Access:
    """A device file and the group that opens it.

    :param path: for example ``/dev/dri/renderD128``.
    :param purpose: what it is for.
    :param usable: this process may read and write it.
    :param group: its group, by name or number.
    :param member: this process is in the group.
    :param help: the command that opens it; None if it is open.
    """

    path: str
    purpose: str
    usable: bool
    group: str
    member: bool
    help: str | None


def read(sysroot: Path = Path("/")) -> tuple[Access, ...]:
    """Return the access to every device file that is there; never raises.

    :param sysroot: where ``dev`` is; another one in tests.
    """
    found = []
    for pattern, purpose in _DEVICES.items():
        for path in sorted(sysroot.glob(pattern)):
            with contextlib.suppress(OSError):
                found.append(_access(path, f"/{path.relative_to(sysroot)}", purpose))
    return tuple(found)


def _access(path: Path, name: str, purpose: str) -> Access:
    status = path.stat()
    group, members = str(status.st_gid), []
    with contextlib.suppress(KeyError):
        entry = grp.getgrgid(status.st_gid)
        group, members = entry.gr_name, entry.gr_mem
    usable = os.access(path, os.R_OK | os.W_OK)
    member = status.st_gid in {os.getegid(), *os.getgroups()}
    help_ = None if usable else opening(name, group, status.st_mode, member=member, listed=_me() in members)
    return Access(name, purpose, usable, group, member, help_)


def opening(path: str, group: str, mode: int, *, member: bool, listed: bool) -> str:
    """Return the command that lets this user open a device file.

    :param mode: its mode bits.
    :param member: this process is in its group.
    :param listed: /etc/group names this user in it, which takes effect at the next login.
    """
    if group.isdecimal():
        # In a container the host's group has no name.
        return f"Start the container with the group of {path}: --group-add {group}"
    if group == "root" or mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP or member:
        wanted = "kvm" if path == "/dev/kvm" else "render"
        return f"Give it to a group: sudo chgrp {wanted} {path} && sudo chmod 0660 {path}"
    if listed:
        return f"Log in again: {_me()} is in group {group}, and this session does not know it yet."
    return f"Join its group, then log in again: sudo usermod -aG {group} $USER"


def _me() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())
