"""Kinds of machine as cfctl's probe sees them.

RECORDED ones were taken down from a real machine by ``cfctl gpu probe``. CONSTRUCTED ones were put together from
documentation, because no such machine was at hand: names and numbers are as such drivers give them. SOURCES names it,
machine by machine.
"""

from __future__ import annotations

from dataclasses import replace

from cfctl.gpu import guest
from cfctl.gpu.drivers import Egl, GlesDisplay, Vulkan, VulkanDevice
from cfctl.gpu.facts import Facts, PciGpu, RenderNode
from cfctl.gpu.probe import Probe

#: A guest of today, one without gfxstream, and cfctl's own.
MODERN = guest.assumed(gfxstream=True)
OLD = guest.assumed(gfxstream=False)
EMBEDDED = guest.Guest(
    source="android-info.txt",
    known=True,
    candidates=("guest_swiftshader", "none"),
    only=("guest_swiftshader", "guest_lavapipe", "none"),
)

UBUNTU_6_8 = "6.8.0-45-generic"
FEDORA_6_13 = "6.13.4-200.fc41.x86_64"
DEBIAN_7_1 = "7.1.0+deb14-amd64"

NODE = RenderNode("/dev/dri/renderD128", usable=True, group="render")
LOCKED_NODE = replace(NODE, usable=False)

LLVMPIPE_VULKAN = VulkanDevice("llvmpipe (LLVM 15.0.6, 256 bits)", "cpu", 0x10005, "0.0.1", "1.3.230")
LLVMPIPE_GLES = GlesDisplay(
    "surfaceless", "Mesa/X.org", "llvmpipe (LLVM 15.0.6, 256 bits)", "OpenGL ES 3.2 Mesa 22.3.6"
)
NO_DISPLAY = "no EGL display can be used: eglInitialize: EGL_NOT_INITIALIZED"


def facts(kernel: str = UBUNTU_6_8, *gpus: PciGpu, arch: str = "x86_64") -> Facts:
    return Facts(arch, kernel, gpus=gpus, nodes=tuple(gpu.node for gpu in gpus if gpu.node))


def gpu(vendor: str, vendor_id: int, device_id: int, driver: str | None, node: RenderNode | None = NODE) -> PciGpu:
    return PciGpu("0000:01:00.0", vendor_id, device_id, vendor, driver, node)


def probe(found: Facts, devices: list[VulkanDevice], displays: list[GlesDisplay]) -> Probe:
    return Probe(found, Vulkan(devices=tuple(devices)), Egl(displays=tuple(displays)))


_NVIDIA_GPU = gpu("nvidia", 0x10DE, 0x2235, "nvidia")
_NVIDIA_VULKAN = VulkanDevice("NVIDIA A40", "discrete", 0x10DE, "550.54.14", "1.3.277")
_NVIDIA_GLES = GlesDisplay("device 0", "NVIDIA Corporation", "NVIDIA A40/PCIe/SSE2", "OpenGL ES 3.2 NVIDIA 550.54.14")
_RADEON_GPU = gpu("amd", 0x1002, 0x73BF, "amdgpu")
_RADEON_VULKAN = VulkanDevice("AMD Radeon RX 6800 (RADV NAVI21)", "discrete", 0x1002, "23.2.1", "1.3.255")
_RADEON_GLES = GlesDisplay("surfaceless", "AMD", "AMD Radeon RX 6800 (radeonsi, navi21, LLVM 15.0.7, DRM 3.54)")
_INTEL_GPU = gpu("intel", 0x8086, 0x3E92, "i915")
_INTEL_VULKAN = VulkanDevice("Intel(R) UHD Graphics 630 (CFL GT2)", "integrated", 0x8086, "23.2.1", "1.3.255")
_INTEL_GLES = GlesDisplay("surfaceless", "Intel", "Mesa Intel(R) UHD Graphics 630 (CFL GT2)")
_VIRTIO_GPU = gpu("virtio", 0x1AF4, 0x1050, "virtio-pci")

