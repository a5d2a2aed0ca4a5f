"""The doctor on many kinds of host; every text that tells what is wrong, once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cfctl import paths
from cfctl.errors import NeedsRoot
from cfctl.hostres import doctor, filtertable, firewall
from cfctl.hostres.doctor import facts as facts_module
from cfctl.hostres.doctor import fix
from cfctl.hostres.doctor.facts import Facts, Kvm, Node
from cfctl.hostres.doctor.finding import Finding, Mend
from cfctl.hostres.safety import Route
from tests.hostres import patients
from tests.hostres.patients import CENTOS_KERNEL, centos, chain, healthy, remove, user_chain, write
from tests.schemas import conforms


def findings(facts: Facts, **kwargs: Path) -> dict[str, Finding]:
    """Return all findings by the name of their check; the document they make is as the schema says."""
    report = doctor.examine(facts, **kwargs)
    conforms(doctor.document(report), "doctor")
    everything = [finding for several in report.values() for finding in several]
    names = [finding.check for finding in everything]
    assert len(names) == len(set(names)) or "forward drop" in names
    return {finding.check: finding for finding in everything}


def ill(facts: Facts) -> set[str]:
    return {check for check, finding in findings(facts).items() if finding.result != "ok"}


def test_a_healthy_debian_lacks_nothing(tmp_path: Path) -> None:
    assert ill(healthy(tmp_path)) == set()
    assert doctor.document(doctor.examine(healthy(tmp_path)))["result"] == "ok"


def test_centos_with_selinux(tmp_path: Path) -> None:
    facts = centos(tmp_path)
    assert ill(facts) == {"selinux"}
    found = findings(facts)["selinux"]
    assert (found.result, found.found) == (
        "warn",
        "enforcing: started by a service, dnsmasq may be refused its files in /run",
    )
    assert found.help == (
        "Leave it on. If host setup says that dnsmasq failed: sudo ausearch -m avc -ts recent -c dnsmasq"
    )
    write(tmp_path, {"sys/fs/selinux/enforce": "0"})
    assert findings(facts)["selinux"].found == "permissive"


#: What is done to a healthy Debian; the check that notices; its result; what it found; a part of its help.
Case = tuple[Callable[[Facts], Facts], str, str, str, str]


def written(name: str, text: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        write(facts.sysroot, {name: text})
        return facts

    return change


def gone(name: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        remove(facts.sysroot, name)
        return facts

    return change


def changed(**fields: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, **fields)  # type: ignore[arg-type]


def without_module(*names: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        for name in names:
            remove(facts.sysroot, f"sys/module/{name}/refcnt")
            if name.startswith("vhost"):
                remove(facts.sysroot, f"dev/{name.replace('_', '-')}")
        return facts

    return change


def no_modules_at_all(facts: Facts) -> Facts:
    facts = without_module("vhost_vsock")(facts)
    (facts.path(f"lib/modules/{facts.kernel}/modules.dep")).write_text("")
    return facts


def node(name: str, value: Node | None) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        nodes = {key: old for key, old in facts.nodes.items() if key != name}
        return replace(facts, nodes={**nodes, name: value} if value else nodes)

    return change


def steps(*changes: Callable[[Facts], Facts]) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        for one in changes:
            facts = one(facts)
        return facts

    return change


LOCKED = Node(0o600, "root", usable=False)
ALICE = {"root": False, "user": "alice", "groups": frozenset({"alice", "cvdnetwork", "kvm"})}
PORTS = "  sl\n   0: 00000000:{:04X} 00000000:0000 0A\n   1: 00000000:1979 00000000:0000 01\n"

#: What the setting ``host.firewall = "leave"`` does.
LEFT = changed(firewall="leave")
DOCKER = (chain("FORWARD", "forward", "counter jump DOCKER-USER"), user_chain("DOCKER-USER", "counter return"))
OPENED = (
    'iifname "cvd-*" oifname "docker0" counter return comment "cfctl"',
    'iifname "cvd-*" oifname "br-*" counter return comment "cfctl"',
    'iifname "cvd-*" counter accept comment "cfctl"',
    'oifname "cvd-*" ct state established,related counter accept comment "cfctl"',
    "counter return",
)
OPENED_IN = tuple(f'iifname "{name}" udp dport 67 counter accept comment "cfctl"' for name in ("cvd-ebr", "cvd-wbr"))

CASES: dict[str, Case] = {
    # -- where it runs
    "no os-release": (
        gone("etc/os-release"),
        *("distribution", "warn", "not known: there is no /etc/os-release", "cat /etc/os-release"),
    ),
    "docker": (
        written(".dockerenv", ""),
        *("container", "fail", "docker, without CAP_NET_ADMIN", "docker run --cap-add NET_ADMIN ..."),
    ),
    "pod": (
        written("run/secrets/kubernetes.io/token", ""),
        *(
            "container",
            "fail",
            "kubernetes, without CAP_NET_ADMIN",
            "securityContext: {capabilities: {add: [NET_ADMIN]}}",
        ),
    ),
    "container that cannot forward": (
        steps(
            written("run/.containerenv", ""),
            written("proc/sys/net/ipv4/ip_forward", "0"),
            written("proc/mounts", "proc /proc/sys proc ro,nosuid 0 0\n"),
        ),
        *("forwarding", "fail", "off, and /proc/sys is read-only", "podman run --sysctl net.ipv4.ip_forward=1"),
    ),
    "wsl 2": (
        changed(kernel=patients.WSL_KERNEL),
        *("wsl", "warn", f"WSL 2 ({patients.WSL_KERNEL})", "nestedVirtualization=true"),
    ),
    "wsl 1": (
        changed(kernel="4.4.0-19041-Microsoft"),
        *("wsl", "fail", "WSL 1 has no Linux kernel", "wsl --set-version DISTRIBUTION 2"),
    ),
    "cgroups v1": (
        steps(gone("sys/fs/cgroup/cgroup.controllers"), written("sys/fs/cgroup/memory/tasks", "")),
        *("cgroups", "warn", "version 1: devices run, but without limits of their own", "sudo update-grub"),
    ),
    "no cgroups": (
        gone("sys/fs/cgroup/cgroup.controllers"),
        *("cgroups", "warn", "not mounted: devices run, but without limits of their own", "sudo reboot"),
    ),
    "apparmor": (
        steps(
            written("sys/module/apparmor/parameters/enabled", "Y\n"),
            written("etc/apparmor.d/usr.sbin.dnsmasq", "profile dnsmasq {}\n"),
        ),
        "apparmor",
        "warn",
        "dnsmasq is confined",
        "printf '/run/cuttlefish-dnsmasq-*.pid rw,\\n/run/cuttlefish-dnsmasq-*.leases rw,\\n/run/cfctl/host/* r,\\n' "
        "| sudo tee -a /etc/apparmor.d/local/usr.sbin.dnsmasq && "
        "sudo apparmor_parser -r /etc/apparmor.d/usr.sbin.dnsmasq",
    ),
    "clock of 1970": (
        changed(year=1970),
        *("clock", "fail", "it says that this is 1970", "timedatectl set-ntp true"),
    ),
    "clock runs free": (
        changed(synchronised=False),
        *("clock", "warn", "follows no time server", "install --no-install-recommends systemd-timesyncd"),
    ),
    "clock unknown": (
        changed(synchronised=None),
        *("clock", "warn", "not known whether it follows a time server", "timedatectl"),
    ),
    "slow clock": (
        written("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
        *("clock source", "warn", "hpet: every look at the clock is slow", "dmesg | grep -i clocksource"),
    ),
    # -- kernel
    "riscv": (changed(machine="riscv64"), "processor", "fail", "riscv64", "aarch64, x86_64"),
    "old kernel": (
        changed(kernel="4.4.0-21-generic"),
        *("kernel version", "fail", "4.4.0-21-generic", "linux-image-amd64 && sudo reboot"),
    ),
    "strange kernel": (
        changed(kernel="mine"),
        *("kernel version", "warn", "cannot be told from 'mine'", "uname -r"),
    ),
    "kvm unknown": (
        changed(kvm=Kvm(ok=None, reason="not known: there is no embedded guest yet to try it with")),
        *("kvm", "warn", "not known: there is no embedded guest yet to try it with", "cfctl launch"),
    ),
    "no qemu to try kvm with": (
        changed(kvm=Kvm(ok=None, reason="the program 'qemu-system-x86_64' is not installed")),
        "kvm",
        "warn",
        "not known: the program 'qemu-system-x86_64' is not installed",
        "sudo apt-get install --no-install-recommends qemu-system-x86",
    ),
    "kvm module not loaded": (
        steps(node("dev/kvm", None), changed(kvm=patients.NO_KVM)),
        *("kvm", "fail", patients.NO_KVM.reason, "sudo modprobe kvm_intel"),
    ),
    "kvm off in the firmware": (
        steps(node("dev/kvm", None), changed(kvm=patients.NO_KVM), written("proc/cpuinfo", "flags\t: fpu\n")),
        *("kvm", "fail", patients.NO_KVM.reason, "Turn on VT-x (Intel) or SVM (AMD) in the firmware's settings."),
    ),
    "kvm not nested": (
        steps(node("dev/kvm", None), changed(kvm=patients.NO_KVM), written("proc/cpuinfo", "flags\t: hypervisor\n")),
        *("kvm", "fail", patients.NO_KVM.reason, "Turn nested virtualisation on where it runs"),
    ),
    "kvm hangs": (
        steps(changed(kvm=patients.KVM_HANGS), written("proc/cpuinfo", "flags\t: vmx hypervisor\n")),
        *(
            "kvm",
            "fail",
            patients.KVM_HANGS.reason,
            "This host is itself a virtual machine, and its KVM does not work.",
        ),
    ),
    "kvm not permitted": (
        steps(changed(kvm=patients.KVM_HANGS, **ALICE), node("dev/kvm", Node(0o660, "kvm", usable=False))),
        *("kvm", "fail", patients.KVM_HANGS.reason, "sudo usermod -aG kvm alice"),
    ),
    "not nested": (
        written("sys/module/kvm_intel/parameters/nested", "N\n"),
        *("nested virtualisation", "warn", "kvm_intel does not offer it to guests", "options kvm_intel nested=1"),
    ),
    "nesting unknown": (
        gone("sys/module/kvm_intel/parameters/nested"),
        "nested virtualisation",
        "warn",
        "not known: neither kvm_intel nor kvm_amd is loaded",
        "See the finding on kvm.",
    ),
    "vhost_vsock not loaded": (
        without_module("vhost_vsock"),
        *("module vhost_vsock", "fail", "there, but not loaded", "sudo modprobe vhost_vsock && echo vhost_vsock"),
    ),
    "vhost_net not loaded": (
        without_module("vhost_net"),
        *("module vhost_net", "warn", "there, but not loaded", "sudo modprobe vhost_net"),
    ),
    "vhost_vsock not built": (
        no_modules_at_all,
        *(
            "module vhost_vsock",
            "fail",
            "the kernel 6.12.9-amd64 does not have it",
            "linux-image-amd64 && sudo reboot",
        ),
    ),
    "updated without a reboot": (
        steps(without_module("vhost_vsock"), changed(kernel="6.12.8-amd64")),
        *("module vhost_vsock", "fail", "there are no modules for the running kernel 6.12.8-amd64", "sudo reboot"),
    ),
    "vhost_vsock left out of the kernel": (
        steps(no_modules_at_all, written(".dockerenv", ""), written("boot/config-6.12.9-amd64", "CONFIG_TUN=y\n")),
        *("module vhost_vsock", "fail", "the kernel 6.12.9-amd64 was built without it", "CONFIG_VHOST_VSOCK=m"),
    ),
    "vhost_vsock in a container": (
        steps(no_modules_at_all, written(".dockerenv", "")),
        *("module vhost_vsock", "fail", "not loaded, as far as a container can see", "sudo modprobe vhost_vsock"),
    ),
    "vhost_vsock in wsl": (
        steps(without_module("vhost_vsock"), changed(kernel=patients.WSL_KERNEL)),
        *("module vhost_vsock", "fail", "the kernel of WSL is built without it", "CONFIG_VHOST_VSOCK=m"),
    ),
    "nft too old for broute": (
        changed(
            probes={"broute": "/dev/stdin:1:95-111: Error: syntax error, unexpected broute, known keys are a, b"}
        ),
        *(
            "nft bridge meta",
            "warn",
            "refused: syntax error, unexpected broute",
            "nft 1.0.8 (Debian 13, Ubuntu 24.04)",
        ),
    ),
    "nft in a container without rights": (
        steps(
            changed(probes={"bridge": "/dev/stdin:1:1-9: Error: Operation not permitted"}), written(".dockerenv", "")
        ),
        *("nft bridge", "fail", "refused: Operation not permitted", "docker run --cap-add NET_ADMIN ..."),
    ),
    "no bridge family": (
        changed(probes={"bridge": "/dev/stdin:1:1-9: Error: Could not process rule: Not supported"}),
        *("nft bridge", "fail", "refused: Could not process rule: Not supported", "linux-image-amd64 && sudo reboot"),
    ),
    "no masquerade, by the configuration": (
        steps(changed(probes=None), written("boot/config-6.12.9-amd64", "CONFIG_NF_TABLES=y\n")),
        *("nft masquerade", "fail", "the kernel was built without CONFIG_NFT_MASQ", "sudo reboot"),
    ),
    "nft unknown to a user": (
        changed(probes=None, **ALICE),
        *("nft bridge", "warn", "not known: only root may ask", "sudo cfctl host doctor"),
    ),
    "no nft": (
        changed(probes=None),
        *("nft bridge", "warn", "not known: nft could not be asked", "recommends nftables"),
    ),
    # -- rights
    "no group": (
        written("etc/group", "root:x:0:\nkvm:x:36:\n"),
        *("group cvdnetwork", "fail", "is missing", "sudo groupadd --system cvdnetwork"),
    ),
    "not a member": (
        changed(root=False, user="bob"),
        *("membership cvdnetwork", "fail", "bob is not a member", "sudo usermod -aG cvdnetwork bob"),
    ),
    "member since the login": (
        changed(root=False, user="alice"),
        *("membership cvdnetwork", "fail", "alice became a member after logging in", "newgrp cvdnetwork"),
    ),
    "not in kvm": (
        steps(changed(user="bob"), node("dev/kvm", Node(0o660, "kvm", usable=True))),
        *("membership kvm", "fail", "bob is not a member", "sudo usermod -aG kvm bob"),
    ),
    "vhost for root only": (
        node("dev/vhost-vsock", LOCKED),
        *("/dev/vhost-vsock", "warn", "0600 root: users may not open it", "sudo chgrp kvm /dev/vhost-vsock"),
    ),
    "tun for root only": (
        steps(changed(**ALICE), node("dev/net/tun", LOCKED)),
        *("/dev/net/tun", "fail", "0600 root: users may not open it", "sudo chmod 0666 /dev/net/tun"),
    ),
    "no vhost-net": (
        node("dev/vhost-net", None),
        *("/dev/vhost-net", "warn", "is missing", "See the finding on vhost_net."),
    ),
    "no kvm in a container": (
        steps(node("dev/kvm", None), written(".dockerenv", "")),
        *("/dev/kvm", "fail", "is missing", "docker run --device /dev/kvm ..."),
    ),
    "few files": (
        changed(nofile=(1024, 524288)),
        *("open files", "warn", "limit 1024, may be raised to 524288", "@cvdnetwork soft nofile 32768"),
    ),
    "far too few files": (
        changed(nofile=(1024, 2048)),
        *("open files", "fail", "limit 1024, may be raised to 2048", "@cvdnetwork - nofile 32768"),
    ),
    # -- room
    "little memory": (
        written("proc/meminfo", "MemTotal: 8000000 kB\n"),
        *("memory", "warn", "7.6 GB: enough for 1 at a time", "cfctl host setup --instances N"),
    ),
    "no memory": (
        written("proc/meminfo", "MemTotal: 2000000 kB\n"),
        *("memory", "fail", "1.9 GB: enough for 0 at a time", "--memory-mb 2048"),
    ),
    "limited memory": (
        written("sys/fs/cgroup/memory.max", str(6 << 30)),
        *("memory", "warn", "6.0 GB, the limit of this container: enough for 1 at a time", "--instances N"),
    ),
    "memory unknown": (
        written("proc/meminfo", ""),
        *("memory", "warn", "not known: /proc/meminfo does not say", "free -m"),
    ),
    "no overcommit": (
        written("proc/sys/vm/overcommit_memory", "2"),
        *("overcommit", "warn", "vm.overcommit_memory is 2", "sudo sysctl -w vm.overcommit_memory=0"),
    ),
    "small disk": (
        changed(free_mb=30 * 1024),
        "disk",
        "warn",
        "30.0 GB free for /var/lib/cfctl/devices: enough for 1 full-grown devices of 4",
        "cfctl rm NAME",
    ),
    "full disk": (
        changed(free_mb=100),
        *("disk", "fail", "0.1 GB free for /var/lib/cfctl/devices: enough for 0", "CFCTL_PATHS_STATE"),
    ),
    "disk unknown": (
        changed(free_mb=None),
        *("disk", "warn", "not known: /var/lib/cfctl/devices cannot be looked at", "df -h"),
    ),
    # -- programs
    "no dnsmasq": (
        changed(programs={}),
        *("program dnsmasq", "fail", "is not installed", "recommends dnsmasq-base"),
    ),
    "no capability_query": (
        gone("usr/lib/cuttlefish-common/bin/capability_query.py"),
        "capability_query.py",
        "fail",
        "/usr/lib/cuttlefish-common/bin/capability_query.py is missing",
        "sudo install -D -m 0755 /dev/stdin",
    ),
    # -- network
    "docker network": (
        changed(routes=(Route(IPv4Network("192.168.96.0/20"), "br-1a2b"),)),
        *("subnets", "fail", "taken: 192.168.96.0/20 on br-1a2b", "default-address-pools"),
    ),
    "libvirt network": (
        changed(routes=(Route(IPv4Network("192.168.97.0/24"), "virbr1"),)),
        *("subnets", "fail", "taken: 192.168.97.0/24 on virbr1", "virsh net-edit"),
    ),
    "vpn": (
        changed(routes=(Route(IPv4Network("192.168.0.0/16"), "wg0", "10.1.1.1"),)),
        *("subnets", "fail", "taken: 192.168.0.0/16 via 10.1.1.1 on wg0", "ip route del 192.168.0.0/16 dev wg0"),
    ),
    "address": (
        changed(routes=(Route(IPv4Network("192.168.98.0/24"), "d0", address="192.168.98.7/24"),)),
        *("subnets", "fail", "taken: address 192.168.98.7/24 on d0", "sudo ip addr del 192.168.98.7/24 dev d0"),
    ),
    "routes unknown": (
        changed(routes=None),
        *("subnets", "warn", "not known: the routes could not be read", "recommends iproute2"),
    ),
    "adb port taken": (
        written("proc/net/tcp", PORTS.format(6521)),
        *("ports", "fail", "taken: 6521 (ADB of cvd-2)", "sudo ss -ltnp 'sport = :6521'"),
    ),
    "operator port taken": (
        written("proc/net/tcp6", PORTS.format(1443)),
        *("ports", "warn", "taken: 1443 (screens of devices)", "sport = :1443"),
    ),
    "vnc port taken": (
        written("proc/net/tcp", PORTS.format(6444)),
        *("ports", "warn", "taken: 6444 (VNC of cvd-1 under QEMU)", "sport = :6444"),
    ),
    "wide port range": (
        written("proc/sys/net/ipv4/ip_local_port_range", "1024 65535"),
        *(
            "port range",
            "warn",
            "outgoing connections use 1024 to 65535, also devices' ports",
            "=6520-6647,15550-15599",
        ),
    ),
    "port range unknown": (
        written("proc/sys/net/ipv4/ip_local_port_range", ""),
        *("port range", "warn", "not known", "sysctl net.ipv4.ip_local_port_range"),
    ),
    "networkmanager": (
        written("proc/700/comm", "NetworkManager\n"),
        *("NetworkManager", "warn", "is not told to leave cvd-* alone", "systemctl reload NetworkManager"),
    ),
    # -- firewalls
    "drop of DHCP": (
        changed(chains=(chain("INPUT", "input", "udp dport 67 drop", *OPENED_IN),)),
        *("drop of DHCP", "warn", "guests get no address: ip filter INPUT: udp dport 67 drop", "Look at it"),
    ),
    "firewalld": (
        written("proc/800/comm", "firewalld\n"),
        *("firewalld", "warn", "runs, and has no zone for cvd-*", "sudo cfctl host setup"),
    ),
    "firewalld, left alone": (
        steps(written("proc/800/comm", "firewalld\n"), LEFT),
        *("firewalld", "warn", "runs, and has no zone for cvd-*", "--zone=cuttlefish --add-interface=cvd-+"),
    ),
    "ufw": (
        written("etc/ufw/ufw.conf", "ENABLED=yes\n"),
        *("ufw", "warn", "is on, without rules for cvd-*", "sudo cfctl host setup"),
    ),
    "ufw, left alone": (
        steps(written("etc/ufw/ufw.conf", "ENABLED=yes\n"), LEFT),
        *("ufw", "warn", "is on, without rules for cvd-*", "sudo ufw allow in on $i to any port 67 proto udp"),
    ),
    "ufw, asked by a user": (
        steps(changed(**ALICE), written("etc/ufw/ufw.conf", "ENABLED=yes\n")),
        *("ufw", "warn", "is on; only root may read its rules", "sudo cfctl host doctor"),
    ),
    "docker forward": (
        changed(chains=DOCKER),
        "forward drop",
        "warn",
        "Docker's FORWARD drops what no rule accepts: guests would not reach the outside",
        "sudo cfctl host setup",
    ),
    "docker forward, left alone": (
        steps(changed(chains=DOCKER), LEFT),
        "forward drop",
        "warn",
        "Docker's FORWARD drops what no rule accepts: guests would not reach the outside",
        'sudo nft insert rule ip filter DOCKER-USER position 5 \'iifname "cvd-*" oifname "docker0" counter return\'',
    ),
    "input drop": (
        changed(chains=(chain("input", "input", table="inet mine"),)),
        "input drop",
        "warn",
        "inet mine input drops what no rule accepts: guests would not get an address",
        "sudo cfctl host setup",
    ),
    "input drop, left alone": (
        steps(changed(chains=(chain("input", "input", table="inet mine"),)), LEFT),
        "input drop",
        "warn",
        "inet mine input drops what no rule accepts",
        "sudo nft add rule inet mine input 'iifname \"cvd-ebr\" udp dport 67 counter accept'",
    ),
    "a drop that is meant": (
        changed(chains=(chain("forward", "forward", 'iifname "cvd-*" drop', table="inet mine"),)),
        "drop for guests",
        "warn",
        'cfctl leaves that as it is: inet mine forward: iifname "cvd-*" drop',
        "sudo nft -a list ruleset",
    ),
    "bridge drop": (
        changed(chains=(chain("forward", "forward", table="bridge mine"),)),
        *("forward drop", "warn", "bridge mine forward drops by default: no frame crosses a bridge", "cvd-*"),
    ),
    "legacy forward drop": (
        changed(chains=filtertable.parse("iptables-legacy", "-P FORWARD DROP\n")),
        *(
            "forward drop",
            "warn",
            "iptables-legacy filter FORWARD drops what no rule accepts",
            "sudo cfctl host setup",
        ),
    ),
    "legacy input drop, left alone": (
        steps(changed(chains=filtertable.parse("iptables-legacy", "-P INPUT DROP\n")), LEFT),
        *(
            "input drop",
            "warn",
            "iptables-legacy filter INPUT drops what",
            "sudo iptables-legacy -I INPUT 1 -i cvd-ebr",
        ),
    ),
    "rules unknown": (
        changed(chains=None),
        *("firewall rules", "warn", "not known: nft could not be asked.", "recommends nftables"),
    ),
    "rules unknown to a user, with docker": (
        steps(changed(chains=None, **ALICE), written("proc/900/comm", "dockerd\n")),
        *(
            "firewall rules",
            "warn",
            "only root may read them. Docker runs: it may drop what guests send.",
            "sudo cfctl",
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong(tmp_path: Path, name: str) -> None:
    change, check, result, found, help_ = CASES[name]
    finding = findings(change(healthy(tmp_path)))[check]
    assert finding.result == result
    assert found in finding.found
    assert help_ in (finding.help or "")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (steps(without_module("vhost_vsock"), written("dev/vhost-vsock", "")), "module vhost_vsock"),
        (
            steps(
                without_module("vhost_vsock"),
                written(
                    f"lib/modules/{patients.DEBIAN_KERNEL}/modules.builtin", "kernel/drivers/vhost/vhost-vsock.ko\n"
                ),
            ),
            "module vhost_vsock",
        ),
        (
            steps(without_module("bridge"), written(f"boot/config-{patients.DEBIAN_KERNEL}", "CONFIG_BRIDGE=y\n")),
            "module bridge",
        ),
        (steps(changed(**ALICE), node("dev/kvm", Node(0o600, "root", usable=True))), "/dev/kvm"),
        (
            steps(written("proc/700/comm", "NetworkManager"), written("etc/NetworkManager/conf.d/9.conf", "cvd-*")),
            "NetworkManager",
        ),
        (
            steps(
                written("run/firewalld.pid", "1"),
                written("etc/firewalld/zones/cuttlefish.xml", '<zone><interface name="cvd-+"/></zone>'),
            ),
            "firewalld",
        ),
        (
            steps(written("etc/ufw/ufw.conf", "ENABLED=yes"), written("etc/ufw/user.rules", "-A ufw -i cvd-ebr")),
            "ufw",
        ),
        (changed(chains=(DOCKER[0], user_chain("DOCKER-USER", *OPENED))), "firewall rules"),
        (
            steps(written("proc/net/tcp", PORTS.format(6520)), written("sys/class/net/cvd-etap-01/carrier", "1\n")),
            "ports",
        ),
        (
            steps(written("proc/5/comm", "nginx"), written("proc/net/tcp", PORTS.format(1443))),
            "ports",
        ),
        (changed(routes=(Route(IPv4Network("192.168.98.0/24"), "cvd-ebr"),)), "subnets"),
        (
            steps(
                written("sys/module/apparmor/parameters/enabled", "Y"),
                written("etc/apparmor.d/usr.sbin.dnsmasq", ""),
                written("etc/apparmor.d/local/usr.sbin.dnsmasq", "/run/cuttlefish-dnsmasq-* rw,"),
            ),
            "apparmor",
        ),
    ],
)
def test_what_is_not_wrong(tmp_path: Path, change: Callable[[Facts], Facts], check: str) -> None:
    finding = findings(change(healthy(tmp_path)))[check]
    assert (finding.result, finding.help) == ("ok", None)


@pytest.mark.parametrize(
    ("change", "check", "help_"),
    [
        (changed(programs={}), "program ip", "sudo dnf install iproute"),
        (changed(synchronised=False), "clock", "sudo dnf install chrony && sudo timedatectl set-ntp true"),
        (
            no_modules_at_all,
            "module vhost_vsock",
            f"sudo dnf install kernel-modules-{CENTOS_KERNEL} kernel-modules-extra-{CENTOS_KERNEL}",
        ),
        (
            gone("sys/fs/cgroup/cgroup.controllers"),
            "cgroups",
            "sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1 && sudo reboot",
        ),
    ],
)
def test_the_commands_are_this_distributions(
    tmp_path: Path, change: Callable[[Facts], Facts], check: str, help_: str
) -> None:
    assert findings(change(centos(tmp_path)))[check].help == help_


def test_ubuntu_has_modules_in_a_package_of_their_own(tmp_path: Path) -> None:
    facts = no_modules_at_all(healthy(tmp_path, release=patients.UBUNTU, kernel="6.8.0-45-generic"))
    assert findings(facts)["module vhost_vsock"].help == "sudo apt-get install linux-modules-extra-6.8.0-45-generic"


def test_a_check_that_breaks_does_not_end_the_others(tmp_path: Path) -> None:
    facts = healthy(tmp_path, chains=(replace(DOCKER[0], table="odd"),))
    finding = findings(facts)["firewalls"]
    assert (finding.result, finding.found) == (
        "warn",
        "the rest could not be checked: IndexError: list index out of range",
    )


def test_an_empty_host_is_looked_at_to_the_end(tmp_path: Path) -> None:
    bare = Facts(tmp_path, "x86_64", "6.1.0", Kvm(ok=None, reason="nobody tried"), 10, root=False, user="x")
    assert not any("could not be checked" in finding.found for finding in findings(bare).values())


def test_this_machine_can_be_looked_at() -> None:
    gathered = facts_module.gather(patients.KVM_WORKS, instances=1)
    found = findings(gathered)
    assert gathered.kernel == os.uname().release
    assert found["distribution"].result == "ok"
    assert not any("could not be checked" in finding.found for finding in found.values())


# -- shared libraries ------------------------------------------------------------------------------------


def host_package(directory: Path) -> Path:
    """Return a package with one real program, linked with this machine's libraries."""
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/run_cvd").write_bytes(Path(sys.executable).resolve().read_bytes())
    (directory / "bin/script").write_text("#!/bin/sh\n")
    return directory


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the hosts of this file are x86_64")
def test_missing_libraries(tmp_path: Path) -> None:
    package = host_package(tmp_path / "package")
    found = findings(centos(tmp_path / "host"), host_package=package)
    libc = found["library libc.so.6"]
    assert (libc.result, libc.found) == ("fail", "is missing, needed by run_cvd")
    assert libc.help == "sudo dnf install 'libc.so.6()(64bit)'"
    debian = findings(healthy(tmp_path / "debian"), host_package=package)
    assert debian["library libc.so.6"].help == "See which package has it: apt-file search libc.so.6"
    if "library libz.so.1" in debian:
        assert debian["library libz.so.1"].help == "sudo apt-get install --no-install-recommends zlib1g"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the hosts of this file are x86_64")
