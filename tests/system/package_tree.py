"""A Debian of its own to install packages in: a file system tree as the root of private namespaces.

The tree is made once per clone (the containers' base with what the packages depend on) and kept in build/test-cache;
each test works on a layer above it. Inside, no network beyond the namespace's own is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system import dockerd
from tests.system.sandbox import CACHE

#: What the packages need or recommend and the containers' base has not, and shells that they have completions for.
_MORE = ("adb", "fish", "kmod", "rpm", "systemd", "zsh")

_FETCH = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
    + " ".join(_MORE)
    + " && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
)

#: Arguments: the tree, its layer. What is mounted ends with the namespaces.
_PREPARE = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
for directory in run tmp dev; do mount -t tmpfs -o mode=0755 tmpfs "$directory"; done
chmod 1777 tmp
mkdir -p dev/pts dev/net run/lock old packages
mknod -m 0666 dev/null c 1 3
mknod -m 0666 dev/zero c 1 5
mknod -m 0666 dev/urandom c 1 9
mknod -m 0666 dev/random c 1 8
mknod -m 0666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . old
umount -l /old
rmdir /old
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
trap '' CHLD
exec sleep infinity
"""

#: Plays systemctl beside the real one, which cannot reach a systemd here. What only changes files is the real one's;
#: a service that is started, reloaded or stopped does what its unit says. It writes down what it is asked.
_SYSTEMCTL = r"""#!/bin/sh
echo "$*" >>/var/log/systemctl
for word; do
    case $word in -*) ;; *) verb=$word; break ;; esac
done
for unit; do :; done
file=/usr/lib/systemd/system/$unit
flag=/run/standin-$unit
# The other services run on, which these scripts could not wait for.
run() { [ "${file##*/}" != cfctl-host-resources.service ] || eval "$(sed -n "s/^$1=//p" "$file")"; }
case $verb in
    is-active) [ -e "$flag" ] ;;
    start) run ExecStart && touch "$flag" ;;
    reload) run ExecReload ;;
    stop)
        for unit; do
            [ -e "/run/standin-$unit" ] || continue
            file=/usr/lib/systemd/system/$unit
            run ExecStop
            rm "/run/standin-$unit"
        done
        ;;
    daemon-reload | try-restart | mask | unmask) ;;
    *) exec /usr/bin/systemctl.real --root=/ "$@" ;;
esac
"""


def base() -> Path:
    """Return the tree that all layers are above, made if need be."""
    archive = dockerd.base_archive()
    digest = hashlib.sha256(f"{archive.name} {_FETCH}".encode()).hexdigest()[:12]
    tree = CACHE / f"package-tree-{digest}"
    with (CACHE / "package-tree.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            for old in CACHE.glob("package-tree-*"):
                shutil.rmtree(old)
            part = tree.with_suffix(".part")
            part.mkdir()
            subprocess.run(["tar", "-C", part, "-xf", archive], check=True, timeout=300)
            for name in ("resolv.conf", "hosts"):
                with contextlib.suppress(OSError):
                    shutil.copyfile(f"/etc/{name}", part / "etc" / name)
            subprocess.run(
                ["chroot", part, "sh", "-c", _FETCH],
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=600,
            )
            part.rename(tree)
    return tree


@dataclass
class Tree:
    """The running namespaces.

    :param pid: the first process inside, as seen from here.
    :param root: the tree, as seen from here.
    """

    pid: int
    root: Path

    def argv(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` inside."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "--root", "--wdns=/", *argv]

    def run(
        self, *argv: str, check: bool = True, timeout: float = 180, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; with ``check``, a failure shows all that it printed."""
        done = subprocess.run(
            self.argv(argv), env=self.environment(env), capture_output=True, text=True, timeout=timeout,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *argv: str, **kwargs: Any) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen(self.argv(argv), env=self.environment(), text=True, **kwargs)

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a login, and nothing of the caller's."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": path,
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **(env or {}),
        }

    def path(self, inside: str) -> Path:
        """Return where a file of the tree is, as seen from here."""
        return self.root / inside.lstrip("/")

    def bring(self, *files: Path) -> list[str]:
        """Copy files to the inside; return where they are there."""
        for file in files:
            shutil.copyfile(file, self.path(f"/packages/{file.name}"))
        return [f"/packages/{file.name}" for file in files]

    def systemd(self) -> None:
        """Have it look as if systemd had booted it."""
        self.path("/run/systemd/system").mkdir(parents=True)
        # In its place: apt and rpm give scripts a PATH without /usr/local.
        program = self.path("/usr/bin/systemctl")
        program.rename(program.with_suffix(".real"))
        program.write_text(_SYSTEMCTL)
        program.chmod(0o755)

    def asked_of_systemd(self) -> list[str]:
        """Return what systemctl was asked since the last time."""
        log = self.path("/var/log/systemctl")
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines


@contextlib.contextmanager
def tree(directory: Path) -> Iterator[Tree]:
    """Run a tree for the block; ``directory`` is scratch space."""
    directory.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-c", _PREPARE, "tree", str(base()), str(directory)),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pid = first_process(holder, "sleep")
        yield Tree(pid, Path(f"/proc/{pid}/root"))
    finally:
        holder.kill()
        holder.wait()
        assert holder.stderr is not None
        holder.stderr.close()


def first_process(holder: subprocess.Popen[str], name: str) -> int:
    """Return the pid, as seen from here, of the first process of namespaces, when it has become the program ``name``.

    :param holder: its parent, or its parent's parent.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if holder.poll() is not None:
            assert holder.stderr is not None
            raise RuntimeError(f"the tree could not be made: {holder.stderr.read()}")
        below = [holder.pid, *_children(holder.pid)]
        for child in (child for parent in below for child in _children(parent)):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    return child
        time.sleep(0.01)
    raise RuntimeError("the tree did not come up within 30 s")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
