"""Who draws: a GPU, a GPU that another machine lends, or the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cfctl.gpu import vendors

if TYPE_CHECKING:
    from cfctl.gpu.drivers import GlesDisplay, VulkanDevice

Kind = Literal["hardware", "virtual", "software"]


def _by_name(name: str) -> Kind:
    lowered = name.lower()
    makers = vendors.load()
    if any(part in lowered for part in makers["software"].renderers):
        return "software"
    return "virtual" if any(part in lowered for part in makers["virtio"].renderers) else "hardware"


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
