"""Devices with a real VM: the whole life of one, two beside each other, an ordinary user's, and sudden deaths."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, wait_for_state


@pytest.fixture
def host(sandbox: Sandbox, host_package: Path) -> Sandbox:
    """Give a host whose network serves two instances, and where the embedded guest is built."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    return sandbox


def adb(sandbox: Sandbox, device: str, *args: str, user: str = "root") -> str:
    """Run ``cfctl adb``; the server ends with the sandbox."""
    return sandbox.cfctl("adb", device, *args, user=user).stdout.strip()


def end_adb_server(sandbox: Sandbox, user: str = "root") -> None:
    sandbox.run("adb", "kill-server", user=user)


def test_whole_life(host: Sandbox) -> None:
    before = host.snapshot()
    events = [json.loads(line) for line in host.cfctl("launch", "phone", "--events").stdout.splitlines()]
    for event in events:
        conforms(event, "event")
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    assert phases[:3] == ["host", "assemble", "vm"]
    assert phases[-1] == "booted"
    assert {"userspace", "network", "adb"} <= set(phases)
    device = events[-1]["device"]
    conforms(device, "device")
    assert device["state"] == "running"
    assert device["gpu_mode"] == "guest_swiftshader"
    assert device["instances"][0]["adb"] == "127.0.0.1:6520"
    assert device["instances"][0]["vm_pid"] in host.processes()

    conforms(host.json("ps"), "devices")
    listed = host.json("ps")["devices"]
    # Time goes on.
    for document in (device, *listed):
        assert document.pop("uptime_s") > 0
        assert document.pop("memory_mb") > 50
    assert listed == [device]
    assert "running" in host.cfctl("ps").stdout
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("logs", "phone").stdout
    assert adb(host, "phone", "shell", "uname", "-s") == "Linux"

    again = host.json("restart", "phone")
    assert again["state"] == "running"
    assert again["instances"][0]["vm_pid"] != device["instances"][0]["vm_pid"]
    assert adb(host, "phone", "shell", "echo", "back") == "back"

    host.cfctl("stop", "phone")
    assert host.cfctl("status", "phone", check=False).returncode == 3
    host.cfctl("stop", "phone")
    end_adb_server(host)
    host.cfctl("rm", "phone")
    leaves_nothing(host)
    after = host.snapshot()
    for part in ("links", "addresses", "rules", "processes"):
        assert after[part] == before[part]


def test_a_gpu_mode_that_the_embedded_guest_lacks(host: Sandbox) -> None:
    for flags in (["--gpu", "gfxstream"], ["--gpu", "drm_virgl"]):
        done = host.cfctl("launch", "phone", *flags, "--json", check=False)
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["brief"]) == (2, f"this guest has no GPU mode {flags[1]}")
        assert "guest_swiftshader" in error["details"]
        assert "cfctl launch --host-package DIR" in error["resolution"]
    leaves_nothing(host)


def test_two_vms_beside_each_other(host: Sandbox) -> None:
    host.cfctl("launch", "farm", "--num-instances", "2")
    for position, address in ((1, "192.168.98.2"), (2, "192.168.98.3")):
        assert f"inet {address}/24" in adb(host, f"farm/{position}", "shell", "ip", "addr")
    leases = host.run("cat", "/run/cuttlefish-dnsmasq-cvd-ebr.leases").stdout
    assert "192.168.98.2" in leases
    assert "192.168.98.3" in leases

    # Neither over cvd-ebr nor by routing through the host.
    assert not reaches(host, "farm/1", "192.168.98.3")
    assert not reaches(host, "farm/1", "192.168.97.6")
    host.cfctl("host", "setup", env={"CFCTL_HOST_GUEST_ISOLATION": "false"})
    assert reaches(host, "farm/1", "192.168.98.3")
    assert reaches(host, "farm/1", "192.168.97.6")
    host.cfctl("host", "setup")
    assert not reaches(host, "farm/1", "192.168.98.3")
    assert not reaches(host, "farm/1", "192.168.97.6")

    done = host.cfctl("host", "teardown", check=False)
    assert done.returncode == 1
    assert "farm" in done.stderr or "cvd-etap-01" in done.stderr
    end_adb_server(host)
    host.cfctl("rm", "--force", "farm")
    leaves_nothing(host)


