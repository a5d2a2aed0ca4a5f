"""What kind of machine this is: container, WSL, cgroups, SELinux, AppArmor, the clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.hostres.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts

#: linux/capability.h
_CAP_NET_ADMIN = 12

#: Clock sources that cost a trip out of the VM or to slow hardware at every look (kernel timekeeping documentation).
_SLOW_CLOCKS = {"acpi_pm", "hpet", "jiffies", "refined-jiffies"}

#: No certificate is valid before cfctl itself was written.
_FIRST_YEAR = 2026


def checks(facts: Facts) -> Iterator[Finding]:
    """Check the surroundings."""
    yield _distribution(facts)
    yield from _container(facts)
    yield from _wsl(facts)
    yield _cgroups(facts)
    yield _selinux(facts)
    yield from _apparmor(facts)
    yield _clock(facts)
    yield from _clock_source(facts)


def _distribution(facts: Facts) -> Finding:
    why = "The commands below are this distribution's."
    name = facts.release.get("PRETTY_NAME") or facts.release.get("ID")
    if name:
        return Finding("distribution", "ok", f"{name}: packages by {'apt' if facts.debian else 'dnf'}", why)
    return Finding("distribution", "warn", "not known: there is no /etc/os-release", why, "cat /etc/os-release")


def _container(facts: Facts) -> Iterator[Finding]:
    check, why = "container", "A container cannot load modules, and has the devices and rights that it was given."
    if facts.container is None:
        yield Finding(check, "ok", "this is no container", why)
        return
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", facts.read("proc/self/status"), re.MULTILINE)
    can = bool(match and int(match[1], 16) >> _CAP_NET_ADMIN & 1)
    start = facts.container_option("--cap-add NET_ADMIN")
    if facts.container == "kubernetes":
        start = "In the pod's container: securityContext: {capabilities: {add: [NET_ADMIN]}}"
    if facts.root and not can:
        yield Finding(check, "fail", f"{facts.container}, without CAP_NET_ADMIN", why, start)
    else:
        yield Finding(check, "ok", facts.container, why)
    if facts.read("proc/sys/net/ipv4/ip_forward") == "0" and _read_only_sysctls(facts):
        sysctls = "--sysctl net.ipv4.ip_forward=1 --sysctl net.ipv6.conf.all.forwarding=1"
        yield Finding(
            "forwarding",
            "fail",
            "off, and /proc/sys is read-only",
            "Guests reach the outside through the host, which must forward.",
            facts.container_option(sysctls),
        )


def _read_only_sysctls(facts: Facts) -> bool:
    return bool(re.search(r"^\S+ /proc/sys \S+ ro[, ]", facts.read("proc/mounts"), re.MULTILINE))


def _wsl(facts: Facts) -> Iterator[Finding]:
    if "microsoft" not in facts.kernel.lower():
        return
    check, why = "wsl", "Windows runs this Linux as a VM of its own, with a kernel of its own."
    if "wsl2" not in facts.kernel.lower():
        yield Finding(check, "fail", "WSL 1 has no Linux kernel", why, "In Windows: wsl --set-version DISTRIBUTION 2")
        return
    lines = "nestedVirtualization=true and kernel=PATH of one built with CONFIG_VHOST_VSOCK=y, CONFIG_BRIDGE=y"
    yield Finding(
        check,
        "warn",
        f"WSL 2 ({facts.kernel})",
        why,
        f"In %UserProfile%\\.wslconfig, section [wsl2]: {lines}; then: wsl --shutdown",
    )


def _cgroups(facts: Facts) -> Finding:
    check, why = "cgroups", "They keep one device from taking the memory and processors of the others."
    if facts.exists("sys/fs/cgroup/cgroup.controllers"):
        return Finding(check, "ok", "version 2", why)
    argument = "systemd.unified_cgroup_hierarchy=1"
    if facts.debian:
        command = (
            f"echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {argument}\"' | "
            "sudo tee /etc/default/grub.d/cgroup2.cfg && sudo update-grub && sudo reboot"
        )
    else:
        command = f"sudo grubby --update-kernel=ALL --args={argument} && sudo reboot"
    if any(facts.exists(f"sys/fs/cgroup/{name}") for name in ("memory", "cpu", "unified", "systemd")):
        return Finding(check, "warn", "version 1: devices run, but without limits of their own", why, command)
    return Finding(check, "warn", "not mounted: devices run, but without limits of their own", why, command)


def _selinux(facts: Facts) -> Finding:
    check, why = "selinux", "A confined dnsmasq may not write its pid and lease files where launchers look for them."
    mode = facts.read("sys/fs/selinux/enforce")
    if mode == "1":
        return Finding(
            check,
            "warn",
            "enforcing: started by a service, dnsmasq may be refused its files in /run",
            why,
            "Leave it on. If host setup says that dnsmasq failed: sudo ausearch -m avc -ts recent -c dnsmasq",
        )
    return Finding(check, "ok", "permissive" if mode == "0" else "not in use", why)


def _apparmor(facts: Facts) -> Iterator[Finding]:
    check, why = "apparmor", "A confined dnsmasq may not write its lease files where launchers look for them."
    profile = "etc/apparmor.d/usr.sbin.dnsmasq"
    if facts.read("sys/module/apparmor/parameters/enabled") != "Y" or not facts.exists(profile):
        return
    local = "etc/apparmor.d/local/usr.sbin.dnsmasq"
    if "cuttlefish" in facts.read(local) or "cuttlefish" in facts.read(profile):
        yield Finding(check, "ok", "dnsmasq is confined, with leave for these files", why)
        return
    written = f"{paths.dnsmasq_pid_file('*')} rw,\\n{paths.dnsmasq_lease_file('*')} rw,\\n"
    rules = f"{written}{paths.SYSTEM_RUNTIME}/host/* r,\\n"
    command = f"printf '{rules}' | sudo tee -a /{local} && sudo apparmor_parser -r /{profile}"
    yield Finding(check, "warn", "dnsmasq is confined", why, command)


def _clock(facts: Facts) -> Finding:
    check, why = "clock", "Guests take their time from the host; a wrong one makes certificates invalid."
    command = f"{facts.install('systemd-timesyncd', 'chrony')} && sudo timedatectl set-ntp true"
    if facts.year and facts.year < _FIRST_YEAR:
        return Finding(check, "fail", f"it says that this is {facts.year}", why, command)
    if facts.synchronised is None:
        return Finding(check, "warn", "not known whether it follows a time server", why, "timedatectl")
    if facts.synchronised:
        return Finding(check, "ok", "follows a time server", why)
    if facts.container:
        return Finding(
            check, "warn", "follows no time server", why, "On the container's host: timedatectl set-ntp true"
        )
    return Finding(check, "warn", "follows no time server", why, command)


def _clock_source(facts: Facts) -> Iterator[Finding]:
    source = facts.read("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in _SLOW_CLOCKS:
        yield Finding(
            "clock source",
            "warn",
            f"{source}: every look at the clock is slow",
            "VMs look at the clock all the time.",
            "See why the kernel gave up the processor's own: sudo dmesg | grep -i clocksource",
        )