def test_libraries_of_the_package_itself_and_of_the_system(tmp_path: Path) -> None:
    package = host_package(tmp_path / "package")
    facts = healthy(tmp_path / "host")
    missing = [check.split()[1] for check in findings(facts, host_package=package) if check.startswith("library ")]
    write(package, {f"lib64/{missing[0]}": "not read any further"})
    write(facts.sysroot, {"etc/ld.so.conf.d/x.conf": "/opt/lib\n"})
    for number, name in enumerate(missing[1:]):
        place = ("lib/x86_64-linux-gnu", "usr/lib64", "opt/lib")[number % 3]
        write(facts.sysroot, {f"{place}/{name}": ""})
    assert findings(facts, host_package=package)["shared libraries"].found == "all there"


def test_a_package_for_another_processor(tmp_path: Path) -> None:
    package = host_package(tmp_path / "package")
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    finding = findings(healthy(tmp_path / "host", machine=other), host_package=package)[
        "processor of the host package"
    ]
    assert (finding.result, finding.found) == ("fail", "1 programs are for another processor")
    assert finding.help == f"Fetch the host package for {other}."


def test_no_package(tmp_path: Path) -> None:
    finding = findings(healthy(tmp_path), host_package=tmp_path / "none")["processor of the host package"]
    assert (finding.result, finding.found) == ("fail", f"{tmp_path}/none has no programs in bin")


