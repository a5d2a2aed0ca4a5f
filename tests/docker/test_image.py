"""What goes into the image, and when it is built again."""

from __future__ import annotations

import subprocess
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


#: Of RHEL's family, by what a base is called; those of Debian's family besides (host_resources.md section 6).
@pytest.mark.parametrize(
    ("base", "rpm"),
    [
        ("rockylinux:9", True),
        ("registry.example.com/mirror/fedora:42", True),
        ("registry.example.com/centos/stream9", True),
        ("registry.example.com/centos/centos:stream10", True),
        ("almalinux:10", True),
        ("registry.example.com/ubi9/ubi", True),
        ("oraclelinux:9-slim", True),
        ("debian:13", False),
        ("ubuntu:24.04", False),
        ("registry.example.com/fedora-lookalikes/debian:12", False),
    ],
)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_packages_of_a_base(base: str, rpm: bool, arch: str) -> None:
    packages = set(Recipe(base=base, vendor="amd", arch=arch).packages)
    own = {"iproute", "dnsmasq", "qemu-kvm", "openssh-server", "procps-ng", "python3.11|python3", "util-linux", "tar"}
    debians = {"iproute2", "dnsmasq-base", "openssh-server", "procps", "python3", "python3-venv"}
    assert (own if rpm else debians) <= packages
    assert not packages & ((debians if rpm else own) - {"openssh-server"})
    assert not [name for name in packages if rpm and name.startswith("qemu-system")]
    assert {"nftables", "mesa-vulkan-drivers", "vulkan-loader" if rpm else "libvulkan1"} <= packages


#: Stand-ins for a base of RHEL's family: the packages that it has are in a file, and those of its mirrors.
PROGRAMS = {
    "rpm": 'for last; do :; done\nwhile read -r name; do [ "$name" = "$last" ] && exit 0; done <"$BASE/has"\nexit 1',
    "dnf": 'if [ "$2" = repoquery ]; then\n'
    '    while read -r name; do [ "$name" = "$3" ] && echo "$name-1.0"; done <"$BASE/mirror"\n    exit 0\nfi\n'
    'echo "$@" >>"$BASE/log"',
}


@pytest.mark.parametrize(
    ("has", "mirror", "installed"),
    [
        ("iproute", "python3.11 python3", "python3.11 dnsmasq"),
        ("iproute", "python3", "python3 dnsmasq"),
        ("python3.11 iproute", "python3", "dnsmasq"),
        ("dnsmasq iproute python3", "", ""),
    ],
)
def test_the_installer_on_a_base_of_rhels_family(tmp_path: Path, has: str, mirror: str, installed: str) -> None:
    """No such base can be had where this is tested: its programs are stood in for."""
    for name, script in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    for name, words in (("has", has), ("mirror", mirror)):
        (tmp_path / name).write_text("".join(f"{word}\n" for word in words.split()))
    argv = ["/bin/sh", str(image._CONTEXT / "install"), "packages", "python3.11|python3", "iproute", "dnsmasq"]
    environment = {"PATH": str(tmp_path), "BASE": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    log = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
    wanted = [f"--assumeyes --setopt=install_weak_deps=False install {installed}", "clean all"] if installed else []
    assert log == wanted


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
