"""What holds for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

# No test asserts how long something takes: on a busy machine an example may take any time.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Keep addresses in memory out of the names of tests: every process of pytest-xdist must find the same names."""
    return argname if " at 0x" in repr(val) else None


#: Files that take most of a minute or more, the longest first. A worker of pytest-xdist takes whole files, in this
#: order with --no-loadscope-reorder (without it those of the most tests come first, and they are the quickest): begun
#: last, they would be what everybody waits for. In front, one that makes what many need in new clones (the guest, the
#: base of all containers), and beside it two that need neither: others would wait for it, and a processor with them.
_LONG = (
    "test_docker_faults.py",
    "test_host_kills.py",
    "test_host_firewalls.py",
    "test_docker.py",
    "test_docker_fleet.py",
    "test_relay_elsewhere.py",
    "test_device_vm.py",
    "test_device_faults.py",
    "test_package_manners.py",
    "test_guest_vm.py",
    "test_relayed_vm.py",
    "test_pod.py",
    "test_lifecycle_faults.py",
    "test_package_contents.py",
    "test_host_convergence.py",
    "test_packages_deb.py",
    "test_device_matrix.py",
    "test_host_lazy.py",
    "test_host_iptables.py",
    "test_page_vm.py",
    "test_follow.py",
    "test_packages_booted.py",
    "test_lifecycle_vm.py",
    "test_screen_guest.py",
    "test_page_media.py",
    "test_control_vm.py",
    "test_device_many.py",
    "test_bad_input.py",
    "test_packages_rpm.py",
    "test_page_manners.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files begun first."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))
