"""Why a host cannot draw on hardware, and what would mend that: the most telling reason first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.gpu import groups, renderers, vendors

if TYPE_CHECKING:
    from cfctl.gpu.drivers import GlesDisplay, VulkanDevice
    from cfctl.gpu.facts import Facts, PciGpu, RenderNode
    from cfctl.gpu.probe import Probe
    from cfctl.gpu.renderers import Kind
    from cfctl.gpu.vendors import Vendor

#: Values of LIBGL_ALWAYS_SOFTWARE that Mesa reads as no.
_NO = ("0", "false", "no", "n", "f")


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing.

    :param why: one sentence without a full stop.
    :param help: what mends it, None where nothing does.
    """

    why: str
    help: str | None


def best_gpu(probe: Probe) -> VulkanDevice | None:
    """Return the best hardware Vulkan device that draws: a discrete one before an integrated one."""
    usable = [
        device for device in probe.vulkan.devices if renderers.vulkan_kind(device) == "hardware" and device.graphics
    ]
    return min(usable, key=lambda device: device.type != "discrete", default=None)


def best_display(probe: Probe) -> GlesDisplay | None:
    """Return the EGL display with the best renderer: hardware, then virtual, then software."""
    order = ("hardware", "virtual", "software")
    return min(probe.egl.displays, key=lambda display: order.index(renderers.gles_kind(display)), default=None)


def gles_kind(probe: Probe) -> Kind | None:
    """Return who draws OpenGL ES at best, None where nobody does."""
    display = best_display(probe)
    return renderers.gles_kind(display) if display else None


def gles_renderer(probe: Probe) -> str:
    """Return the name of who draws OpenGL ES at best."""
    display = best_display(probe)
    return display.renderer if display else "nobody"


def hardware_gles(probe: Probe) -> Lack | None:
    """Return why no GPU draws OpenGL ES here, or None if one does."""
    kind = gles_kind(probe)
    if kind == "hardware":
        return None
    if kind == "virtual":
        why = f"OpenGL ES is drawn by {gles_renderer(probe)}, a GPU that another machine lends"
        return Lack(why, "Pass a real GPU through to this virtual machine.")
    return any_gpu_gles(probe)


def any_gpu_gles(probe: Probe) -> Lack | None:
    """Return why OpenGL ES is drawn on the CPU or not at all, or None if any GPU, real or lent, draws it."""
    kind = gles_kind(probe)
    if kind in ("hardware", "virtual"):
        return None
    if not probe.egl.library:
        why = "the library libEGL.so.1 cannot be loaded"
    elif kind == "software":
        why = f"OpenGL ES is drawn on the CPU, by {gles_renderer(probe)}"
    else:
        why = f"nothing draws OpenGL ES: {probe.egl.problem}"
    return _explain(probe.facts, why)


def hardware_vulkan(probe: Probe) -> Lack | None:
    """Return why no GPU draws Vulkan here, or None if one does."""
    if best_gpu(probe):
        return None
    devices = probe.vulkan.devices
    if not probe.vulkan.library:
        return vulkan_library(probe)
    if compute := next((d for d in devices if renderers.vulkan_kind(d) == "hardware"), None):
        return _explain(probe.facts, f"{compute.name} computes in Vulkan, but does not draw")
    if unclear := next((d for d in devices if d.type == "other"), None):
        return _explain(probe.facts, f"nothing but a name is known of the Vulkan device {unclear.name}")
    if lent := next((d for d in devices if renderers.vulkan_kind(d) == "virtual"), None):
        why = f"Vulkan is drawn by {lent.name}, a GPU that another machine lends"
        return Lack(why, "Pass a real GPU through to this virtual machine.")
    if devices:
        return _explain(probe.facts, f"Vulkan is drawn on the CPU, by {devices[0].name}")
    return _explain(probe.facts, f"nothing draws Vulkan: {probe.vulkan.problem}")


def vulkan_library(probe: Probe) -> Lack | None:
    """Return that the Vulkan loader is missing, or None if it is there."""
    if probe.vulkan.library:
        return None
    return Lack(
        "the library libvulkan.so.1 cannot be loaded", f"Install it: {vendors.load()['software'].install_command()}"
    )


