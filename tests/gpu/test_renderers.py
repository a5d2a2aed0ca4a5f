"""Which renderers are the CPU, a lent GPU, or a GPU."""

from __future__ import annotations

import pytest

from cfctl.gpu.drivers import GlesDisplay, VulkanDevice
from cfctl.gpu.renderers import gles_kind, vulkan_kind


@pytest.mark.parametrize(
    ("renderer", "kind"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "software"),
        ("softpipe", "software"),
        ("Software Rasterizer", "software"),
        ("Google SwiftShader", "software"),
        ("ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero)), SwiftShader driver)", "software"),
        ("zink Vulkan 1.3(llvmpipe (LLVM 15.0.6, 256 bits) (MESA_LLVMPIPE))", "software"),
        ("virgl (LLVMPIPE (LLVM 15.0.7, 256 bits))", "software"),
        ("virgl (AMD Radeon RX 6800)", "virtual"),
        ("SVGA3D; build: RELEASE;  LLVM;", "virtual"),
        ("D3D12 (NVIDIA GeForce RTX 3080)", "virtual"),
        ("NVIDIA A40/PCIe/SSE2", "hardware"),
        ("Mesa Intel(R) UHD Graphics 630 (CFL GT2)", "hardware"),
        ("AMD Radeon RX 6800 (radeonsi, navi21, LLVM 15.0.7, DRM 3.54)", "hardware"),
        ("Mali-G610 (Panfrost)", "hardware"),
    ],
)
def test_gles(renderer: str, kind: str) -> None:
    assert gles_kind(GlesDisplay("surfaceless", "Mesa", renderer)) == kind


@pytest.mark.parametrize(
    ("name", "type_", "kind"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "cpu", "software"),
        ("SwiftShader Device (Subzero)", "cpu", "software"),
        ("SwiftShader Device (Subzero)", "other", "software"),
        ("some CPU device", "cpu", "software"),
        ("Virtio-GPU Venus (NVIDIA A40)", "discrete", "virtual"),
        ("anything", "virtual", "virtual"),
        ("anything", "other", "virtual"),
        ("NVIDIA A40", "discrete", "hardware"),
        ("Intel(R) UHD Graphics 630 (CFL GT2)", "integrated", "hardware"),
    ],
)
def test_vulkan(name: str, type_: str, kind: str) -> None:
    assert vulkan_kind(VulkanDevice(name, type_)) == kind
