"""What the installed QEMU can draw with: ``virtio-gpu-rutabaga`` is gfxstream, ``virtio-gpu-gl-pci`` is virgl."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfctl.gpu.child import Ended

GFXSTREAM_DEVICE = "virtio-gpu-rutabaga"
VIRGL_DEVICE = "virtio-gpu-gl-pci"


@dataclass(frozen=True, slots=True)
class Qemu:
    """The devices of the installed QEMU.

    :param gfxstream: it was built with gfxstream (from 8.2 on; distributions leave it out).
    :param virgl: it has virgl, and the module for it is installed.
    :param problem: why that is not known.
    """

    gfxstream: bool = False
    virgl: bool = False
    problem: str | None = None


def arguments() -> list[str]:
    """Return what makes QEMU list its devices."""
    # Without a machine it needs neither firmware nor an accelerator.
    return ["-machine", "none", "-device", "help"]


def understand(program: str, ended: Ended) -> Qemu:
    """Return what a QEMU that has ended said."""
    if ended.problem is not None:
        return Qemu(problem=f"{program} {ended.problem}")
    devices = set(re.findall(r'^name "([^"]+)"', ended.output, re.MULTILINE))
    if not devices:
        return Qemu(problem=f"{program} lists no devices: {ended.last_line}")
    return Qemu(gfxstream=GFXSTREAM_DEVICE in devices, virgl=VIRGL_DEVICE in devices)
