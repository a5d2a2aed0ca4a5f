"""What the checks are told about the host. They ask nothing else, so a test can play any machine.

Files are read below a root directory, which a test builds; what no file says (rights, programs, routes, firewall
rules) is asked here once. Nothing raises: what cannot be read is None, and the check says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gzip
import os
import pwd
import resource
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import distro, paths, process
from cfctl.errors import CfctlError
from cfctl.hostres import commands, host, neighbours, observed, safety
from cfctl.hostres.firewall import Needs
from cfctl.instance import BRIDGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.config import Settings
    from cfctl.hostres.firewall import Chain
    from cfctl.hostres.safety import Network, Route

_TIMEOUT_S = 5

#: What cfctl itself runs, and what launchers run; modprobe and groupadd are for --fix.
PROGRAMS = ("ip", "nft", "iptables", "dnsmasq", "modprobe", "groupadd", "adb", "lsof")

#: The device files that VMs open.
NODES = ("dev/kvm", "dev/net/tun", "dev/vhost-vsock", "dev/vhost-net")

#: adjtimex(2): the clock is not synchronised.
_TIME_ERROR = 5

#: Rules that tell whether the kernel has what the network needs; they are checked and never loaded (nft --check).
_PROBES = {
    "masquerade": "table ip cfctl_probe { chain c { type nat hook postrouting priority 100; masquerade; }; }",
    "bridge": "table bridge cfctl_probe { chain c { type filter hook forward priority 0; }; }",
    "broute": (
        "table bridge cfctl_probe { chain c { type filter hook prerouting priority -250; "
        "ether type ip meta broute set 1 accept; }; }"
    ),
}


#: Of a host with nothing in its settings.
_NEEDS = Needs(tuple(bridge.name for bridge in BRIDGES))
_SETUP = "sudo cfctl host setup"


@dataclass(frozen=True, slots=True)
class Kvm:
    """Whether an ordinary kernel boots under KVM.

    :param ok: None if nobody could try.
    :param reason: one sentence.
    """

    ok: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Node:
    """A device file: its rights, and whether this process may read and write it."""

    mode: int
    group: str
    usable: bool


@dataclass(frozen=True)
class Facts:
    """The host.

    :param sysroot: where ``proc``, ``sys``, ``etc`` and ``lib`` are.
    :param machine: ``uname -m``.
    :param kernel: ``uname -r``.
    :param kvm: what the trial boot said.
    :param instances: how many devices the host is to serve.
    :param subnets: those that the devices take; None for upstream's.
    :param root: this process may change the host.
    :param user: who is going to launch devices.
    :param groups: the groups of this process.
    :param nofile: soft and hard limit of open files.
    :param synchronised: the clock follows a time server.
    :param year: of the clock.
    :param free_mb: free space where devices are kept.
    :param devices: that directory.
    :param routes: and addresses of the host; None if they could not be read.
    :param chains: of other people's firewalls; None if they could not be read.
    :param firewall: the setting ``host.firewall``.
    :param needs: what firewalls are to let through.
    :param setup: the command that sets the host up.
    :param probes: what the kernel says to rules that the network needs, empty for yes; None if it was not asked.
    :param programs: where programs are.
    """

    sysroot: Path
    machine: str
    kernel: str
    kvm: Kvm
    instances: int
    subnets: tuple[Network, ...] | None = None
    root: bool = True
    user: str = "root"
    groups: frozenset[str] = frozenset()
    nofile: tuple[int, int] = (0, 0)
    synchronised: bool | None = None
    year: int = 0
    free_mb: int | None = None
    devices: Path = field(default_factory=lambda: paths.current().devices)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    routes: tuple[Route, ...] | None = None
    chains: tuple[Chain, ...] | None = None
    firewall: str = "open"
    needs: Needs = _NEEDS
    setup: str = _SETUP
    probes: Mapping[str, str] | None = None
    programs: Mapping[str, Path] = field(default_factory=dict)

    # -- files ---------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Return a path below the root; ``name`` has no leading slash."""
        return self.sysroot / name

    def exists(self, name: str) -> bool:
        """Tell whether a file is there, as far as one may look."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def read(self, name: str) -> str:
        """Return what a file says; empty when it is missing or may not be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    @functools.cached_property
    def release(self) -> dict[str, str]:
        """The fields of os-release(5)."""
        return distro.os_release(self.path("etc/os-release"))

    @property
    def debian(self) -> bool:
        """Whether packages are installed with apt."""
        return bool({"debian", "ubuntu"} & {self.release.get("ID", ""), *self.release.get("ID_LIKE", "").split()})

    def install(self, debian: str, rpm: str) -> str:
        """Return the command that installs a package, by Debian's name and by the RPM world's."""
        return f"sudo apt-get install --no-install-recommends {debian}" if self.debian else f"sudo dnf install {rpm}"

    @functools.cached_property
    def services(self) -> frozenset[str]:
        """The names of the programs that run (``comm``, so 15 characters)."""
        return frozenset(
            self.read(f"proc/{entry.name}/comm") for entry in _entries(self.path("proc")) if entry.name.isdecimal()
        )

    @functools.cached_property
    def container(self) -> str | None:
        """The kind of container that this is, None on a host."""
        if self.exists("run/.containerenv"):
            return "podman"
        if self.exists("var/run/secrets/kubernetes.io") or self.exists("run/secrets/kubernetes.io"):
            return "kubernetes"
        if self.exists(".dockerenv"):
            return "docker"
        # systemd's container interface; for others only root may read the environment of process 1.
        environment = self.read("proc/1/environ").split("\0")
        named = next((entry[10:] for entry in environment if entry.startswith("container=")), None)
        return self.read("run/systemd/container") or named or None

    def container_option(self, option: str) -> str:
        """Return how a container of this kind is given something, by the name of the option that gives it."""
        if self.container in ("docker", "podman"):
            return f"{self.container} run {option} ..."
        return f"Give the {self.container} container what docker run {option} gives."

    # -- the kernel ----------------------------------------------------------------------------------

    @functools.cached_property
    def config(self) -> dict[str, str]:
        """The options that the kernel was built with, ``CONFIG_X`` -> y or m; empty if it does not say."""
        text = ""
        for name in (f"boot/config-{self.kernel}", f"lib/modules/{self.kernel}/config"):
            text = text or self.read(name)
        if not text:
            with contextlib.suppress(OSError, EOFError):
                text = gzip.decompress(self.path("proc/config.gz").read_bytes()).decode(errors="replace")
        pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line)
        return {name: value for name, value in pairs if value in ("y", "m")}

    @functools.cached_property
    def built_in(self) -> frozenset[str]:
        """The modules that are part of the kernel itself."""
        return self._modules("modules.builtin")

    @functools.cached_property
    def loadable(self) -> frozenset[str]:
        """The modules that lie on the disk for this kernel."""
        return self._modules("modules.dep")

    def _modules(self, index: str) -> frozenset[str]:
        files = (line.partition(":")[0] for line in self.read(f"lib/modules/{self.kernel}/{index}").splitlines())
        return frozenset(file.rpartition("/")[2].partition(".ko")[0].replace("-", "_") for file in files if file)


