"""The embedded guest through every verb of a device's life, over the protocol and the tools that Android's have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.sandbox import Sandbox


@pytest.fixture
def host(sandbox: Sandbox, host_package: Path) -> Sandbox:
    """Give a host whose network serves two instances, and where the embedded guest is built."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    return sandbox


def test_first(host: Sandbox) -> None:
    host.cfctl("launch", "phone")
    print(
        host.cfctl(
            "adb",
            "phone",
            "shell",
            "mount; ls -la /data; cat /run/disk.log; ls /dev/input; cat /sys/class/input/*/device/name",
        ).stdout
    )
    print(host.cfctl("logs", "phone", "-n", "15").stdout)
    host.cfctl("adb", "phone", "shell", "echo hi >/data/x")
    host.cfctl("restart", "phone")
    print(host.cfctl("adb", "phone", "shell", "cat /data/x").stdout)
    print(host.cfctl("logs", "phone", "--which", "launcher").stdout[-1500:])
    host.run("adb", "kill-server")
    host.cfctl("rm", "--force", "phone")