RECORDED = {
    # A virtual machine without any display adapter, Debian 12 with mesa-vulkan-drivers.
    "llvmpipe only": probe(
        facts("6.18.44"), [LLVMPIPE_VULKAN], [LLVMPIPE_GLES, replace(LLVMPIPE_GLES, display="device 0")]
    ),
}

CONSTRUCTED = {
    "headless nvidia": probe(
        facts(UBUNTU_6_8, _NVIDIA_GPU),
        # Mesa is installed as well: its CPU device comes first in the list, and the surfaceless display is Mesa's.
        [LLVMPIPE_VULKAN, _NVIDIA_VULKAN],
        [LLVMPIPE_GLES, _NVIDIA_GLES],
    ),
    "nvidia, compute only": Probe(
        facts(UBUNTU_6_8, replace(_NVIDIA_GPU, node=None)),
        Vulkan(problem="vkCreateInstance: no driver that fits is installed"),
        Egl(problem=NO_DISPLAY),
    ),
    "nvidia, nouveau": probe(
        facts(UBUNTU_6_8, replace(_NVIDIA_GPU, driver="nouveau")),
        [LLVMPIPE_VULKAN],
        [GlesDisplay("surfaceless", "Mesa", "NV172")],
    ),
    "nvidia, updated without a reboot": Probe(
        replace(facts(UBUNTU_6_8, _NVIDIA_GPU), nvidia_kernel="535.154.05", nvidia_library="550.54.14"),
        Vulkan(problem="vkEnumeratePhysicalDevices: initialisation failed"),
        Egl(problem=NO_DISPLAY),
    ),
    "nvidia, mig slice": probe(
        facts(UBUNTU_6_8, _NVIDIA_GPU),
        [replace(_NVIDIA_VULKAN, name="NVIDIA A100 MIG 1g.5gb", graphics=False)],
        [_NVIDIA_GLES],
    ),
    "nvidia, passed through": probe(
        facts(UBUNTU_6_8, replace(_NVIDIA_GPU, driver="vfio-pci", node=None)), [LLVMPIPE_VULKAN], [LLVMPIPE_GLES]
    ),
    "amd, old kernel": probe(facts(UBUNTU_6_8, _RADEON_GPU), [_RADEON_VULKAN], [_RADEON_GLES]),
    "amd, new kernel": probe(facts(FEDORA_6_13, _RADEON_GPU), [_RADEON_VULKAN], [_RADEON_GLES]),
    "amd, kernel 7": probe(facts(DEBIAN_7_1, _RADEON_GPU), [_RADEON_VULKAN], [_RADEON_GLES]),
    "intel igpu": probe(facts(UBUNTU_6_8, _INTEL_GPU), [_INTEL_VULKAN, LLVMPIPE_VULKAN], [_INTEL_GLES]),
    "intel igpu, not in group render": probe(
        facts(UBUNTU_6_8, replace(_INTEL_GPU, node=LOCKED_NODE)), [LLVMPIPE_VULKAN], [LLVMPIPE_GLES]
    ),
    "old intel without vulkan": probe(
        facts(UBUNTU_6_8, _INTEL_GPU),
        [LLVMPIPE_VULKAN],
        [GlesDisplay("surfaceless", "Intel", "Mesa DRI Intel(R) HD Graphics 4000")],
    ),
    "intel igpu before nvidia": probe(
        facts(UBUNTU_6_8, _INTEL_GPU, _NVIDIA_GPU), [_INTEL_VULKAN, _NVIDIA_VULKAN], [_INTEL_GLES, _NVIDIA_GLES]
    ),
    "arm server, nvidia": probe(
        facts("6.8.0-1013-nvidia-64k", _NVIDIA_GPU, arch="aarch64"), [_NVIDIA_VULKAN], [_NVIDIA_GLES]
    ),
    "arm server, no gpu": probe(
        facts("5.15.0-1060-aws", gpu("software", 0x1A03, 0x2000, "ast", None), arch="aarch64"),
        [LLVMPIPE_VULKAN],
        [LLVMPIPE_GLES],
    ),
    "virtio-gpu with 3d": probe(
        facts(UBUNTU_6_8, _VIRTIO_GPU),
        [VulkanDevice("Virtio-GPU Venus (NVIDIA A40)", "discrete", 0x10DE), LLVMPIPE_VULKAN],
        [GlesDisplay("surfaceless", "Mesa", "virgl (AMD Radeon RX 6800 (radeonsi, navi21))")],
    ),
    "virtio-gpu on a host with llvmpipe": probe(
        facts(UBUNTU_6_8, _VIRTIO_GPU),
        [LLVMPIPE_VULKAN],
        [GlesDisplay("surfaceless", "Mesa", "virgl (LLVMPIPE (LLVM 15.0.7, 256 bits))")],
    ),
    "nothing at all": Probe(
        facts("4.18.0-553.el8_10.x86_64"),
        Vulkan(library=False, problem="libvulkan.so.1: cannot open shared object file"),
        Egl(library=False, problem="libEGL.so.1: cannot open shared object file"),
    ),
    "vulkan driver crashes": Probe(
        facts(UBUNTU_6_8, _NVIDIA_GPU),
        Vulkan(problem="the Vulkan driver crashed: signal 11 (SIGSEGV)"),
        Egl(displays=(_NVIDIA_GLES,)),
    ),
    "both drivers hang": Probe(
        facts(UBUNTU_6_8, _NVIDIA_GPU),
        Vulkan(problem="the Vulkan driver hangs: it gave no answer within 15 s"),
        Egl(problem="the EGL driver hangs: it gave no answer within 15 s"),
    ),
}