def of_settings(settings: Settings, kvm: Kvm) -> Facts:
    """Look at this host as the settings want it; changes nothing.

    :param kvm: what a trial boot said; the caller has made it.
    """
    expected = host.expected(settings)
    return gather(
        kvm,
        instances=expected.instances,
        subnets=expected.subnets,
        firewall=settings["host.firewall"],
        needs=expected.needs,
        setup=commands.set_up(settings),
    )


def gather(
    kvm: Kvm,
    *,
    instances: int,
    subnets: tuple[Network, ...] | None = None,
    firewall: str = "open",
    needs: Needs = _NEEDS,
    setup: str = _SETUP,
    sysroot: Path = Path("/"),
) -> Facts:
    """Look at this host; changes nothing.

    :param kvm: what a trial boot said; the caller has made it.
    :param instances: how many devices the host is to serve.
    :param subnets: those that they take.
    :param firewall: the setting ``host.firewall``.
    :param needs: what firewalls are to let through.
    :param setup: the command that sets the host up.
    """
    uname = os.uname()
    devices = paths.current().devices
    root = os.geteuid() == 0
    return Facts(
        sysroot=sysroot,
        machine=uname.machine,
        kernel=uname.release,
        kvm=kvm,
        instances=instances,
        subnets=subnets,
        root=root,
        user=_user(),
        groups=frozenset(_group(gid) for gid in {*os.getgroups(), os.getegid()}),
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        synchronised=_synchronised(),
        year=_year(),
        free_mb=_free_mb(devices),
        devices=devices,
        nodes={name: node for name in NODES if (node := _node(sysroot / name))},
        routes=_routes(),
        chains=_chains() if root else None,
        firewall=firewall,
        needs=needs,
        setup=setup,
        probes=_probe() if root else None,
        programs={name: found for name in PROGRAMS if (found := process.find(name))},
    )


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _user() -> str:
    """Return who is going to launch devices: with sudo, the one who called it."""
    if os.geteuid() == 0 and (caller := os.environ.get("SUDO_USER")):
        return caller
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _node(path: Path) -> Node | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Node(stat.S_IMODE(status.st_mode), _group(status.st_gid), os.access(path, os.R_OK | os.W_OK))


def _synchronised() -> bool | None:
    try:
        # struct timex is about 200 bytes; all zero means: change nothing.
        return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR)
    except (OSError, AttributeError):
        return None


def _year() -> int:
    import time

    return time.gmtime().tm_year


def _free_mb(directory: Path) -> int | None:
    """Return the free space of the file system on which a directory is, or will be."""
    for place in (directory, *directory.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free >> 20
    return None


def _routes() -> tuple[Route, ...] | None:
    try:
        return tuple(safety.with_addresses(safety.routes(), observed.addresses(observed.interfaces())))
    except (CfctlError, ValueError, KeyError):
        return None


def _chains() -> tuple[Chain, ...] | None:
    try:
        return neighbours.chains()
    except CfctlError:
        return None


def _probe() -> dict[str, str] | None:
    said = {}
    try:
        for name, rules in _PROBES.items():
            done = process.run(["nft", "--check", "-f", "-"], stdin=rules, timeout=_TIMEOUT_S, success=None)
            said[name] = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["nft refused"])[0]
    except CfctlError:
        return None
    return said
