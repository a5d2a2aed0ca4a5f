"""Fixtures of the system tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl import arch as arches
from cfctl import paths
from cfctl.arch import Arch
from tests.packaging import built
from tests.system import dockerd, package_tree
from tests.system import sandbox as sandboxes
from tests.system.package_tree import Tree
from tests.system.sandbox import Sandbox

HERE = Path(__file__).parent

#: What the system tests run for real; `make setup` installs all of it.
PROGRAMS = (
    *("adb", "busybox", "dbus-daemon", "debootstrap", "dnsmasq", "docker", "dockerd", "docker-registry", "firewalld"),
    *("ip", "iptables", "iptables-legacy", "iptables-nft", "nft", "nsenter", "setpriv", "sshd", "ufw", "unshare"),
    *{arches.host().qemu, arches.by_name("aarch64").qemu},
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it where it cannot run; under CI a lack is a failure."""
    lacks = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    reason = "root is needed" if os.geteuid() else f"not installed (make setup): {', '.join(lacks)}" if lacks else ""
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.system)
        if reason and os.environ.get("CI") == "true":
            raise pytest.UsageError(f"system tests cannot run, and CI must not skip them: {reason}")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Give the test a host of its own."""
    with sandboxes.sandbox(tmp_path / "sandbox") as box:
        yield box


@pytest.fixture
def engine(request: pytest.FixtureRequest, sandbox: Sandbox, host_package: Path) -> Iterator[dockerd.Engine]:
    """Give a container engine, with an image of what is in the checkout.

    :param host_package: not used, but made: the image has the embedded guest in it.
    """
    kvm = request.node.get_closest_marker("kvm") is not None
    with dockerd.running(sandbox, kvm=kvm) as running:
        sandbox.env["DOCKER_HOST"] = running.url
        dockerd.build_image(running)
        yield running


@pytest.fixture(scope="session")
def host_package() -> Path:
    """Return the embedded host package, as a sandbox sees it; built outside, where there is a network."""
    return _package(arches.host())


@pytest.fixture(scope="session")
def arm_package() -> Path:
    """Return the same with a guest for aarch64."""
    return _package(arches.by_name("aarch64"))


def _package(arch: Arch) -> Path:
    from cfctl.guest import package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFCTL_PATHS_CACHE", str(sandboxes.CACHE))
        # Not what a demo has left in this machine's own cache: a sandbox does not see that.
        patch.setattr(paths, "SYSTEM_CACHE", sandboxes.CACHE)
        made = package.ensure(arch)
    return Path("/var/cache/cfctl") / made.relative_to(sandboxes.CACHE)


@pytest.fixture(scope="session")
def packages() -> built.Built:
    """Return what `make deb` and `make rpm` make of this checkout."""
    return built.packages()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """Give a Debian into which packages can be installed."""
    with package_tree.tree(tmp_path / "tree") as running:
        yield running
