"""What the drivers answered: Vulkan devices and EGL displays, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VulkanDevice:
    """A device that the Vulkan loader lists.

    :param type: ``discrete``, ``integrated``, ``virtual``, ``cpu`` or ``other``.
    :param graphics: it has a queue that draws.
    """

    name: str
    type: str
    vendor_id: int = 0
    driver_version: str = ""
    api_version: str = ""
    graphics: bool = True


@dataclass(frozen=True, slots=True)
class GlesDisplay:
    """An EGL display that gave an OpenGL ES context.

    :param display: ``default``, ``surfaceless``, ``device N``, or who else saw it.
    :param renderer: GL_RENDERER: who draws.
    """

    display: str
    vendor: str
    renderer: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Vulkan:
    """What the Vulkan loader says.

    :param library: ``libvulkan.so.1`` can be loaded.
    :param problem: why there is no or not the whole answer.
    """

    library: bool = True
    devices: tuple[VulkanDevice, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Egl:
    """What EGL says.

    :param library: ``libEGL.so.1`` can be loaded.
    :param problem: why there is no or not the whole answer.
    """

    library: bool = True
    displays: tuple[GlesDisplay, ...] = ()
    problem: str | None = None
