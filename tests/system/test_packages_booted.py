"""The Debian packages on a system that its own systemd has booted: services start, notify, stop, and come back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.packaging import built
from tests.system.booted_tree import booted, shut_down
from tests.system.package_tree import Tree
from tests.system.test_packages_deb import install, links

pytestmark = pytest.mark.system


def is_active(tree: Tree, unit: str) -> bool:
    return tree.run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"


def bring(tree: Tree, packages: built.Built) -> list[str]:
    """Have the packages of the services inside; the other ones are large, and no service is theirs."""
    return tree.bring(packages.deb["cfctl-host-resources"], packages.deb["cfctl-relay"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def shown(tree: Tree, unit: str, name: str) -> str:
    return tree.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


def until_up(tree: Tree, name: str, but_not: str = "") -> str:
    """Return when a device was started, as soon as it is up; ``but_not`` is an earlier time."""
    deadline = time.monotonic() + 180
    document: dict[str, Any] = {}
    while time.monotonic() < deadline:
        document = json.loads(tree.run("cfctl", "status", name, "--json", check=False).stdout)
        if document.get("state") == "running" and document["started_at"] != but_not:
            return str(document["started_at"])
        time.sleep(0.2)
    journal = tree.run("journalctl", "--no-pager", "-u", f"cfctl-device@{name}").stdout
    raise AssertionError(f"{name} is not up: {document}\n{journal}")


def test_services_start_and_a_device_comes_back_with_the_host(tree: Tree, packages: built.Built) -> None:
    disk = tree
    with booted(disk) as tree:
        install(tree, packages)
        assert len(links(tree)) == 42
        assert is_active(tree, "cfctl-host-resources")
        assert shown(tree, "cuttlefish-host-resources", "Id") == "cfctl-host-resources.service"
        # It has told systemd that it is ready, and its group may call it, whichever package came first.
        assert shown(tree, "cfctl-relay", "StatusText") == "serving"
        assert tree.run("stat", "-c", "%a %G", "/run/cfctl/relay.sock").stdout == "660 cvdnetwork\n"
        tree.run("systemctl", "start", "cfctl-host-run")
        assert is_active(tree, "cfctl-taps.socket"), "it comes with what it belongs to"
        assert tree.run("stat", "-c", "%a %G", "/run/cfctl/taps.sock").stdout == "660 cvdnetwork\n"
        tree.run("systemctl", "reload", "cfctl-host-run", "cfctl-relay")
        tree.run("systemctl", "stop", "cfctl-host-run", "cfctl-taps.socket")
        assert len(links(tree)) == 42

        tree.run("cfctl", "launch", "phone")
        first = until_up(tree, "phone")
        assert "cfctl-device-phone-" in tree.run("systemctl", "list-units", "--plain", "--type=scope").stdout
        tree.run("systemctl", "enable", "--now", "cfctl-device@phone")
        second = until_up(tree, "phone", first)
        emulator = tree.run("pgrep", "-f", "qemu-system").stdout
        # An upgrade leaves it alone, and so does a stop of the network, which fails.
        tree.run("apt-get", "install", "-y", "-q", "--reinstall", "--no-install-recommends", *bring(tree, packages))
        assert tree.run("systemctl", "stop", "cfctl-host-resources", check=False).returncode in (0, 1)
        assert shown(tree, "cfctl-host-resources", "ActiveState") == "failed"
        assert "cvd-mtap-01" in tree.run("journalctl", "--no-pager", "-u", "cfctl-host-resources").stdout
        assert len(links(tree)) == 42
        tree.run("systemctl", "start", "cfctl-host-resources")
        assert tree.run("pgrep", "-f", "qemu-system").stdout == emulator
        assert tree.run("cfctl", "adb", "phone", "shell", "echo $((6 * 7))").stdout.strip() == "42"
        assert shown(tree, "cfctl-device@phone", "LimitNOFILESoft") == "32768"
        shut_down(tree)
    with booted(disk) as tree:
        assert len(links(tree)) == 42
        until_up(tree, "phone", second)
        assert is_active(tree, "cfctl-relay")
        tree.run("cfctl", "stop", "phone")
        wait_until(lambda: not is_active(tree, "cfctl-device@phone"))
        assert shown(tree, "cfctl-device@phone", "Result") == "success", "stopped on purpose, it stays down"
        # Removed, and not purged: upstream's service is there again, under its own name.
        upstream(tree)
        tree.run("apt-get", "remove", "-y", "-q", "cfctl-host-resources")
        assert links(tree) == {}
        assert shown(tree, "cuttlefish-host-resources", "Description") == "upstream's"
        # Back again it is ours, and runs, also when upstream's package goes, whose scripts stop "its" service.
        tree.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *bring(tree, packages))
        assert shown(tree, "cuttlefish-host-resources", "Id") == "cfctl-host-resources.service"
        assert is_active(tree, "cfctl-host-resources")
        tree.run("dpkg", "--purge", "cuttlefish-base")
        assert is_active(tree, "cfctl-host-resources")
        assert len(links(tree)) == 42
        # What somebody has switched off stays so.
        tree.run("systemctl", "disable", "--now", "cfctl-host-resources", "cfctl-relay")
        tree.run("apt-get", "install", "-y", "-q", "--reinstall", "--no-install-recommends", *bring(tree, packages))
        assert not is_active(tree, "cfctl-host-resources")
        assert not is_active(tree, "cfctl-relay")
        assert links(tree) == {}


def upstream(tree: Tree) -> None:
    """Install what stands for cuttlefish-base: its file, its unit, and scripts as debhelper makes them."""
    root = tree.path("/packages/upstream")
    files = {
        "DEBIAN/control": "Package: cuttlefish-base\nVersion: 1.57.0\nArchitecture: all\n"
        "Maintainer: nobody <n@example.org>\nDescription: stands for upstream's\n",
        "DEBIAN/prerm": "#!/bin/sh\ndeb-systemd-invoke stop cuttlefish-host-resources.service\n",
        "usr/lib/cuttlefish-common/bin/capability_query.py": "#!/bin/sh\necho theirs\n",
        "lib/systemd/system/cuttlefish-host-resources.service": "[Unit]\nDescription=upstream's\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755 if text.startswith("#!") else 0o644)
    tree.run("dpkg-deb", "--build", "/packages/upstream", "/packages/upstream.deb")
    tree.run("dpkg", "-i", "/packages/upstream.deb")
