"""A tree with packages in it, booted by its own systemd, as often as one likes: what is on its disk stays.

Each boot has namespaces of its own for processes, network, mounts and control groups, so links, /run, /tmp and
whoever runs end with it, as on a machine. systemd is Debian's, and nothing stands in for any of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.system.package_tree import Tree, first_process

#: The machine's own switches cannot be changed, those of the network are the namespace's.
_BOOT = r"""
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for directory in /run /tmp /dev/shm; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=0755 tmpfs "$directory"
done
chmod 1777 /tmp /dev/shm
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
# systemd takes it for a container, and leaves the machine's devices alone.
exec env -i container=tree PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
"""


def _groups() -> Path:
    """Return where the machine's control groups (version 2) are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("this machine has no control groups of version 2 mounted")


@contextlib.contextmanager
def booted(tree: Tree) -> Iterator[Tree]:
    """Have systemd run in a tree for the block; at its end everything that runs there is killed."""
    group = _groups() / f"cfctl-tree-{tree.pid}"
    group.mkdir()
    enter = ["nsenter", "-t", str(tree.pid), "-m", "-p", "--root", "--wdns=/"]
    unshare = ["unshare", "--net", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"]
    # The namespace of control groups begins where the process is that makes it.
    join = ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group)]
    holder = subprocess.Popen(
        [*join, *enter, *unshare, "sh", "-c", _BOOT],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = 0
    try:
        pid = first_process(holder, "systemd")
        running = Tree(pid, Path(f"/proc/{pid}/root"))
        _wait(running)
        yield running
    finally:
        # All others of its namespace go with it.
        if pid and holder.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            holder.kill()
        holder.wait()
        assert holder.stderr is not None
        holder.stderr.close()
        _remove(group)


def shut_down(tree: Tree) -> None:
    """Shut a booted tree down, in the order of its units."""
    tree.run("systemctl", "poweroff", check=False)
    deadline = time.monotonic() + 180
    while Path(f"/proc/{tree.pid}/cmdline").exists() and Path(f"/proc/{tree.pid}/cmdline").read_bytes():
        if time.monotonic() > deadline:
            raise RuntimeError("systemd did not shut down within 180 s")
        time.sleep(0.1)


def _wait(tree: Tree) -> None:
    """Wait until everything that is started at boot is up, or has failed."""
    deadline = time.monotonic() + 120
    said = ""
    while time.monotonic() < deadline:
        said = tree.run("systemctl", "is-system-running", check=False).stdout.strip()
        if said in ("running", "degraded"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"systemd did not come up within 120 s: {said}")


def _remove(group: Path) -> None:
    """Remove a control group and those below it; who was in them has just been killed."""
    deadline = time.monotonic() + 30
    while True:
        try:
            for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                path.rmdir()
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
