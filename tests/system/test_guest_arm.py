"""The embedded guest for ARM processors: the same code, another row of arch.py's table, emulated where it must be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl import arch
from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing

#: Emulation on a machine that has much else to do.
_MINUTES = "600"


def test_an_arm_guest_boots_to_adb(sandbox: Sandbox, arm_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    done = sandbox.cfctl(
        *("launch", "arm", "--host-package", str(arm_package), "--timeout", _MINUTES, "--events"), timeout=660
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        conforms(event, "event")
    device = events[-1]["device"]
    assert (device["state"], device["gpu_mode"]) == ("running", "guest_swiftshader")
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    assert {"kernel", "userspace", "network", "adb", "booted"} <= set(phases)

    shell = ("adb", "arm", "shell")
    assert sandbox.cfctl(*shell, "uname", "-m", timeout=120).stdout.strip() == "aarch64"
    assert "192.168.98.2" in sandbox.cfctl(*shell, "ifconfig", timeout=120).stdout
    assert "192.168.97.2" in sandbox.cfctl(*shell, "ifconfig", timeout=120).stdout
    command = sandbox.processes()[device["instances"][0]["vm_pid"]]
    assert command.split()[0].endswith("/qemu-system-aarch64")
    if arch.host().name != "aarch64":
        notes = [event["text"] for event in events if event["event"] == "note"]
        assert any("is emulated on this" in note and "slow" in note for note in notes), events
        assert "-accel tcg" in command

    sandbox.cfctl("stop", "arm", timeout=120)
    sandbox.run("adb", "kill-server")
    sandbox.cfctl("rm", "arm")
    leaves_nothing(sandbox)


@pytest.mark.skipif(arch.host().name == "aarch64", reason="there it is the host's own QEMU")
def test_a_host_without_the_other_qemu_says_what_to_install(sandbox: Sandbox, arm_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.run("mount", "--bind", "/dev/null", "/usr/bin/qemu-system-aarch64")
    done = sandbox.cfctl("launch", "arm", "--host-package", str(arm_package), "--json", check=False)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 4, error
    assert error["resolution"] == "Install it: apt-get install --no-install-recommends qemu-system-arm"
    leaves_nothing(sandbox)