# -- what --fix does ------------------------------------------------------------------------------------------


@pytest.fixture
def repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs on PATH that write down how they are called; modprobe refuses vhost_net."""
    log, bin_ = tmp_path / "called", tmp_path / "bin"
    bin_.mkdir()
    for name in ("modprobe", "groupadd", "chgrp", "chmod"):
        program = bin_ / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >>{log}\ncase "$*" in *vhost_net) echo no such thing >&2; exit 1;; esac\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    log.touch()
    return log


def test_fix_does_the_safe_ones_in_order(tmp_path: Path, repairs: Path) -> None:
    facts = steps(
        without_module("vhost_vsock", "vhost_net"),
        written("etc/group", "root:x:0:\n"),
        node("dev/vhost-vsock", LOCKED),
        node("dev/net/tun", LOCKED),
        changed(free_mb=1, programs={}),
    )(healthy(tmp_path))
    done = fix.run(findings(facts).values())
    called = repairs.read_text().splitlines()
    assert called == [
        "modprobe vhost_vsock",
        "modprobe vhost_net",
        "groupadd --system cvdnetwork",
        "chgrp cvdnetwork /dev/vhost-vsock",
        "chmod 0660 /dev/vhost-vsock",
    ]
    assert done == [line for line in called if not line.endswith("vhost_net")]


def test_a_module_brings_a_device_file_that_wants_mending_too(tmp_path: Path, repairs: Path) -> None:
    facts = steps(without_module("vhost_vsock"), node("dev/vhost-vsock", None))(healthy(tmp_path))

    def look() -> doctor.Report:
        loaded = "modprobe" in repairs.read_text()
        return doctor.examine(node("dev/vhost-vsock", LOCKED)(facts) if loaded else facts)

    report, mended = fix.until_done(look)
    # What does not help is not tried a second time.
    assert mended == ["modprobe vhost_vsock", "chgrp kvm /dev/vhost-vsock", "chmod 0660 /dev/vhost-vsock"]
    assert repairs.read_text().splitlines() == mended
    assert any(finding.fixable for finding in report["rights"])


def test_fix_of_a_healthy_host_runs_nothing(tmp_path: Path, repairs: Path) -> None:
    assert fix.run(findings(healthy(tmp_path)).values()) == []
    assert repairs.read_text() == ""


def test_a_repair_is_only_made_where_something_is_wrong(repairs: Path) -> None:
    assert fix.run([Finding("x", "ok", "fine", "why", None, (Mend(("modprobe", "x")),))]) == []


def test_only_root_may_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NeedsRoot, match="host doctor --fix must run as root") as caught:
        fix.require_root()
    assert "kernel modules" in (caught.value.details or "")


def test_the_capability_command_makes_what_launchers_ask(tmp_path: Path) -> None:
    facts = CASES["no capability_query"][0](healthy(tmp_path))
    target = tmp_path / "made" / "capability_query.py"
    command = (findings(facts)["capability_query.py"].help or "").replace("sudo ", "")
    command = command.replace("/usr/lib/cuttlefish-common/bin/capability_query.py", str(target))
    subprocess.run(["sh", "-c", command], check=True, timeout=10)

    def ask(*words: str) -> tuple[int, str]:
        done = subprocess.run([target, *words], capture_output=True, text=True, timeout=10, check=False)
        return done.returncode, done.stdout

    assert ask("qemu_cli") == (0, "")
    assert ask("capability_check", "vsock") == (0, "")
    assert ask("gem5")[0] == 1
    assert ask() == (0, "capability_check qemu_cli vsock\n")


def test_devices_are_where_the_disk_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path / "not" / "yet"))
    gathered = facts_module.gather(patients.KVM_WORKS, instances=1)
    assert gathered.devices == paths.current().devices
    assert gathered.free_mb is not None


@pytest.mark.parametrize("listed", ["-P FORWARD DROP", "-A FORWARD -p tcp -j ACCEPT\n-A FORWARD -j DROP"])
def test_commands_for_iptables_make_what_the_set_up_makes(tmp_path: Path, listed: str) -> None:
    """In the same order, and after what the administrator has written."""
    text = f"-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -j ACCEPT\n-P FORWARD DROP\n{listed}\n"
    chains = filtertable.parse("iptables-legacy", text)
    facts = LEFT(replace(patients.healthy(tmp_path), chains=chains))
    help_ = "\n".join(findings(facts)[check].help or "" for check in ("input drop", "forward drop"))
    by_hand = [line.removeprefix("sudo iptables-legacy ") for line in help_.splitlines()]
    script = filtertable.script_lines(firewall.edits(chains, facts.needs), chains)
    assert by_hand == [line.replace(" -m comment --comment cfctl", "") for line in script]
    assert by_hand[0] == "-I INPUT 3 -i cvd-ebr -p udp -m udp --dport 67 -j ACCEPT"
    assert by_hand[1].startswith("-I INPUT 4 -i cvd-wbr")


def test_the_doctor_asks_for_what_the_set_up_opens(tmp_path: Path) -> None:
    chains = filtertable.parse("iptables-legacy", "-P INPUT DROP\n-P FORWARD DROP\n")
    needs = firewall.Needs(("cvd-ebr",), apart=True)
    facts = LEFT(replace(patients.healthy(tmp_path), chains=chains, needs=needs))
    help_ = "\n".join(findings(facts)[check].help or "" for check in ("input drop", "forward drop"))
    assert "-i cvd-wbr" not in help_
    assert "-I FORWARD 1 -i cvd-+ ! -o cvd-+ -j ACCEPT" in help_
    docker = changed(chains=DOCKER)(LEFT(patients.healthy(tmp_path)))
    patients.write(tmp_path, {"sys/class/net/br-lan/mtu": "1500"})
    assert 'oifname "br-lan" counter accept' in (findings(docker)["forward drop"].help or "")


def test_the_doctor_says_how_this_host_is_set_up(tmp_path: Path) -> None:
    facts = replace(patients.healthy(tmp_path), chains=DOCKER, setup="sudo cfctl host setup --instances 4")
    assert findings(facts)["forward drop"].help == "sudo cfctl host setup --instances 4"
