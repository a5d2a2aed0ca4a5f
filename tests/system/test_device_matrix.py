"""Whatever a launcher does, and whenever something is killed: an error or a running device, and nothing orphaned."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_clean import kill_all
from tests.system.test_device_faults import Package, host, leaves_nothing, locks, package, wait_for_state

__all__ = ["host", "package"]

#: Phases in which a launcher can hang, with what is said about them.
HANGS = {
    "assemble": "launcher started",
    "vm": "VM process started",
    "bootloader": "bootloader running",
    "kernel": "kernel running",
    "userspace": "first userspace running",
    "network": "network connected",
    "adb": "adbd started",
}

#: Seconds within which things must happen on a slow machine.
_PATIENCE_S = 30.0


def until(what: str, look: Any) -> Any:
    """Wait until ``look`` returns something."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, what
    return found


def reached(sandbox: Sandbox, phase: str, name: str = "phone") -> bool:
    """Tell whether the guest has come to a phase, and the launcher at least been started."""
    if phase == "assemble":
        # Not the one that is asked for its flags before there is a device, nor the shell that is its parent.
        return any(
            "bin/launch_cvd" in command and "--daemon" in command and "parent/cvd" not in command
            for command in sandbox.processes().values()
        )
    home = f"/var/lib/cfctl/devices/{name}/cuttlefish/instances"
    text = sandbox.run("sh", "-c", f"cat {home}/cvd-*/logs/kernel.log 2>/dev/null", check=False).stdout
    said = {"vm": "console attached", "bootloader": "U-Boot", "kernel": "Linux version", "userspace": "BOOT_STARTED"}
    return (said | {"network": "ETHERNET_CONNECTED", "adb": "'adbd'"})[phase] in text


@pytest.mark.parametrize("phase", HANGS)
def test_a_hang_is_named_and_ended_at_its_timeout(host: Sandbox, package: Package, phase: str) -> None:
    directory = package(f"hang-{phase}")
    done = host.cfctl("launch", "phone", "--host-package", directory, "--timeout", "1", "--events", check=False)
    assert done.returncode == 5, done.stdout
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        conforms(event, "event")
    assert [e["phase"] for e in events if e["event"] == "phase"][-1] == phase
    assert f"cvd-1 came as far as: {HANGS[phase]}" in events[-1]["error"]["brief"]
    device = host.json("ps")["devices"][0]
    assert (device["state"], device["failure"]["phase"]) == ("failed", phase)
    assert locks(host) == {"N"}
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_cfctl_is_killed_in_each_phase(host: Sandbox, package: Package) -> None:
    for phase in HANGS:
        argv = host.cfctl_argv("launch", "phone", "--host-package", package(f"hang-{phase}"))
        launch = host.start(*argv)
        until(phase, lambda phase=phase: reached(host, phase))
        kill_all(host, "cfctl launch phone")
        launch.wait()
        (device,) = host.json("ps")["devices"]
        assert device["state"] == "booting", phase
        assert "I" in locks(host), "its number is kept for it"
        host.cfctl("stop", "phone")
        host.cfctl("rm", "phone")
        leaves_nothing(host)


def test_run_cvd_is_killed_in_each_phase(host: Sandbox, package: Package) -> None:
    for phase in HANGS:
        victim = "bin/launch_cvd" if phase == "assemble" else "bin/run_cvd"
        argv = host.cfctl_argv("launch", "phone", "--json", "--host-package", package(f"hang-{phase}"))
        launch = host.start(*argv, stdout=-1)
        until(phase, lambda phase=phase: reached(host, phase))
        host.run("pkill", "-9", "-f", victim)
        said, _ = launch.communicate(timeout=_PATIENCE_S)
        assert launch.returncode == 1, said
        assert json.loads(said)["error"]["code"] == "launch-failed"
        host.cfctl("rm", "phone", check=False)
        leaves_nothing(host)


def test_a_boot_loop_is_told(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "phone", "--host-package", package("loop"), "--timeout", "2", check=False)
    assert done.returncode == 5
    assert "the guest has started 3 times and not booted: a boot loop" in done.stderr
    assert "Likely cause: the guest starts again and again: a boot loop." in done.stderr
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_a_guest_that_prints_anything_boots(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "phone", "--host-package", package("garbage-log"))
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x1b" not in host.cfctl("logs", "phone").stdout
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_the_disk_fills_up_in_the_middle_of_a_boot(host: Sandbox, package: Package) -> None:
    host.run("mkdir", "-p", "/var/lib/cfctl/devices")
    host.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/var/lib/cfctl/devices")
    done = host.cfctl("launch", "phone", "--host-package", package("full"), check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.partition("Last lines")[0]
    assert "Likely cause: the disk is full" in done.stderr
    assert "Make room: df -h /var/lib/cfctl/devices/phone" in done.stderr
    assert [p for p in host.processes().values() if "dnsmasq" not in p] == []
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)
    host.run("umount", "/var/lib/cfctl/devices")


def test_ten_launches_at_once(sandbox: Sandbox, package: Package) -> None:
    sandbox.cfctl("host", "setup", "--instances", "10")
    directory = package("none")
    argv = [sandbox.cfctl_argv("launch", "--json", "--host-package", directory) for _ in range(11)]
    launches = [sandbox.start(*words, stdout=-1) for words in argv]
    answers = [json.loads(launch.communicate(timeout=120)[0]) for launch in launches]
    errors = [answer["error"]["code"] for answer in answers if "error" in answer]
    assert errors == ["number-taken"], "ten numbers, eleven launches"
    devices = sandbox.json("ps")["devices"]
    assert [device["state"] for device in devices] == ["running"] * 10
    assert sorted(device["instances"][0]["number"] for device in devices) == list(range(1, 11))
    sandbox.cfctl("rm", "--force", *(device["name"] for device in devices))
    leaves_nothing(sandbox)


def test_a_launch_that_was_killed_before_it_had_a_device(host: Sandbox, package: Package) -> None:
    program = "from cfctl import locks, paths; from cfctl.instance import Instance; import os\n"
    program += "for n in (1, 2): locks.NumberLock.take(Instance(n), paths.instance_lock_directories())\nos._exit(9)"
    host.run(host.cfctl_argv()[0], "-c", program, check=False)
    assert {device["state"] for device in host.json("ps")["devices"]} == {"stale"}
    refused = host.cfctl("launch", "phone", "--host-package", package("none"), check=False)
    assert refused.returncode == 1
    assert "cfctl clean" in refused.stderr
    host.cfctl("clean", "--yes")
    host.cfctl("launch", "phone", "--host-package", "/tmp/package-none")
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_launch_and_restart_during_a_stop(host: Sandbox, package: Package) -> None:
    directory = package("slow-stop")
    host.cfctl("launch", "phone", "--host-package", directory)
    stop = host.start(*host.cfctl_argv("stop", "phone"))
    wait_for_state(host, "stopping")
    # The name is taken; another number is free; and whoever wants this device waits for the stop.
    refused = host.cfctl("launch", "phone", "--host-package", directory, "--json", check=False)
    assert json.loads(refused.stdout)["error"]["code"] == "name-taken"
    host.cfctl("launch", "other", "--host-package", directory)
    assert host.json("restart", "phone")["state"] == "running"
    assert stop.wait(_PATIENCE_S) == 0
    assert {d["name"]: d["state"] for d in host.json("ps")["devices"]} == {"other": "running", "phone": "running"}
    host.cfctl("rm", "--force", "phone", "other")
    leaves_nothing(host)