ALL = RECORDED | CONSTRUCTED

_VULKANINFO = "vulkan.gpuinfo.org reports of that device (names, types, vendor numbers, versions)"
_MESA = f"{_VULKANINFO}; Mesa's docs/drivers and GL_RENDERER formats of radeonsi, iris, crocus, nouveau, virgl"
_NVIDIA = "NVIDIA Linux driver README (device files, nvidia-drm.modeset, installed components)"

#: Where each constructed machine comes from.
SOURCES = {
    "headless nvidia": f"{_NVIDIA}; {_VULKANINFO}; libglvnd icd_enumeration.md for Mesa beside it",
    "nvidia, compute only": f"{_NVIDIA}; vulkan_core.h (VK_ERROR_INCOMPATIBLE_DRIVER)",
    "nvidia, nouveau": _MESA,
    "nvidia, updated without a reboot": f"{_NVIDIA}, chapter on common problems: API mismatch",
    "nvidia, mig slice": "NVIDIA Multi-Instance GPU User Guide, section on supported APIs: no graphics",
    "nvidia, passed through": "kernel Documentation/driver-api/vfio.rst",
    "amd, old kernel": _MESA,
    "amd, new kernel": f"{_MESA}; kernel release as uname of Fedora 41",
    "amd, kernel 7": f"{_MESA}; kernel release in Debian's form, with a major number after 6",
    "intel igpu": _MESA,
    "intel igpu, not in group render": f"{_MESA}; systemd's 50-udev-default.rules (group render, mode 0660)",
    "old intel without vulkan": _MESA,
    "intel igpu before nvidia": f"{_MESA}; {_NVIDIA}",
    "arm server, nvidia": f"{_NVIDIA}; kernel release as uname of Ubuntu's linux-nvidia-64k",
    "arm server, no gpu": "pci.ids (1a03:2000, ASPEED); kernel release as uname of Ubuntu's linux-aws",
    "virtio-gpu with 3d": "Mesa docs/drivers/virgl and docs/drivers/venus",
    "virtio-gpu on a host with llvmpipe": "Mesa docs/drivers/virgl",
    "nothing at all": "dlopen(3), its message for a library that is not there",
    "vulkan driver crashes": "google/android-riscv64 issue 85 (the probe ends with signal 11)",
    "both drivers hang": "upstream's graphics_detector, which gives each check 15 s",
}
