"""What the kernel's files say about this host's graphics: cheap, harmless, and without loading any driver.

Nothing here raises: a file that is missing or unreadable is itself a fact. Kernel documentation:
``sysfs-bus-pci``, ``gpu/drm-uapi`` (render nodes).
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.gpu import vendors

if TYPE_CHECKING:
    from collections.abc import Mapping

#: PCI base class 03: display controller (VGA, 3D, other), pci.ids.
_CLASS_DISPLAY = 0x03

#: A virtio device counts only if it is the GPU (virtio 1.2, section 5: 0x1040 plus the device id, 16).
_VIRTIO_VENDOR, _VIRTIO_GPU = 0x1AF4, 0x1050

#: Variables that silently change which driver draws.
_TRAPS = (
    "LIBGL_ALWAYS_SOFTWARE",
    "GALLIUM_DRIVER",
    "MESA_LOADER_DRIVER_OVERRIDE",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LOADER_DRIVERS_DISABLE",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_ADD_DRIVER_FILES",
    "MESA_VK_DEVICE_SELECT",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "NVIDIA_DRIVER_CAPABILITIES",
)


@dataclass(frozen=True, slots=True)
class RenderNode:
    """A device file that programs draw through.

    :param path: as programs open it, ``/dev/dri/renderD128``.
    :param usable: this process may read and write it.
    :param group: the group that may, by name or number.
    """

    path: str
    usable: bool
    group: str


@dataclass(frozen=True, slots=True)
class PciGpu:
    """A display controller on the PCI bus.

    :param address: for example ``0000:01:00.0``.
    :param vendor: key of the profile (``nvidia``), None for an unknown maker.
    :param driver: the kernel driver that is bound, None without one.
    :param node: its render node, None without one.
    """

    address: str
    vendor_id: int
    device_id: int
    vendor: str | None
    driver: str | None
    node: RenderNode | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that could be read.

    :param arch: ``uname -m``.
    :param kernel: ``uname -r``.
    :param kvm: ``usable``, ``not permitted`` or ``missing``.
    :param container: this process runs in a container.
    :param nvidia_device: ``/dev/nvidiactl``, which all programs open: as ``kvm``; None without the driver.
    :param nvidia_kernel: version of NVIDIA's loaded kernel driver.
    :param nvidia_library: version of NVIDIA's installed libraries.
    :param environment: variables that change which driver draws.
    """

    arch: str
    kernel: str
    kvm: str = "usable"
    container: bool = False
    gpus: tuple[PciGpu, ...] = ()
    nodes: tuple[RenderNode, ...] = ()
    nvidia_device: str | None = None
    nvidia_kernel: str | None = None
    nvidia_library: str | None = None
    environment: tuple[tuple[str, str], ...] = ()


def read(
    sysroot: Path = Path("/"),
    *,
    environ: Mapping[str, str] = os.environ,
    uname: os.uname_result | None = None,
) -> Facts:
    """Read all facts.

    :param sysroot: where ``sys``, ``proc`` and ``dev`` are; another one in tests.
    """
    uname = uname or os.uname()
    nodes = {path.name: _node(path) for path in sorted((sysroot / "dev/dri").glob("renderD*"))}
    return Facts(
        arch=uname.machine,
        kernel=uname.release,
        kvm=_device(sysroot / "dev/kvm"),
        container=any((sysroot / mark).exists() for mark in (".dockerenv", "run/.containerenv")),
        gpus=tuple(_gpus(sysroot, nodes)),
        nodes=tuple(nodes.values()),
        nvidia_device=_device(sysroot / "dev/nvidiactl") if (sysroot / "proc/driver/nvidia").exists() else None,
        nvidia_kernel=_nvidia_kernel(sysroot),
        nvidia_library=_nvidia_library(sysroot, uname.machine),
        environment=tuple((name, environ[name]) for name in _TRAPS if environ.get(name)),
    )


def _gpus(sysroot: Path, nodes: Mapping[str, RenderNode]) -> list[PciGpu]:
    by_address = {(sysroot / f"sys/class/drm/{name}/device").resolve().name: node for name, node in nodes.items()}
    found = []
    for device in sorted((sysroot / "sys/bus/pci/devices").glob("*")):
        kind, vendor_id, device_id = (_hex(device / name) for name in ("class", "vendor", "device"))
        is_virtio_gpu = (vendor_id, device_id) == (_VIRTIO_VENDOR, _VIRTIO_GPU)
        if kind >> 16 != _CLASS_DISPLAY and not is_virtio_gpu:
            continue
        vendor = vendors.by_pci(vendor_id)
        driver = device / "driver"
        found.append(
            PciGpu(
                address=device.name,
                vendor_id=vendor_id,
                device_id=device_id,
                vendor=vendor.key if vendor else None,
                driver=driver.resolve().name if driver.is_symlink() else None,
                # A virtio device's DRM node hangs below the virtio bus: .../0000:00:02.0/virtio0.
                node=by_address.get(device.name) or _virtio_node(device, by_address),
            )
        )
    return found


def _virtio_node(device: Path, by_address: Mapping[str, RenderNode]) -> RenderNode | None:
    return next((by_address[path.name] for path in device.glob("virtio*") if path.name in by_address), None)


def _node(path: Path) -> RenderNode:
    group = "unknown"
    with contextlib.suppress(OSError):
        gid = path.stat().st_gid
        group = str(gid)
        with contextlib.suppress(KeyError):
            group = grp.getgrgid(gid).gr_name
    return RenderNode(f"/dev/dri/{path.name}", os.access(path, os.R_OK | os.W_OK), group)


def _device(path: Path) -> str:
    if not path.exists():
        return "missing"
    return "usable" if os.access(path, os.R_OK | os.W_OK) else "not permitted"


def _nvidia_kernel(sysroot: Path) -> str | None:
    with contextlib.suppress(OSError):
        text = (sysroot / "proc/driver/nvidia/version").read_text(errors="replace")
        if match := re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE):
            return match[1]
    return None


def _nvidia_library(sysroot: Path, machine: str) -> str | None:
    """Return the version in the name of the library that NVIDIA's EGL and Vulkan both load."""
    for directory in (f"usr/lib/{machine}-linux-gnu", f"usr/lib/{machine}-linux-gnu/nvidia/current", "usr/lib64"):
        for file in (sysroot / directory).glob("libnvidia-glcore.so.*"):
            version = file.name.removeprefix("libnvidia-glcore.so.")
            if "." in version:
                return version
    return None


def _hex(path: Path) -> int:
    try:
        return int(path.read_text(), 16)
    except (OSError, ValueError):
        return 0
