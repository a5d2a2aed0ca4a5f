"""What is read from the kernel's files, in trees that look like real hosts'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl.gpu import facts
from cfctl.gpu.facts import PciGpu

UNAME = os.uname_result(("Linux", "host", "6.8.0-45-generic", "#1", "x86_64"))


def pci(root: Path, address: str, *, kind: str, vendor: str, device: str, driver: str | None = None) -> Path:
    """Make a PCI device as the kernel shows it."""
    real = root / "sys/devices/pci0000:00" / address
    real.mkdir(parents=True)
    for name, value in (("class", kind), ("vendor", vendor), ("device", device)):
        (real / name).write_text(f"{value}\n")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (real / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(real)
    return real


def render_node(root: Path, name: str, device: Path) -> None:
    """Make a render node of a device."""
    (root / "dev/dri").mkdir(parents=True, exist_ok=True)
    (root / "dev/dri" / name).touch()
    drm = root / "sys/class/drm" / name
    drm.mkdir(parents=True)
    (drm / "device").symlink_to(device)


def read(root: Path, **environ: str) -> facts.Facts:
    return facts.read(root, environ=environ, uname=UNAME)


def only_gpu(found: facts.Facts) -> PciGpu:
    (gpu,) = found.gpus
    return gpu


def test_an_empty_host(tmp_path: Path) -> None:
    assert read(tmp_path) == facts.Facts("x86_64", "6.8.0-45-generic", kvm="missing")


def test_nvidia(tmp_path: Path) -> None:
    device = pci(tmp_path, "0000:01:00.0", kind="0x030200", vendor="0x10de", device="0x2235", driver="nvidia")
    render_node(tmp_path, "renderD128", device)
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    (tmp_path / "usr/lib64").mkdir(parents=True)
    (tmp_path / "usr/lib64/libnvidia-glcore.so.550.67").touch()
    found = read(tmp_path)
    gpu = only_gpu(found)
    assert (gpu.address, gpu.vendor, gpu.driver) == ("0000:01:00.0", "nvidia", "nvidia")
    assert gpu.node is not None
    assert (gpu.node.path, gpu.node.usable) == ("/dev/dri/renderD128", True)
    assert (found.nvidia_kernel, found.nvidia_library) == ("550.54.14", "550.67")


def test_nvidia_s_device_file(tmp_path: Path) -> None:
    assert read(tmp_path).nvidia_device is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    assert read(tmp_path).nvidia_device == "missing"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert read(tmp_path).nvidia_device == "usable"


def test_proprietary_nvidia_module(tmp_path: Path) -> None:
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu Dec 28 15:37:48 UTC 2023\n")
    assert read(tmp_path).nvidia_kernel == "535.154.05"


def test_a_gpu_without_driver_or_node(tmp_path: Path) -> None:
    pci(tmp_path, "0000:03:00.0", kind="0x038000", vendor="0x1002", device="0x73bf")
    gpu = only_gpu(read(tmp_path))
    assert (gpu.vendor, gpu.driver, gpu.node) == ("amd", None, None)


def test_virtio_gpu_hangs_below_the_virtio_bus(tmp_path: Path) -> None:
    device = pci(tmp_path, "0000:00:02.0", kind="0x038000", vendor="0x1af4", device="0x1050", driver="virtio-pci")
    (device / "virtio0").mkdir()
    render_node(tmp_path, "renderD128", device / "virtio0")
    gpu = only_gpu(read(tmp_path))
    assert gpu.vendor == "virtio"
    assert gpu.node is not None


def test_other_devices_are_no_gpus(tmp_path: Path) -> None:
    pci(tmp_path, "0000:00:03.0", kind="0x020000", vendor="0x1af4", device="0x1041", driver="virtio-pci")
    pci(tmp_path, "0000:00:1f.0", kind="0x060100", vendor="0x8086", device="0x7a83")
    assert read(tmp_path).gpus == ()


def test_an_unknown_maker(tmp_path: Path) -> None:
    pci(tmp_path, "0000:05:00.0", kind="0x030000", vendor="0xdead", device="0xbeef")
    assert only_gpu(read(tmp_path)).vendor is None


def test_a_broken_tree_is_no_error(tmp_path: Path) -> None:
    device = pci(tmp_path, "0000:05:00.0", kind="no number", vendor="0x10de", device="0x1")
    (device / "vendor").unlink()
    assert read(tmp_path).gpus == ()


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_container(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    assert read(tmp_path).container


def test_environment(tmp_path: Path) -> None:
    found = read(tmp_path, LIBGL_ALWAYS_SOFTWARE="1", HOME="/root", VK_DRIVER_FILES="")
    assert found.environment == (("LIBGL_ALWAYS_SOFTWARE", "1"),)
