"""A network, a process tree and temporary files of one's own, so that a measurement does not touch the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_INSIDE = "CFCTL_BENCH_INSIDE"

#: /etc/group is private too, and has the group that `host setup` would add to the machine's.
_PREPARE = """
set -eu
mount --make-rprivate /
for dir in /run /var/lib /var/tmp; do mount -t tmpfs tmpfs "$dir"; done
{ grep -v '^cvdnetwork:' /etc/group || true; echo 'cvdnetwork:x:970:'; } >/run/group
mount --bind /run/group /etc/group
mount -t proc proc /proc && mount -t sysfs sysfs /sys
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
exec "$@"
"""


def inside(*argv: str) -> list[str]:
    """Return the command that runs ``argv`` in private namespaces: no links, no forwarding, group cvdnetwork."""
    return ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _PREPARE, "sh", *argv]


def enter(module: str) -> None:
    """Run ``python -m module`` again in private namespaces, unless this is that run; root only.

    All processes that it leaves end with it.
    """
    if os.environ.get(_INSIDE):
        return
    os.chdir(Path(__file__).parents[1])
    os.environ[_INSIDE] = "1"
    argv = inside(sys.executable, "-m", module, *sys.argv[1:])
    os.execvp(argv[0], argv)
