"""A host of its own for one test: private network, mount and process namespaces around real programs.

Nothing that runs inside can change the machine: links, rules, sysctls of the network, files in /run, /tmp and
/var/lib/cfctl and all processes end with the sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]

#: Where the checkout lies inside: an ordinary user can read it there, whatever the modes above it.
INSIDE = Path("/mnt")

#: Built once, kept between runs: packages fetched and guest images made (what /var/cache/cfctl is inside).
CACHE = REPO / "build" / "test-cache"

#: An ordinary user of the host, as `usermod -aG cvdnetwork,kvm` makes one.
USER = "tester"
UID = 1000
CVDNETWORK_GID = 970
KVM_GID = 971

#: Runs inside, before anything else. Arguments: the checkout, the cache, a directory of files to bind over /etc.
_PREPARE = r"""
set -eu
mount --make-rprivate /
mount -t proc proc /proc
for etc in passwd group default; do mount --bind "$3/$etc" "/etc/$etc"; done
mount --bind "$1" /mnt
mkdir -p /var/cache/cfctl /var/lib/cfctl /var/tmp/cvd
mount --bind "$2" /var/cache/cfctl
for dir in /var/lib/cfctl /var/tmp /tmp /run /home; do
    mount -t tmpfs -o mode=0755 tmpfs "$dir"
done
chmod 1777 /tmp /var/tmp
mkdir -p /run/lock /home/tester && chown 1000:1000 /home/tester
mkdir /run/nodes
mknod -m 0666 /run/nodes/tun c 10 200 && mount --bind /run/nodes/tun /dev/net/tun
if [ -e /dev/kvm ]; then
    mknod -m 0660 /run/nodes/kvm c 10 232 && chgrp 971 /run/nodes/kvm && mount --bind /run/nodes/kvm /dev/kvm
