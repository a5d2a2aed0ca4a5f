"""Host packages of every generation are driven by the same code, and what cvd made is cvd's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cfctl.launch.generation import Generation
from tests import generations
from tests.artifacts.test_view import photograph
from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, locks, refused

ALL = list(Generation)


@pytest.fixture
def host(sandbox: Sandbox) -> Sandbox:
    """Give a host whose network serves three instances."""
    sandbox.cfctl("host", "setup", "--instances", "3")
    return sandbox


def place(sandbox: Sandbox, tmp_path: Path, generation: Generation, **different: object) -> tuple[str, Path]:
    """Write a package inside the sandbox; return its path inside and from here."""
    source = generations.write(tmp_path / generation.value, generation, **different)
    outside = Path(f"/proc/{sandbox.pid}/root/tmp/{generation.value}")
    shutil.copytree(source, outside, symlinks=True)
    return f"/tmp/{generation.value}", outside


@pytest.mark.parametrize("generation", ALL)
def test_whole_life(host: Sandbox, tmp_path: Path, generation: Generation) -> None:
    package, outside = place(host, tmp_path, generation, vandal=True)
    before = photograph(outside)
    device = host.json("launch", "phone", "--host-package", package, "--cpus", "2")
    conforms(device, "device")
    assert device["state"] == "running"
    assert device["home"] == "/var/lib/cfctl/devices/phone"
    assert device["host_package"] == package
    assert device["instances"][0]["number"] == 1
    assert device["instances"][0]["adb"] == "127.0.0.1:6520"
    assert device["instances"][0]["vm_pid"] in host.processes()
    assert (
        json.loads(host.run("cat", "/var/lib/cfctl/devices/phone/device.json").stdout)["generation"]
        == generation.value
    )
    # cvd has heard of nothing, and the number is locked against it.
    assert host.run("sh", "-c", "ls /var/tmp/cvd").stdout.split() == ["lock"]
    assert host.run("flock", "-n", "/var/tmp/cvd/lock/local-instance-1.lock", "true", check=False).returncode == 1

    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("logs", "phone").stdout
    assert host.json("status", "phone")["state"] == "running"
    again = host.json("restart", "phone")
    assert again["state"] == "running"
    assert again["instances"][0]["vm_pid"] != device["instances"][0]["vm_pid"]
    done = host.cfctl("stop", "phone")
    assert "killed" not in done.stderr
    assert host.json("status", "phone", check=False)["state"] == "stopped"
    assert locks(host) == {"N"}
    host.cfctl("rm", "phone")
    leaves_nothing(host)
    assert photograph(outside) == before


def test_numbers_with_a_gap(host: Sandbox, tmp_path: Path) -> None:
    for generation in (Generation.DATABASE, Generation.CLASSIC):
        package, _ = place(host, tmp_path, generation)
        host.cfctl("launch", "one", "--host-package", package)
        host.cfctl("launch", "two", "--host-package", package)
        host.cfctl("rm", "--force", "one")
        host.run("sh", "-c", "printf I >/var/tmp/cvd/lock/local-instance-1.lock")
        host.cfctl("rm", "--force", "two")
        host.run("sh", "-c", "printf N >/var/tmp/cvd/lock/local-instance-1.lock")
        host.run("sh", "-c", "printf I >/var/tmp/cvd/lock/local-instance-2.lock")
        if generation is Generation.CLASSIC:
            error = refused(host, "launch", "farm", "--num-instances", "2", "--host-package", package, code=2)
            assert error["brief"] == "the launcher of this host package has no flag --instance_nums"
        else:
            farm = host.json("launch", "farm", "--num-instances", "2", "--host-package", package)
            assert [instance["number"] for instance in farm["instances"]] == [1, 3]
            host.cfctl("rm", "--force", "farm")
        host.run("sh", "-c", "printf N >/var/tmp/cvd/lock/local-instance-2.lock")
        leaves_nothing(host)


def test_flags_that_a_launcher_does_not_know(host: Sandbox, tmp_path: Path) -> None:
    package, _ = place(host, tmp_path, Generation.FORWARDING)
    done = host.cfctl("launch", "phone", "--host-package", package, "--", "--x_ress=5", check=False)
    assert done.returncode == 2
    assert "the launcher of this host package has no flag --x_ress" in done.stderr
    assert "like it: --x_res." in done.stderr
    leaves_nothing(host)


@pytest.mark.parametrize("cvd_stop", ["stops", "lies", "refuses"])
def test_a_device_that_cvd_made(host: Sandbox, tmp_path: Path, cvd_stop: str) -> None:
    package, _ = place(host, tmp_path, Generation.FORWARDING, cvd_stop=cvd_stop)
    # Called by anybody but cfctl, such a launcher becomes cvd.
    flags = "--daemon=true", "--gpu_mode=guest_swiftshader"
    made = host.run("sh", "-c", '"$@"; exit $?', "sh", f"{package}/bin/launch_cvd", *flags)
    assert json.loads(made.stdout)["group_name"] == "cvd_1"
    host.cfctl("launch", "phone", "--host-package", package)

    mine, theirs = host.json("ps")["devices"]
    conforms(host.json("ps"), "devices")
    assert (mine["name"], mine["source"], mine["instances"][0]["number"]) == ("phone", "cfctl", 2)
    assert (theirs["name"], theirs["source"], theirs["state"]) == ("cvd-1", "cvd", "running")
    assert theirs["home"].startswith("/var/tmp/cvd/0/")
    assert theirs["gpu_mode"] == "guest_swiftshader"
    assert theirs["instances"][0]["vm_pid"] in host.processes()
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("logs", "cvd-1").stdout
    for verb in ("rm", "restart"):
        assert refused(host, verb, "cvd-1", code=2)["brief"] == "cvd-1 was made by cvd"
    assert refused(host, "stop", "cvd-2", code=1)["code"] == "no-such-device"

    done = host.cfctl("stop", "cvd-1")
    fleet = json.loads(host.run(f"{package}/bin/cvd", "fleet").stdout)["groups"][0]
    assert fleet["instances"][0]["status"] == ("Running" if cvd_stop == "refuses" else "Stopped")
    assert ("cvd stop ended with status 255: group cvd_1 is not running" in done.stderr) == (cvd_stop == "refuses")
    mine, theirs = host.json("ps")["devices"]
    # cvd gives the number back when it stops; where it refused, the number stays marked.
    left = "stale" if cvd_stop == "refuses" else "stopped"
    assert (mine["name"], theirs["name"], theirs["state"]) == ("phone", "cvd-1", left)
    assert host.json("status", "phone")["state"] == "running"
    host.cfctl("rm", "--force", "phone")
    # What such a device leaves behind is cvd's to remove.
    host.run("sh", "-c", "rm -rf /var/tmp/cvd/lock/local-instance-1.lock /var/tmp/cvd/0 /tmp/cf_avd_0")
    leaves_nothing(host)
