"""``cfctl ps`` on a host with devices of others: started by hand, by another user, or dead."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import Package, host, package, refused

__all__ = ["host", "package"]


def by_hand(sandbox: Sandbox, directory: str, home: str, *flags: str, user: str = "root") -> None:
    """Start a launcher as its own documentation tells, without cfctl."""
    sandbox.run("mkdir", "-p", home, user=user)
    # What it starts keeps its output, and would keep this test waiting.
    quiet = ("sh", "-c", 'exec "$0" "$@" >/dev/null 2>&1', f"{directory}/bin/launch_cvd")
    sandbox.run(*quiet, *flags, user=user, env={"HOME": home, "ANDROID_HOST_OUT": directory})


def listed(sandbox: Sandbox, user: str = "root") -> list[dict[str, Any]]:
    document = sandbox.json("ps", user=user)
    conforms(document, "devices")
    devices: list[dict[str, Any]] = document["devices"]
    return devices


def test_devices_that_were_started_by_hand(host: Sandbox, package: Package) -> None:
    directory = package("none")
    by_hand(host, directory, "/tmp/hand", "--base_instance_num=1", "--num_instances=2", "--daemon=true")
    (device,) = listed(host)
    assert (device["name"], device["source"], device["state"]) == ("cvd-1", "launch_cvd", "running")
    assert [instance["number"] for instance in device["instances"]] == [1, 2]
    assert device["home"] == "/tmp/hand"
    assert device["host_package"] == directory
    assert device["owner"] == "root"
    assert device["memory_mb"] > 0
    assert device["uptime_s"] > 0
    assert "launch_cvd" in host.cfctl("ps").stdout
    assert host.json("status", "cvd-1/2")["instances"][0]["number"] == 2
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("logs", "cvd-1/2").stdout
    for verb in ("stop", "rm", "restart", "suspend"):
        assert refused(host, verb, "cvd-1", code=2)["brief"] == "cvd-1 was made by launch_cvd"

    # Another user sees that it is there, but not what may not be read.
    others = listed(host, user="tester")
    assert {(d["owner"], d["state"]) for d in others} == {("root", "running")}
    assert {i["number"] for d in others for i in d["instances"]} == {1, 2}


def test_ours_and_another_users(host: Sandbox, package: Package) -> None:
    directory = package("none")
    host.cfctl("launch", "phone", "--host-package", directory)
    host.cfctl("launch", "phone", "--host-package", directory, user="tester")
    mine, other = listed(host)
    assert (mine["name"], mine["owner"], mine["source"]) == ("phone", "root", "cfctl")
    assert (other["name"], other["owner"], other["source"]) == ("tester-phone", "tester", "cfctl")
    assert other["state"] == "running"
    # What it is called is what verbs take.
    assert host.json("status", "tester-phone")["home"] == other["home"]
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("logs", "tester-phone").stdout
    mine, other = listed(host, user="tester")
    assert (mine["name"], mine["owner"], mine["source"]) == ("phone", "tester", "cfctl")
    assert (other["name"], other["owner"], other["source"]) == ("cvd-1", "root", "unknown")
    host.cfctl("rm", "--force", "phone", user="tester")
    host.cfctl("rm", "--force", "phone")
    assert listed(host) == []


def test_dead_ones_are_said_to_be_stale(host: Sandbox, package: Package) -> None:
    by_hand(host, package("none"), "/tmp/hand", "--base_instance_num=2", "--daemon=true")
    assert [d["state"] for d in listed(host)] == ["running"]
    host.run("pkill", "-9", "-f", "bin/run_cvd")
    assert listed(host) == [], "launch_cvd takes no lock, so that nothing of it is in anybody's way"
    host.run("sh", "-c", "mkdir -p /var/tmp/cvd/lock && printf I >/var/tmp/cvd/lock/local-instance-2.lock")
    (device,) = listed(host)
    assert (device["state"], device["instances"][0]["number"]) == ("stale", 2)
    done = host.cfctl("status", device["name"], check=False)
    assert done.returncode == 3


def test_nothing_is_sent_to_a_monitor(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("count"))
    for _ in range(3):
        listed(host)
        host.cfctl("status", "phone")
    home = host.json("status", "phone")["home"]
    assert host.run("cat", f"{home}/cuttlefish/instances/cvd-1/logs/clients", check=False).stdout == ""
    host.cfctl("rm", "--force", "phone")


def test_a_boot_that_nobody_waited_for_is_written_down(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--no-wait", "--host-package", package("none"))
    deadline = time.monotonic() + 30
    while not (booted := host.json("status", "phone")["booted_at"]):
        assert time.monotonic() < deadline
    record = json.loads(host.run("cat", "/var/lib/cfctl/devices/phone/device.json").stdout)
    assert record["booted_at"] == booted
    assert host.json("status", "phone")["booted_at"] == booted
    host.cfctl("rm", "--force", "phone")


@pytest.mark.parametrize("json_", [True, False])
def test_watch_goes_on_until_interrupted(host: Sandbox, package: Package, json_: bool) -> None:
    argv = ["timeout", "--signal=INT", "2.5", "env", "--default-signal=INT", *host.cfctl_argv("ps", "--watch")]
    done = host.run(*argv, *(["--json"] if json_ else []), check=False)
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert "\x1b" not in done.stdout
    if json_:
        conforms(json.loads(lines[0]), "devices")