fi
mount -t sysfs sysfs /sys
ip link set lo up
# A new namespace inherits the machine's value: a test that wants to see it change needs it to be 0.
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
# As a host's first process, it leaves no zombies of orphans.
trap '' CHLD
exec sleep infinity
"""


@dataclass
class Sandbox:
    """The running namespaces.

    :param pid: the first process inside, as seen from here.
    """

    pid: int
    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def argv(self, argv: Sequence[str | os.PathLike[str]], *, user: str = "root") -> list[str]:
        """Return the command that runs ``argv`` inside."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "--wd=/"]
        if user != "root":
            enter += ["setpriv", f"--reuid={UID}", f"--regid={UID}"]
            enter += [f"--groups={UID},{CVDNETWORK_GID},{KVM_GID}", "--inh-caps=-all"]
        return [*enter, *(os.fspath(arg) for arg in argv)]

    def environment(self, *, user: str = "root", env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command inside: nothing of the caller's but PATH."""
        home = "/root" if user == "root" else f"/home/{user}"
        return {
            "PATH": os.environ["PATH"] if user == "root" else "/usr/local/bin:/usr/bin:/bin",
            "HOME": home,
            "USER": user,
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(INSIDE),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
            **(env or {}),
        }

    def run(
        self,
        *argv: str | os.PathLike[str],
        user: str = "root",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 120,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; with ``check``, a failure shows all that it printed."""
        done = subprocess.run(
            self.argv(argv, user=user),
            env=self.environment(user=user, env=env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )
        if check:
            assert done.returncode == 0, f"{list(map(str, argv))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(
        self,
        *argv: str | os.PathLike[str],
        user: str = "root",
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> subprocess.Popen[str]:
        """Start a command inside; keyword arguments are Popen's."""
        kwargs = {"stdin": subprocess.DEVNULL, "text": True, **kwargs}
        return subprocess.Popen(self.argv(argv, user=user), env=self.environment(user=user, env=env), **kwargs)

    def cfctl(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run ``cfctl ARGS`` inside, from this checkout."""
        return self.run(*self.cfctl_argv(*args), **kwargs)

    def cfctl_argv(self, *args: str) -> list[str]:
        """Return the command that runs ``cfctl ARGS`` inside."""
        python = Path(sys.prefix) / "bin" / "python"
        if python.is_relative_to(REPO):
            python = INSIDE / python.relative_to(REPO)
        return [str(python), "-m", "cfctl", *args]

    def json(self, *args: str, **kwargs: Any) -> Any:
        """Run ``cfctl ARGS --json`` and return the document."""
        done = self.cfctl(*args, "--json", **kwargs)
        return json.loads(done.stdout)

    def processes(self) -> dict[int, str]:
        """Return what runs inside: pid (as seen inside) -> command line, without the sandbox's own first process."""
        ours = "ps", "-eo", "pid,stat,args", "--no-headers"
        rows = (line.split(None, 2) for line in self.run(*ours).stdout.splitlines())
        return {
            int(pid): args
            for pid, stat, args in rows
            if pid != "1" and not stat.startswith("Z") and not args.startswith(" ".join(ours))
        }

    def snapshot(self) -> dict[str, Any]:
        """Return what a host verb could have changed; equal snapshots are equal hosts."""
        links = json.loads(self.run("ip", "-d", "-j", "link").stdout)
        addresses = json.loads(self.run("ip", "-j", "addr").stdout)
        sysctls = self.run(
            "sh", "-c", "cd /proc/sys/net && grep -r . ipv4/conf ipv6/conf ipv4/ip_forward 2>/dev/null | sort"
        ).stdout
        return {
            "links": {
                link["ifname"]: (
                    link.get("master"),
                    link.get("ifalias"),
                    {
                        key: value
                        for key, value in link.get("linkinfo", {}).get("info_data", {}).items()
                        # A bridge counts down timers, and takes its id from the lowest MAC of its ports.
                        if not key.endswith(("_timer", "_id"))
                    },
                )
                for link in links
            },
            "addresses": {
                # An interface gives itself a link-local address when it first gets a carrier, and keeps it.
                link["ifname"]: [
                    (a["local"], a["prefixlen"], a.get("broadcast"))
                    for a in link["addr_info"]
                    if not a["local"].startswith("fe80:")
                ]
                for link in addresses
            },
            "rules": self.run("nft", "-s", "list", "ruleset").stdout,
            "processes": sorted(self.processes().values()),
            # The two forwarding switches stay 1 after a teardown, as upstream's own test demands. The kernel
            # changes these of every interface with them.
            "sysctls": [
                line
                for line in sysctls.splitlines()
                if not any(word in line for word in ("forwarding", "ip_forward", "accept_redirects"))
            ],
            "files": self.run(
                "sh", "-c", "find /run /tmp /var/tmp /var/lib/cfctl -not -path '/run/nodes*' | sort"
            ).stdout.splitlines(),
        }


def _etc(directory: Path) -> None:
    """Write the user database of the inside: root, one ordinary user, and the groups that packages make."""
    (directory / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n"
    )
    (directory / "group").write_text(
        f"root:x:0:\nnogroup:x:65534:\n{USER}:x:{UID}:\n"
        f"cvdnetwork:x:{CVDNETWORK_GID}:{USER}\nkvm:x:{KVM_GID}:{USER}\n"
    )
    (directory / "default").mkdir()


@contextlib.contextmanager
def sandbox(directory: Path) -> Iterator[Sandbox]:
    """Run a sandbox for the block; ``directory`` is scratch space outside of it."""
    etc = directory / "etc"
    etc.mkdir(parents=True)
    _etc(etc)
    CACHE.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-c", _PREPARE, "sandbox", str(REPO), str(CACHE), str(etc)),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Sandbox(_wait_for_sleep(holder), directory)
    finally:
        holder.kill()
        holder.wait()
        assert holder.stderr is not None
        holder.stderr.close()
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for_sleep(holder: subprocess.Popen[str]) -> int:
    """Return the pid of the first process inside, once it has prepared everything."""
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if holder.poll() is not None:
            assert holder.stderr is not None
            raise RuntimeError(f"the sandbox could not be made: {holder.stderr.read()}")
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                    return int(child)
        time.sleep(0.01)
    raise RuntimeError("the sandbox did not come up within 10 s")
