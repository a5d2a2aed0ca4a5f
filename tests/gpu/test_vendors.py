"""The vendors' profiles: complete, and found from a checkout as from a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl import distro
from cfctl.gpu import vendors

REPO = Path(__file__).resolve().parents[2]


def test_the_top_level_folder_is_the_one_that_is_read() -> None:
    assert vendors.PROFILES.resolve() == REPO / "gpu"
    assert set(vendors.load()) == {folder.name for folder in (REPO / "gpu").iterdir()}
    assert set(vendors.load()) == {"amd", "intel", "nvidia", "software", "virtio"}


@pytest.mark.parametrize("vendor", vendors.load().values(), ids=lambda vendor: vendor.key)
def test_a_profile_is_complete(vendor: vendors.Vendor) -> None:
    assert vendor.pci_vendors
    assert vendor.debian
    assert vendor.rpm
    assert set(vendor.hints) == {"no_driver", "no_render_node", "software"}
    assert vendor.draws is (vendor.key != "software")
    assert not set(vendor.good_drivers) & set(vendor.bad_drivers)


def test_no_number_belongs_to_two() -> None:
    numbers = [number for vendor in vendors.load().values() for number in vendor.pci_vendors]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("number", "key"),
    [(0x10DE, "nvidia"), (0x1002, "amd"), (0x8086, "intel"), (0x1AF4, "virtio"), (0x1A03, "software")],
)
def test_by_pci(number: int, key: str) -> None:
    vendor = vendors.by_pci(number)
    assert vendor is not None
    assert vendor.key == key


def test_amd_processors_are_no_gpus() -> None:
    assert vendors.by_pci(0x1022) is None


@pytest.mark.parametrize(
    ("debian", "command"),
    [
        (
            True,
            "apt-get install --no-install-recommends libegl1 libgles2 libvulkan1 libgl1-mesa-dri mesa-vulkan-drivers",
        ),
        (
            False,
            "dnf install libglvnd-egl libglvnd-gles mesa-libEGL mesa-dri-drivers vulkan-loader mesa-vulkan-drivers",
        ),
    ],
)
def test_install_command(monkeypatch: pytest.MonkeyPatch, *, debian: bool, command: str) -> None:
    monkeypatch.setattr(distro, "is_debian_like", lambda: debian)
    assert vendors.load()["software"].install_command() == command
