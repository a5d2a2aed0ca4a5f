"""What goes into the image, and when it is built again."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from cfctl.docker import image
from cfctl.docker.image import Recipe
from cfctl.errors import UsageError


def test_packages_of_debian() -> None:
    packages = Recipe().packages
    assert {"python3", "python3-venv", "iproute2", "nftables", "dnsmasq-base", "openssh-server"} <= set(packages)
    assert "qemu-system-x86" in packages
    assert "qemu-system-arm" in Recipe(arch="aarch64").packages
    assert not {"seabios", "qemu-system-x86"} & set(Recipe(arch="aarch64").packages)


@pytest.mark.parametrize(
    "base", ["rockylinux:9", "registry.example.com/mirror/fedora:42", "registry.example.com/centos/stream9"]
)
def test_packages_of_rhel(base: str) -> None:
    packages = Recipe(base=base, vendor="amd").packages
    assert {"iproute", "dnsmasq", "qemu-kvm", "mesa-vulkan-drivers", "vulkan-loader"} <= set(packages)
    assert not {"iproute2", "dnsmasq-base"} & set(packages)


def test_libraries_of_a_gpu() -> None:
    assert not {"libegl1", "mesa-vulkan-drivers"} & set(Recipe().packages)
    assert {"libegl1", "libvulkan1", "mesa-vulkan-drivers"} <= set(Recipe(vendor="intel").packages)
    # NVIDIA's own must be those of the kernel's driver: the engine brings them.
    nvidia = Recipe(vendor="nvidia").packages
    assert "libvulkan1" in nvidia
    assert not [name for name in nvidia if "nvidia" in name]
    with pytest.raises(UsageError, match="no GPU vendor 'voodoo'"):
        Recipe(vendor="voodoo")


def test_pins_are_what_runs_here() -> None:
    names = [pin.partition("==")[0].lower() for pin in Recipe().pins]
    assert {"typer", "click", "rich", "msgspec"} <= set(names)
    assert not {"docker", "paramiko", "pytest"} & set(names)
    assert all("==" in pin for pin in Recipe().pins)


def test_the_key_follows_from_everything_that_goes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe().key
    assert Recipe().key == before
    (tmp_path / "kernel").write_bytes(b"1")
    keys = {
        before,
        Recipe(base="debian:13").key,
        Recipe(vendor="amd").key,
        Recipe(guest=tmp_path).key,
        Recipe(build_args={"http_proxy": "http://x"}).key,
    }
    (tmp_path / "kernel").write_bytes(b"2")
    keys.add(Recipe(guest=tmp_path).key)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM x")
    monkeypatch.setattr(image, "_CONTEXT", context)
    keys.add(Recipe().key)
    assert len(keys) == 7


def test_what_the_engine_gets() -> None:
    with tarfile.open(fileobj=Recipe().context()) as tar:
        names = set(tar.getnames())
    assert {"Dockerfile", "install", "sshd_config", "share/README"} <= names
    assert {"cfctl/docker/init.py", "cfctl/guest/init", "cfctl/gpu/profiles/nvidia/profile.toml"} <= names
    assert not [name for name in names if "__pycache__" in name]