def _explain(facts: Facts, why: str) -> Lack:
    """Add to ``why`` what the kernel's files tell about the cause, and what mends it."""
    causes = [*(_gpu(facts, gpu) for gpu in facts.gpus), *(_node(node) for node in facts.nodes)]
    found = [cause for cause in causes if cause is not None]
    if found and (trap := _trap(facts)):
        found.insert(0, trap)
    if found:
        return Lack(f"{why}: {found[0].why}", found[0].help)
    if facts.container:
        flags = dict.fromkeys(vendor.container_flags for vendor in vendors.load().values() if vendor.container_flags)
        return Lack(f"{why}: no GPU is visible in this container", f"Start it with {', or '.join(flags)}")
    return Lack(f"{why}: this host has no GPU", "Use a host with an NVIDIA, AMD or Intel GPU.")


def _trap(facts: Facts) -> Lack | None:
    """Return the environment variable that forces software, if one does."""
    values = dict(facts.environment)
    if values.get("LIBGL_ALWAYS_SOFTWARE", "0").lower() not in _NO:
        name = "LIBGL_ALWAYS_SOFTWARE"
    elif values.get("GALLIUM_DRIVER", "").lower() in ("llvmpipe", "softpipe"):
        name = "GALLIUM_DRIVER"
    else:
        return None
    return Lack(f"{name}={values[name]} in the environment asks for it", f"Take it away: unset {name}")


def _gpu(facts: Facts, gpu: PciGpu) -> Lack | None:
    """Return what keeps one GPU from drawing; None for an adapter that cannot draw anyway."""
    vendor = vendors.load()[gpu.vendor] if gpu.vendor else None
    if vendor is None or not vendor.draws:
        return None
    what = f"the {vendor.name} GPU {gpu.address}"
    if gpu.driver is None:
        return Lack(f"{what} has no kernel driver", vendor.hints["no_driver"])
    if gpu.driver == "vfio-pci":
        return Lack(
            f"{what} is set aside for a virtual machine (driver vfio-pci)",
            f"Give it back to the host: echo {gpu.address} > /sys/bus/pci/drivers/vfio-pci/unbind",
        )
    if gpu.driver in vendor.bad_drivers:
        return Lack(vendor.bad_drivers[gpu.driver], vendor.hints["no_driver"])
    if vendor.key == "nvidia" and _nvidia_mismatch(facts):
        why = f"NVIDIA's kernel driver is {facts.nvidia_kernel}, its libraries are {facts.nvidia_library}"
        return Lack(why, "Load the driver that belongs to the libraries: reboot")
    if vendor.key == "nvidia" and facts.nvidia_device in ("missing", "not permitted"):
        if facts.container:
            return Lack(f"{what} was not given to this container", f"Start it with {vendor.container_flags}")
        return Lack(f"/dev/nvidiactl is {facts.nvidia_device}", "Make it: sudo nvidia-modprobe -u -c=0")
    if gpu.node is None:
        return Lack(f"{what} has no render node in /dev/dri", vendor.hints["no_render_node"])
    if not gpu.node.usable:
        return _node(gpu.node)
    return Lack(f"{what} is there, but its libraries are not", _install(vendor))


def _node(node: RenderNode) -> Lack:
    """Return what keeps a render node from being used; boards with an ARM GPU have one without a PCI device."""
    if not node.usable:
        # Whether the user is in it is `gpu probe`'s to say; reading /etc/group twice would not change the advice.
        help_ = groups.opening(node.path, node.group, 0o660, member=False, listed=False)
        return Lack(f"this user may not open {node.path}", help_)
    mesa = vendors.load()["virtio"]
    return Lack(f"there is a GPU at {node.path}, but no driver library for it", f"Install: {mesa.install_command()}")


def _nvidia_mismatch(facts: Facts) -> bool:
    versions = (facts.nvidia_kernel, facts.nvidia_library)
    return None not in versions and versions[0] != versions[1]


def _install(vendor: Vendor) -> str:
    return f"{vendor.hints['software']} Install: {vendor.install_command()}"
