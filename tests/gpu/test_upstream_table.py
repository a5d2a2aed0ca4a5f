"""The test vectors of upstream's ``auto`` (gpu.md section 2.4), row by row: what upstream gives, what cfctl gives.

Where the two differ the row says why; the differences are those of docs/gpu.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from cfctl.gpu import decide
from cfctl.gpu.drivers import Egl, Vulkan
from cfctl.gpu.guest import Guest
from cfctl.gpu.probe import Probe
from cfctl.gpu.qemu import Qemu
from tests.gpu.machines import ALL, DEBIAN_7_1, MODERN, OLD

SWIFT = "guest_swiftshader"
NVIDIA = ALL["headless nvidia"]
ANGLE = replace(MODERN, candidates=("gfxstream_guest_angle", SWIFT))
VIRGL = replace(MODERN, prefer_virgl=True)
HOST_CPU = replace(MODERN, candidates=("gfxstream_guest_angle", "gfxstream_guest_angle_host_swiftshader", SWIFT))


@dataclass(frozen=True)
class Row:
    """One row.

    :param upstream: what upstream's ``auto`` gives.
    :param ours: what cfctl gives.
    :param why: why it differs; empty where it does not.
    """

    probe: Probe
    guest: Guest
    upstream: str
    ours: str
    why: str = ""
    vm_manager: str = decide.CROSVM


def on_kernel(machine: str, release: str) -> Probe:
    return replace(ALL[machine], facts=replace(ALL[machine].facts, kernel=release))


ROWS = {
    "x86, NVIDIA, all fine": Row(NVIDIA, MODERN, "gfxstream", "gfxstream"),
    "no Vulkan driver": Row(
        replace(NVIDIA, vulkan=Vulkan(problem="the Vulkan loader lists no device")),
        MODERN,
        SWIFT,
        "drm_virgl",
        "hardware OpenGL ES is used",
    ),
    "no Vulkan library": Row(
        replace(NVIDIA, vulkan=Vulkan(library=False)), MODERN, SWIFT, "drm_virgl", "hardware OpenGL ES is used"
    ),
    "no gfxstream line": Row(NVIDIA, OLD, SWIFT, "drm_virgl", "hardware OpenGL ES is used"),
    "AMD, kernel 6.1": Row(on_kernel("amd, old kernel", "6.1.0-18-amd64"), MODERN, "gfxstream", "gfxstream"),
    "AMD, kernel 6.1, angle": Row(on_kernel("amd, old kernel", "6.1.0-18-amd64"), ANGLE, SWIFT, SWIFT),
    "AMD, Ubuntu 6.14, angle": Row(
        on_kernel("amd, old kernel", "6.14.0-27-generic"), ANGLE, "gfxstream_guest_angle", "gfxstream_guest_angle"
    ),
    "AMD, Fedora 6.13, angle": Row(
        ALL["amd, new kernel"], ANGLE, SWIFT, "gfxstream_guest_angle", "kernel versions are compared as versions"
    ),
    "AMD, kernel 7.1, angle": Row(
        on_kernel("amd, old kernel", DEBIAN_7_1), ANGLE, SWIFT, "gfxstream_guest_angle", "7.1 is newer than 6.13"
    ),
    "Intel iGPU": Row(ALL["intel igpu"], MODERN, SWIFT, "gfxstream", "integrated GPUs count"),
    "discrete in second place": Row(
        ALL["intel igpu before nvidia"], MODERN, SWIFT, "gfxstream", "all devices are judged"
    ),
    "llvmpipe only": Row(ALL["llvmpipe only"], MODERN, SWIFT, SWIFT),
    "llvmpipe only, prefers virgl": Row(
        ALL["llvmpipe only"], VIRGL, "drm_virgl", SWIFT, "a renderer on the CPU is no reason to leave the guest's own"
    ),
    "arm64 + NVIDIA": Row(ALL["arm server, nvidia"], MODERN, SWIFT, SWIFT),
    "arm64 + any GLES, prefers virgl": Row(
        ALL["arm server, nvidia"], VIRGL, "drm_virgl", SWIFT, "ARM is accelerated only when a person asks"
    ),
    "QEMU + NVIDIA": Row(
        replace(NVIDIA, qemu=Qemu(gfxstream=True, virgl=True)),
        MODERN,
        "gfxstream",
        "gfxstream",
        vm_manager=decide.QEMU,
    ),
    "a distribution's QEMU + NVIDIA": Row(
        replace(NVIDIA, qemu=Qemu(virgl=True)),
        MODERN,
        "gfxstream",
        "drm_virgl",
        "this QEMU has no gfxstream: the VM would not start",
        vm_manager=decide.QEMU,
    ),
    "nothing answers": Row(
        replace(NVIDIA, vulkan=Vulkan(problem="crashed"), egl=Egl(problem="crashed")), MODERN, SWIFT, SWIFT
    ),
    "no GPU, libvulkan present, host's CPU": Row(
        ALL["llvmpipe only"],
        HOST_CPU,
        "gfxstream_guest_angle_host_swiftshader",
        "gfxstream_guest_angle_host_swiftshader",
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_row(row: Row) -> None:
    assert decide.decide(row.probe, guest=row.guest, vm_manager=row.vm_manager).mode == row.ours
    assert (row.upstream != row.ours) is bool(row.why)
