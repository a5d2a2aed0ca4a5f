"""What is known about each maker of GPUs: the folders of the top-level ``gpu/``, one ``profile.toml`` each.

``cfctl/gpu/profiles`` leads there: in a checkout it is a link, in a wheel the files themselves.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import distro

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILES = Path(__file__).with_name("profiles")


@dataclass(frozen=True, slots=True)
class Vendor:
    """One maker of GPUs.

    :param key: the folder's name, the word of the JSON documents.
    :param name: as people write it.
    :param pci_vendors: PCI vendor numbers.
    :param good_drivers: kernel drivers that give 3D.
    :param bad_drivers: kernel driver -> why it does not do.
    :param debian: packages that give EGL and Vulkan on Debian's family.
    :param rpm: the same on the RPM family.
    :param hints: ``no_driver``, ``no_render_node`` and ``software``: what mends each.
    :param renderers: parts of the names, in small letters, by which OpenGL ES and Vulkan tell this maker's renderers.
    :param container_flags: what a container is started with to get the GPU; empty where there is none to give.
    :param kvm_maps_from: the first kernel whose KVM maps this maker's memory into a guest, major and minor.
    """

    key: str
    name: str
    pci_vendors: tuple[int, ...]
    good_drivers: tuple[str, ...]
    bad_drivers: Mapping[str, str]
    debian: tuple[str, ...]
    rpm: tuple[str, ...]
    hints: Mapping[str, str]
    renderers: tuple[str, ...] = ()
    container_flags: str = ""
    kvm_maps_from: tuple[int, int] = (0, 0)

    @property
    def draws(self) -> bool:
        """Tell whether any kernel driver makes this maker's devices draw in 3D."""
        return bool(self.good_drivers)

    def install_command(self) -> str:
        """Return the command that installs EGL and Vulkan for this maker on this distribution."""
        packages = self.debian if distro.is_debian_like() else self.rpm
        return distro.install_command(" ".join(packages))


@functools.cache
def load(directory: Path = PROFILES) -> Mapping[str, Vendor]:
    """Return all makers by their key."""
    return {file.parent.name: _vendor(file) for file in sorted(directory.glob("*/profile.toml"))}


def by_pci(vendor_id: int) -> Vendor | None:
    """Return the maker with that PCI vendor number, or None for an unknown one."""
    return next((vendor for vendor in load().values() if vendor_id in vendor.pci_vendors), None)


def _vendor(file: Path) -> Vendor:
    raw: dict[str, Any] = tomllib.loads(file.read_text())
    return Vendor(
        key=file.parent.name,
        name=raw["name"],
        pci_vendors=tuple(int(number, 16) for number in raw["pci_vendors"]),
        good_drivers=tuple(raw["drivers"]["good"]),
        bad_drivers=raw["drivers"]["bad"],
        debian=tuple(raw["packages"]["debian"]),
        rpm=tuple(raw["packages"]["rpm"]),
        hints={name: text.strip() for name, text in raw["hints"].items()},
        renderers=tuple(raw.get("renderers", {}).get("names", ())),
        container_flags=raw.get("container", {}).get("flags", ""),
        kvm_maps_from=_version(raw.get("kvm", {}).get("maps_memory_from", "0.0")),
    )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
