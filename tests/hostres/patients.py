"""Hosts for the doctor: directory trees as distributions have them, CONSTRUCTED from their documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from cfctl.hostres import firewall
from cfctl.hostres.doctor.facts import PROGRAMS, Facts, Kvm, Node
from cfctl.hostres.firewall import Chain, Line
from cfctl.hostres.safety import Route

CENTOS_KERNEL = "5.14.0-503.el9.x86_64"
DEBIAN_KERNEL = "6.12.9-amd64"
WSL_KERNEL = "5.15.167.4-microsoft-standard-WSL2"

KVM_WORKS = Kvm(ok=True, reason="a kernel booted under KVM within 0.2 s")
KVM_HANGS = Kvm(ok=False, reason="a kernel printed nothing under KVM within 3 s")
NO_KVM = Kvm(ok=False, reason="/dev/kvm cannot be opened: No such file or directory")

CENTOS = 'ID="centos"\nID_LIKE="rhel fedora"\nPRETTY_NAME="CentOS Stream 9"\n'
DEBIAN = 'ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04.2 LTS"\n'

_VHOST = "kernel/drivers/vhost"
_MODULES = f"{_VHOST}/vhost_vsock.ko.xz: {_VHOST}/vhost.ko.xz\n{_VHOST}/vhost_net.ko.xz:\n"

#: A host on which nothing is missing.
_FILES = {
    "etc/group": "root:x:0:\nkvm:x:36:alice\ncvdnetwork:x:970:alice\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n",
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme sse2 vmx ept\n",
    "proc/meminfo": "MemTotal:       65536000 kB\nMemFree:        60000000 kB\n",
    "proc/1/comm": "systemd\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/sys/net/ipv4/ip_forward": "1\n",
    "proc/net/tcp": "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A\n",
    "proc/net/tcp6": "  sl  local_address rem_address   st\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/module/kvm_intel/parameters/nested": "Y\n",
    "sys/module/tun/refcnt": "0\n",
    "sys/module/bridge/refcnt": "0\n",
    "sys/module/nf_tables/refcnt": "0\n",
    "sys/module/vhost_vsock/refcnt": "0\n",
    "sys/module/vhost_net/refcnt": "0\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "dev/vhost-vsock": "",
    "dev/vhost-net": "",
    "dev/net/tun": "",
    "dev/kvm": "",
    "usr/lib/cuttlefish-common/bin/capability_query.py": "#!/bin/sh\n",
}

_NODES = {
    "dev/kvm": Node(0o666, "kvm", usable=True),
    "dev/net/tun": Node(0o666, "root", usable=True),
    "dev/vhost-vsock": Node(0o660, "kvm", usable=True),
    "dev/vhost-net": Node(0o660, "kvm", usable=True),
}


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def healthy(root: Path, *, release: str = DEBIAN, kernel: str = DEBIAN_KERNEL, **changes: Any) -> Facts:
    """Return a host that lacks nothing."""
    write(root, {**_FILES, "etc/os-release": release, f"lib/modules/{kernel}/modules.dep": _MODULES})
    facts = Facts(
        sysroot=root,
        machine="x86_64",
        kernel=kernel,
        kvm=KVM_WORKS,
        instances=4,
        nofile=(32768, 524288),
        synchronised=True,
        year=2026,
        free_mb=500 * 1024,
        devices=Path("/var/lib/cfctl/devices"),
        nodes=dict(_NODES),
        routes=(Route(IPv4Network("10.0.0.0/24"), "eth0"),),
        chains=(),
        probes={"masquerade": "", "bridge": "", "broute": ""},
        programs={name: Path("/usr/sbin", name) for name in PROGRAMS},
    )
    return replace(facts, **changes)


def centos(root: Path, **changes: Any) -> Facts:
    """Return CentOS Stream 9 as it comes, ready but for SELinux, which enforces."""
    facts = healthy(root, release=CENTOS, kernel=CENTOS_KERNEL, **changes)
    write(root, {"sys/fs/selinux/enforce": "1"})
    return facts


def remove(root: Path, *names: str) -> None:
    """Remove files, or empty directories that their files leave behind."""
    for name in names:
        path = root / name
        path.unlink()
        if path.parent.parent.name == "module":
            path.parent.rmdir()


def chain(name: str, hook: str, *rules: str, table: str = "ip filter") -> Chain:
    """Return a base chain with policy drop, as nft shows it."""
    return Chain(firewall.NFT, table, name, hook, "drop", lines(*rules))


def user_chain(name: str, *rules: str) -> Chain:
    """Return a chain that others jump to."""
    return Chain(firewall.NFT, "ip filter", name, rules=lines(*rules))


def lines(*rules: str) -> tuple[Line, ...]:
    """Return rules; what is marked as ours says so as nft does."""
    mark = ' comment "cfctl"'
    return tuple(Line(rule.removesuffix(mark), at, rule.endswith(mark)) for at, rule in enumerate(rules, 5))
