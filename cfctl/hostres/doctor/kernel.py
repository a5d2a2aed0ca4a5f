"""The kernel: its version, its modules, KVM, and what it can do with packets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.arch import ARCHES
from cfctl.hostres.doctor.finding import Finding, Mend, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts

#: The oldest that upstream's launcher accepts (host_configuration.cpp).
_OLDEST = (4, 8)


@dataclass(frozen=True, slots=True)
class _Module:
    """A module that devices need.

    :param name: as modprobe wants it.
    :param option: of the kernel's configuration.
    :param why: what for.
    :param missing: how bad it is without.
    :param node: a device file that stands for it: opening it loads the module.
    :param on_demand: the kernel loads it by itself when it is first used.
    """

    name: str
    option: str
    why: str
    missing: Result = "fail"
    node: str | None = None
    on_demand: bool = False


_MODULES = (
    _Module(
        "vhost_vsock",
        "CONFIG_VHOST_VSOCK",
        "ADB, the modem and the logs of a device reach it through vsock.",
        node="dev/vhost-vsock",
    ),
    _Module(
        "vhost_net",
        "CONFIG_VHOST_NET",
        "The guest's network runs in the kernel instead of in the VM's process: faster.",
        missing="warn",
        node="dev/vhost-net",
    ),
    _Module("tun", "CONFIG_TUN", "Each device has four tap interfaces.", node="dev/net/tun"),
    _Module("bridge", "CONFIG_BRIDGE", "Two bridges join the taps of all devices.", on_demand=True),
    _Module("nf_tables", "CONFIG_NF_TABLES", "Guests reach the outside by masquerading.", on_demand=True),
)


def checks(facts: Facts) -> Iterator[Finding]:
    """Check the kernel."""
    yield _processor(facts)
    yield _version(facts)
    yield _kvm(facts)
    yield _nested(facts)
    yield from (_module(facts, module) for module in _MODULES)
    yield from _packets(facts)


def _processor(facts: Facts) -> Finding:
    why = "Host packages are made for these processors only."
    if facts.machine in ARCHES:
        return Finding("processor", "ok", facts.machine, why)
    return Finding("processor", "fail", facts.machine, why, f"Use a host with one of: {', '.join(sorted(ARCHES))}")


def _version(facts: Facts) -> Finding:
    why = "The launcher refuses kernels before 4.8."
    match = re.match(r"(\d+)\.(\d+)", facts.kernel)
    if not match:
        return Finding("kernel version", "warn", f"cannot be told from {facts.kernel!r}", why, "Look: uname -r")
    if (int(match[1]), int(match[2])) >= _OLDEST:
        return Finding("kernel version", "ok", facts.kernel, why)
    packages = facts.install(
        "linux-image-generic" if facts.release.get("ID") == "ubuntu" else _image(facts), "kernel"
    )
    return Finding("kernel version", "fail", facts.kernel, why, f"{packages} && sudo reboot")


# -- virtualisation ------------------------------------------------------------------------------------------


def _kvm(facts: Facts) -> Finding:
    why = "Android needs hardware help: without it crosvm does not start, and QEMU takes minutes to boot."
    kvm = facts.kvm
    if kvm.ok:
        return Finding("kvm", "ok", kvm.reason, why)
    if kvm.ok is None and "not installed" in kvm.reason:
        arm = facts.machine == "aarch64"
        qemu = facts.install("qemu-system-arm" if arm else "qemu-system-x86", "qemu-kvm")
        return Finding("kvm", "warn", f"not known: {kvm.reason}", why, qemu)
    if kvm.ok is None:
        return Finding("kvm", "warn", kvm.reason, why, "Start the embedded guest once, then ask again: cfctl launch")
    node = facts.nodes.get("dev/kvm")
    if node is None:
        return Finding("kvm", "fail", kvm.reason, why, _how_to_get_kvm(facts))
    if not node.usable:
        return Finding("kvm", "fail", kvm.reason, why, f"sudo usermod -aG {node.group} {facts.user}")
    if _is_guest(facts):
        help_ = f"This host is itself a virtual machine, and its KVM does not work. {_OUTER}"
    else:
        help_ = "See what the kernel says about it: sudo dmesg | grep -i kvm"
    return Finding("kvm", "fail", kvm.reason, why, help_)


#: Only whoever runs the outer machine can do this.
_OUTER = (
    "Turn nested virtualisation on where it runs (libvirt: <cpu mode='host-passthrough'/>; clouds: a machine type "
    "that offers it, or bare metal)."
)


def _how_to_get_kvm(facts: Facts) -> str:
    if facts.container:
        return facts.container_option("--device /dev/kvm")
    if _is_wsl(facts):
        return "In %UserProfile%\\.wslconfig, section [wsl2]: nestedVirtualization=true; then: wsl --shutdown"
    if facts.machine == "aarch64":
        return "The kernel must be started at EL2; see: sudo dmesg | grep -i 'kvm\\|hyp mode'"
    vendor = _vendor(facts)
    if vendor is None:
        return _OUTER if _is_guest(facts) else "Turn on VT-x (Intel) or SVM (AMD) in the firmware's settings."
    return f"sudo modprobe {vendor}"


def _flags(facts: Facts) -> set[str]:
    match = re.search(r"^flags\s*:(.*)$", facts.read("proc/cpuinfo"), re.MULTILINE)
    return set(match[1].split()) if match else set()


def _is_wsl(facts: Facts) -> bool:
    return "microsoft" in facts.kernel.lower()


def _vendor(facts: Facts) -> str | None:
    flags = _flags(facts)
    return "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else None


def _is_guest(facts: Facts) -> bool:
    return "hypervisor" in _flags(facts)


def _nested(facts: Facts) -> Finding:
    check, why = "nested virtualisation", "Guests that run VMs of their own (protected VMs) need it."
    for module in ("kvm_intel", "kvm_amd"):
        value = facts.read(f"sys/module/{module}/parameters/nested")
        if value in ("Y", "1"):
            return Finding(check, "ok", f"{module} offers it to guests", why)
        if value:
            command = (
                f"echo 'options {module} nested=1' | sudo tee /etc/modprobe.d/cfctl-nested.conf && "
                f"sudo modprobe -r {module} && sudo modprobe {module}"
            )
            return Finding(check, "warn", f"{module} does not offer it to guests", why, command)
    if facts.machine == "aarch64":
        return Finding(check, "ok", "does not apply to this processor", why)
    return Finding(
        check, "warn", "not known: neither kvm_intel nor kvm_amd is loaded", why, "See the finding on kvm."
    )


# -- modules -------------------------------------------------------------------------------------------------


def _module(facts: Facts, module: _Module) -> Finding:
    check = f"module {module.name}"
    if facts.exists(f"sys/module/{module.name}"):
        return Finding(check, "ok", "loaded, or part of the kernel", module.why)
    if module.name in facts.built_in or facts.config.get(module.option) == "y":
        return Finding(check, "ok", "part of the kernel", module.why)
    if module.name not in facts.loadable:
        if module.node and facts.exists(module.node):
            return Finding(check, "ok", f"/{module.node} is there", module.why)
        return _missing(facts, module)
    if module.node and facts.exists(module.node):
        return Finding(check, "ok", f"is loaded when /{module.node} is opened", module.why)
    if module.on_demand:
        return Finding(check, "ok", "is loaded when it is first used", module.why)
    if facts.container:
        return Finding(
            check, module.missing, "not loaded", module.why, f"On the container's host: sudo modprobe {module.name}"
        )
    keep = f"echo {module.name} | sudo tee -a /etc/modules-load.d/cfctl.conf"
    command = f"sudo modprobe {module.name} && {keep}"
    mends = (Mend(("modprobe", module.name)),)
    return Finding(check, module.missing, "there, but not loaded", module.why, command, mends)


def _missing(facts: Facts, module: _Module) -> Finding:
    check, wanted = f"module {module.name}", f"{module.option}=m"
    tree = facts.exists(f"lib/modules/{facts.kernel}")
    lacking = bool(facts.config) and module.option not in facts.config
    if lacking and (facts.container or not tree) and not _is_wsl(facts):
        found, help_ = f"the kernel {facts.kernel} was built without it", f"Boot a kernel that has {wanted}."
    elif facts.container:
        found, help_ = "not loaded, as far as a container can see", f"On its host: sudo modprobe {module.name}"
    elif _is_wsl(facts):
        found = "the kernel of WSL is built without it"
        help_ = f"Build WSL's kernel with {wanted} and name it in .wslconfig: kernel=C:\\\\path\\\\to\\\\bzImage"
    elif not tree:
        found = f"there are no modules for the running kernel {facts.kernel}"
        help_ = f"If the kernel was updated: sudo reboot. Else boot one that has {module.option}."
    else:
        found, help_ = f"the kernel {facts.kernel} does not have it", _kernel_package(facts)
    return Finding(check, module.missing, found, module.why, help_)


def _kernel_package(facts: Facts) -> str:
    """Return the command that installs the modules which a minimal or cloud kernel comes without."""
    if facts.release.get("ID") == "ubuntu":
        return f"sudo apt-get install linux-modules-extra-{facts.kernel}"
    if facts.debian:
        return f"sudo apt-get install {_image(facts)} && sudo reboot"
    return f"sudo dnf install kernel-modules-{facts.kernel} kernel-modules-extra-{facts.kernel}"


def _image(facts: Facts) -> str:
    return f"linux-image-{ARCHES[facts.machine].debian if facts.machine in ARCHES else facts.machine}"


# -- packets -------------------------------------------------------------------------------------------------

_PACKETS: tuple[tuple[str, str, str, Result, str], ...] = (
    ("nft masquerade", "masquerade", "CONFIG_NFT_MASQ", "fail", "Guests reach the outside by masquerading."),
    ("nft bridge", "bridge", "CONFIG_NF_TABLES_BRIDGE", "fail", "Frames between guests are filtered on the bridge."),
    (
        "nft bridge meta",
        "broute",
        "CONFIG_NFT_BRIDGE_META",
        "warn",
        "Only a bridge of your own that is not to carry IPv4 or IPv6 needs it (meta broute: nft 1.0.8, Linux 6.4).",
    ),
)


def _packets(facts: Facts) -> Iterator[Finding]:
    for check, probe, option, bad, why in _PACKETS:
        if facts.probes is not None:
            said = facts.probes.get(probe, "")
            if not said:
                yield Finding(check, "ok", "the kernel and nft accept such rules", why)
            else:
                yield Finding(check, bad, f"refused: {_brief(said)}", why, _newer(facts, said))
        elif facts.config.get(option):
            yield Finding(check, "ok", f"the kernel was built with {option}={facts.config[option]}", why)
        elif facts.config:
            yield Finding(check, bad, f"the kernel was built without {option}", why, _newer(facts, ""))
        elif facts.root:
            yield Finding(
                check, "warn", "not known: nft could not be asked", why, facts.install("nftables", "nftables")
            )
        else:
            yield Finding(check, "warn", "not known: only root may ask", why, "sudo cfctl host doctor")


def _brief(said: str) -> str:
    """Return nft's message without the place in our rule, and without the list of all words that it knows."""
    return said.rpartition("Error: ")[2].partition(", known keys")[0]


def _newer(facts: Facts, said: str) -> str:
    """Return what helps against a refusal: another nft, the right to ask, or another kernel."""
    if "syntax error" in said:
        release = (
            "a release with nft 1.0.8 (Debian 13, Ubuntu 24.04)" if facts.debian else "sudo dnf upgrade nftables"
        )
        return f"Let your bridge carry both, as it does by default; else: {release}"
    if "not permitted" in said:
        if facts.container:
            return facts.container_option("--cap-add NET_ADMIN")
        return "sudo cfctl host doctor"
    if facts.container:
        return "Boot the container's host with a kernel that has it."
    return facts.install(_image(facts), f"kernel kernel-modules-{facts.kernel}") + " && sudo reboot"
