"""What this distribution calls its packages, for messages that say how to mend a host."""

from __future__ import annotations

import functools
from pathlib import Path

#: Program (or library) -> package, Debian's name and the RPM world's (host_resources.md section 6).
_PACKAGES = {
    "adb": ("adb", "android-tools"),
    "bridge": ("iproute2", "iproute"),
    "dnsmasq": ("dnsmasq-base", "dnsmasq"),
    "dpkg-deb": ("dpkg", "dpkg"),
    "ip": ("iproute2", "iproute"),
    "modprobe": ("kmod", "kmod"),
    "iptables": ("iptables", "iptables-nft"),
    "nft": ("nftables", "nftables"),
    "groupadd": ("passwd", "shadow-utils"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-kvm"),
    "qemu-system-aarch64": ("qemu-system-arm", "qemu-kvm"),
    # On a host of another processor, where the RPM world's qemu-kvm is no help.
    "qemu-system-x86_64 for emulation": ("qemu-system-x86", "qemu-system-x86-core"),
    "qemu-system-aarch64 for emulation": ("qemu-system-arm", "qemu-system-aarch64-core"),
    # Libraries of graphics, and a device of QEMU's.
    "libEGL.so.1": ("libegl1", "libglvnd-egl"),
    "libGL.so.1": ("libgl1", "libglvnd-glx"),
    "libGLESv2.so.2": ("libgles2", "libglvnd-gles"),
    "libgbm.so.1": ("libgbm1", "mesa-libgbm"),
    "libvulkan.so.1": ("libvulkan1", "vulkan-loader"),
    "virtio-gpu-gl-pci": ("qemu-system-modules-opengl", "qemu-device-display-virtio-gpu-pci-gl"),
}


@functools.cache
def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Return the fields of os-release(5); empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def is_debian_like() -> bool:
    """Tell whether packages are installed with apt."""
    release = os_release()
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return bool(family & {"debian", "ubuntu"})


def install_command(program: str) -> str:
    """Return the command that installs ``program`` on this distribution."""
    debian, rpm = _PACKAGES.get(program, (program, program))
    if is_debian_like():
        return f"apt-get install --no-install-recommends {debian}"
    return f"dnf install {rpm}"
