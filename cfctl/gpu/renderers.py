"""Who draws: a GPU, a GPU that another machine lends, or the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cfctl.gpu.drivers import GlesDisplay, VulkanDevice

Kind = Literal["hardware", "virtual", "software"]

#: Parts of the names of renderers that run on the CPU. They also show through a layer on top:
#: "virgl (llvmpipe ...)", "zink Vulkan 1.3 (llvmpipe ...)", "ANGLE (Google, Vulkan (SwiftShader Device ...))".
_SOFTWARE = ("llvmpipe", "lavapipe", "softpipe", "swrast", "swiftshader", "software rasterizer", "swr (")

#: Renderers of a virtual machine, which pass the work on to the host around it.
_VIRTUAL = ("virgl", "venus", "virtio-gpu", "svga3d", "d3d12")


def _by_name(name: str) -> Kind:
    lowered = name.lower()
    if any(part in lowered for part in _SOFTWARE):
        return "software"
    return "virtual" if any(part in lowered for part in _VIRTUAL) else "hardware"


def vulkan_kind(device: VulkanDevice) -> Kind:
    """Tell what a Vulkan device is: its type counts first, then its name."""
    if device.type == "cpu":
        return "software"
    kind = _by_name(device.name)
    if kind == "hardware" and device.type not in ("discrete", "integrated"):
        return "virtual"
    return kind


def gles_kind(display: GlesDisplay) -> Kind:
    """Tell what draws on an EGL display; OpenGL ES has only its names to say it."""
    return _by_name(f"{display.renderer} {display.vendor}")