def reaches(sandbox: Sandbox, device: str, address: str) -> bool:
    """Tell whether a guest gets an answer from an address; twice, since the first packet may wait for ARP."""
    return "ok" in adb(sandbox, device, "shell", f"ping -c 2 -W 1 {address} >/dev/null && echo ok || true")


def test_an_ordinary_user(host: Sandbox) -> None:
    user = "tester"
    device = host.json("launch", "mine", user=user)
    assert device["state"] == "running"
    assert device["owner"] == user
    assert device["home"] == "/home/tester/.local/state/cfctl/devices/mine"
    assert adb(host, "mine", "shell", "uname", "-s", user=user) == "Linux"
    assert host.json("ps", user=user)["devices"][0]["name"] == "mine"
    # Root's device gets the next number, and neither gets in the other's way.
    assert host.json("launch", "roots")["instances"][0]["number"] == 2
    host.cfctl("stop", "mine", user=user)
    host.cfctl("rm", "mine", user=user)
    assert [device["owner"] for device in host.json("ps", user=user)["devices"]] == ["root"]
    end_adb_server(host, user)
    host.cfctl("rm", "--force", "roots")
    leaves_nothing(host)


@pytest.mark.parametrize("victim", ["launcher", "vm"])
def test_sudden_death_of_a_running_device(host: Sandbox, victim: str) -> None:
    device = host.json("launch", "phone")
    vm = device["instances"][0]["vm_pid"]
    run_cvd = [pid for pid, args in host.processes().items() if "/bin/run_cvd" in args]
    assert run_cvd
    for pid in run_cvd if victim == "launcher" else [vm]:
        host.run("kill", "-9", str(pid))
    deadline = time.monotonic() + 10
    while host.json("ps")["devices"][0]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert host.json("ps")["devices"][0]["state"] in ("stale", "unreachable", "failed")
    host.cfctl("stop", "phone")
    assert host.json("ps")["devices"][0]["state"] == "stopped"
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_sudden_death_of_cfctl_launch(host: Sandbox) -> None:
    launch = host.start(*host.cfctl_argv("launch", "phone"))
    wait_for_state(host, "booting")
    host.run("pkill", "-KILL", "-f", "cfctl launch phone")
    assert launch.wait(10) != 0
    # The launcher goes on by itself: the device boots, and is as good as any other.
    deadline = time.monotonic() + 60
    while host.json("ps")["devices"][0]["state"] == "booting" and time.monotonic() < deadline:
        time.sleep(0.3)
    assert host.json("ps")["devices"][0]["state"] == "running"
    host.cfctl("stop", "phone")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_what_keeps_a_real_guest_from_booting_is_named(host: Sandbox) -> None:
    server = host.start("python3", "-m", "http.server", "6520", "--bind", "127.0.0.1", stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while host.run("grep", "-q", " 0100007F:1978 00000000:0000 0A ", "/proc/net/tcp", check=False).returncode:
        assert time.monotonic() < deadline
    done = host.cfctl("launch", "phone", check=False)
    assert done.returncode == 1
    assert "Likely cause: another program listens on a port of this instance" in done.stderr
    assert "See who has it: ss -ltnp 'sport = :6520'" in done.stderr
    host.cfctl("rm", "--force", "phone", check=False)
    host.run("pkill", "-f", "http.server")
    server.wait()

    done = host.cfctl("launch", "phone", "--", "--extra_kernel_cmdline=rdinit=/nosuch", check=False)
    assert done.returncode == 1
    assert "cvd-1: Kernel panic - not syncing" in done.stderr, "said while it boots"
    assert "Likely cause: the guest's kernel has panicked" in done.stderr
    host.cfctl("rm", "phone")
    leaves_nothing(host)
