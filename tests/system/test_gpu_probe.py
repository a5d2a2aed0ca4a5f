"""The probe with real drivers: Mesa's on the CPU, and libraries that hang or crash whoever loads them."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cfctl import process
from cfctl.gpu.probe import libraries
from tests.schemas import conforms
from tests.system.sandbox import REPO, Sandbox


def probe(*flags: str, **environ: str) -> dict[str, Any]:
    """Run ``cfctl gpu probe --json`` on this machine and return the document."""
    done = process.run(
        [sys.executable, "-m", "cfctl", "gpu", "probe", "--json", *flags],
        timeout=40,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), **environ},
    )
    document: dict[str, Any] = json.loads(done.stdout)
    conforms(document, "gpu")
    return document


def names(document: dict[str, Any], seen_by: str) -> list[str]:
    return [device["name"] for device in document["devices"] if device["seen_by"] == seen_by]


def has_gpu() -> bool:
    return any(Path("/dev/dri").glob("renderD*")) or Path("/proc/driver/nvidia/version").exists()


def library(name: str) -> Path:
    """Return the file behind a shared library."""
    paths = process.run(["ldconfig", "-p"], timeout=10).stdout.splitlines()
    return Path(next(line.rpartition("=> ")[2] for line in paths if line.strip().startswith(name))).resolve()


def test_mesa_on_the_cpu() -> None:
    document = probe()
    vulkan, egl = names(document, "vulkan"), names(document, "egl")
    assert any("llvmpipe" in name for name in vulkan), document
    assert any("llvmpipe" in name for name in egl) or has_gpu(), document
    assert document["findings"] == [] or has_gpu() or document["host"]["kvm"] != "usable"


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_a_machine_with_llvmpipe_alone_gets_guest_swiftshader_and_hears_why() -> None:
    document = probe()
    assert document["mode"] == "guest_swiftshader"
    assert document["reason"].startswith("OpenGL ES is drawn on the CPU, by llvmpipe")
    gfxstream = next(verdict for verdict in document["modes"] if verdict["mode"] == "gfxstream")
    assert not gfxstream["works"]
    assert gfxstream["help"]


def test_no_vulkan_driver(tmp_path: Path) -> None:
    document = probe(VK_DRIVER_FILES=str(tmp_path / "none.json"), VK_ICD_FILENAMES=str(tmp_path / "none.json"))
    assert names(document, "vulkan") == []
    assert any(finding.startswith("vkCreateInstance: no driver that fits") for finding in document["findings"])


def test_a_broken_vulkan_driver(tmp_path: Path) -> None:
    manifest = tmp_path / "broken.json"
    # A real library that is no Vulkan driver.
    driver = {"library_path": ctypes.util.find_library("c"), "api_version": "1.3.0"}
    manifest.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": driver}))
    document = probe(VK_DRIVER_FILES=str(manifest), VK_ICD_FILENAMES=str(manifest))
    assert names(document, "vulkan") == []


def test_a_library_that_crashes_its_loader(tmp_path: Path) -> None:
    # Its headers promise more bytes than the file has: touching them is SIGBUS.
    whole = library("libvulkan.so.1").read_bytes()
    (tmp_path / "libvulkan.so.1").write_bytes(whole[:8192])
    document = probe(LD_LIBRARY_PATH=str(tmp_path))
    assert any(finding.startswith("the Vulkan driver crashed: signal ") for finding in document["findings"])
    assert names(document, "egl"), "the other stack is not hurt"


def test_a_library_that_hangs_its_loader(tmp_path: Path) -> None:
    # Opening a pipe that nobody writes to waits for ever.
    os.mkfifo(tmp_path / "libvulkan.so.1")
    code = (
        "import json\n"
        "from cfctl.gpu import decide, probe, report\n"
        "found = probe.probe(deadline=5.0)\n"
        "print(json.dumps(report.document(found, decide.decide(found))))\n"
    )
    done = process.run(
        [sys.executable, "-c", code],
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "LD_LIBRARY_PATH": str(tmp_path)},
    )
    document = json.loads(done.stdout)
    assert "the Vulkan driver hangs: it gave no answer within 5 s" in document["findings"]
    assert names(document, "egl"), "the other stack is not hurt"
    assert document["mode"] == "guest_swiftshader" or has_gpu()


def manifest(directory: Path, driver: Path) -> Path:
    """Register a Vulkan driver."""
    file = directory / "icd.json"
    file.write_text(
        json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": str(driver), "api_version": "1.3.0"}})
    )
    return file


def test_a_driver_that_crashes_has_a_name(tmp_path: Path) -> None:
    driver = tmp_path / "libvulkan_bad.so"
    driver.write_bytes(library("libvulkan.so.1").read_bytes()[:8192])
    file = manifest(tmp_path, driver)
    document = probe(VK_DRIVER_FILES=str(file), VK_ICD_FILENAMES=str(file))
    assert any(finding.startswith("the Vulkan driver crashed: signal ") for finding in document["findings"])
    crashed = next(item for item in document["libraries"] if item["name"] == str(file))
    assert crashed["error"].startswith("the program that loads it crashed: signal ")
    assert names(document, "egl"), "the other stack is not hurt"


def test_a_driver_that_hangs_has_a_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "libvulkan_bad.so")
    file = manifest(tmp_path, tmp_path / "libvulkan_bad.so")
    found = libraries(deadline=3.0, env={"PATH": os.environ["PATH"], "VK_DRIVER_FILES": str(file)})
    assert found[-1].name == str(file)
    assert found[-1].error == "the program that loads it hangs: it gave no answer within 3 s"


def test_the_package_s_detector_and_images(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("launch_cvd", "crosvm"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    (tmp_path / "android-info.txt").write_text("gfxstream=supported\n")
    detector = tmp_path / "bin/graphics_detector"
    detector.write_text("#!/bin/sh\nkill -SEGV $$\n")
    detector.chmod(0o755)
    document = probe("--host-package", str(tmp_path))
    assert (
        f"graphics_detector crashed: signal 11 (SIGSEGV) ({detector}); cfctl's own probe counts"
        in (document["findings"])
    )
    assert any("llvmpipe" in name for name in names(document, "vulkan"))
    # One that gets nothing: the package's programs would get nothing either.
    detector.write_text("#!/bin/sh\necho 'vulkan_loader_available: true'\n")
    document = probe("--host-package", str(tmp_path))
    assert names(document, "vulkan") == names(document, "egl") == []
    assert document["reason"].startswith("nothing draws OpenGL ES: the host package's graphics_detector")
    assert document["guest"]["gfxstream"]


def test_libraries_and_drivers() -> None:
    document = probe()
    loaded = {item["name"]: item["error"] for item in document["libraries"]}
    assert loaded["libEGL.so.1"] is None
    assert loaded["libvulkan.so.1"] is None
    assert any("lvp_icd" in name and error is None for name, error in loaded.items())


def test_qemu_is_asked_for_its_devices() -> None:
    document = probe("--vm-manager", "qemu_cli")
    gfxstream = next(
        verdict for verdict in document["modes"] if verdict["mode"] == "gfxstream_guest_angle_host_lavapipe"
    )
    # Debian builds QEMU without gfxstream; another build may have it.
    assert (
        gfxstream["works"]
        or gfxstream["why"] == "the installed QEMU lacks gfxstream (the device virtio-gpu-rutabaga)"
    )


def test_no_libraries_at_all(tmp_path: Path) -> None:
    for name in ("libvulkan.so.1", "libEGL.so.1"):
        (tmp_path / name).write_text("this is no library\n")
    document = probe(LD_LIBRARY_PATH=str(tmp_path))
    assert document["mode"] == "guest_swiftshader"
    assert document["reason"].startswith("the library libEGL.so.1 cannot be loaded")
    assert document["devices"] == [] or has_gpu()


def test_an_ordinary_user(sandbox: Sandbox) -> None:
    document = sandbox.json("gpu", "probe", user="tester")
    conforms(document, "gpu")
    assert any("llvmpipe" in name for name in names(document, "vulkan"))


def test_the_wheel_brings_the_profiles(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        REPO,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache"),
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    flags = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *flags, "-w", tmp_path, source], check=True, timeout=120, capture_output=True)
    (wheel,) = tmp_path.glob("cfctl-*.whl")
    subprocess.run(
        [*pip, "install", *flags, "--target", tmp_path / "there", wheel], check=True, timeout=120, capture_output=True
    )
    code = "from cfctl.gpu import vendors; print(*vendors.load())"
    done = process.run(
        [sys.executable, "-c", code],
        timeout=30,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "there")},
    )
    assert done.stdout.split() == ["amd", "intel", "nvidia", "software", "virtio"]
