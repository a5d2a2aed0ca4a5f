"""A real VM by the relay's API: every operation that QEMU has, who may ask for which, and a guest that boots anew."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.relay.relays import wait
from tests.system.relay_host import Host
from tests.system.sandbox import USER, Sandbox
from tests.system.test_device_vm import adb, end_adb_server
from tests.system.test_lifecycle_vm import png_size
from tests.system.test_relay import host

__all__ = ["host"]  # the fixture


@pytest.fixture
def box(sandbox: Sandbox, host_package: Path) -> Sandbox:
    """Give the host's sandbox, where the embedded guest is built."""
    del host_package
    return sandbox


def _ended(answers: list[Any]) -> tuple[str, str]:
    last = answers[-1]
    return last["status"], (last.get("error") or {}).get("code", "")


def test_a_vm_from_launch_to_stop(host: Host, box: Sandbox) -> None:
    operator, viewer = (host.token("--role", role, user=USER) for role in ("operator", "viewer"))
    *events, device, ended = host.call("Devices/Launch", {"name": "phone", "memory_mb": [256]})
    assert ended == {"status": "OK"}
    phases = [event["phase"]["phase"] for event in events if "phase" in event]
    assert phases[-1] == "booted"
    assert len(phases) > 4

    watch = [*box.cfctl_argv()[:1], "-m", "tests.relay.call", "Devices/Watch", "{}"]
    with box.start(*watch, user=USER, stdout=subprocess.PIPE) as watching:
        try:
            assert watching.stdout is not None
            states = (json.loads(line)["changed"]["state"] for line in watching.stdout)
            assert next(states) == "running"
            # Who watches is told what lasts: this lasts until the watcher was told.
            for call, state in (("Suspend", "suspended"), ("Resume", "running")):
                assert _ended(host.remote(operator, (f"Control/{call}", {"target": "phone"}))[0]) == ("OK", "")
                assert state in states
            _operate(host, operator, viewer)
            _reboot(host, box)
            *_, device, ended = host.call("Devices/Stop", {"name": "phone"})
            assert (ended, device["device"]["state"]) == ({"status": "OK"}, "stopped")
            assert "stopped" in states
        finally:
            box.run("pkill", "-f", "Devices/Watch", check=False)
            watching.wait(60)
            end_adb_server(box, USER)


def _operate(host: Host, operator: str, viewer: str) -> None:
    phone = {"target": "phone"}
    looks = ("Control/GetBalloon", phone), ("Control/ListDisplays", phone), ("Control/ListVcpus", phone)
    balloon, displays, vcpus, usb, picture, denied = host.remote(
        viewer, *looks, ("Control/ListUsb", phone), ("Control/Screenshot", phone), ("Control/Suspend", phone)
    )
    assert int(balloon[0]["stats"]["total_memory"]) > 100 << 20
    assert displays[0]["displays"][0]["width"] > 0
    assert vcpus[0]["vcpus"][0]["thread_id"] > 0
    # The embedded guest has no controller, and QEMU says so.
    assert _ended(usb)[1] == "vm-refused"
    assert png_size(base64.b64decode(picture[0]["png"])) > (0, 0)
    assert _ended(denied) == ("PERMISSION_DENIED", "not-allowed")

    suspended, state, resumed, shrunk, key, text, battery, display, unknown = host.remote(
        operator,
        ("Control/Suspend", phone),
        ("Devices/Get", {"name": "phone"}),
        ("Control/Resume", phone),
        ("Control/SetBalloon", {**phone, "mb": 64}),
        ("Control/PressKey", {**phone, "keys": ["ctrl", "a"]}),
        ("Control/TypeText", {**phone, "text": "true\n"}),
        ("Control/SetBattery", {**phone, "property": "capacity", "value": "15"}),
        ("Control/AddDisplay", {**phone, "width": 1280, "height": 800}),
        ("Control/PressKey", {**phone, "keys": ["--help"]}),
    )
    for done in (suspended, resumed, shrunk, key, text):
        assert _ended(done) == ("OK", "")
    assert state[0]["state"] == "suspended"
    for refused in (battery, display):
        assert _ended(refused)[0] == "FAILED_PRECONDITION", refused
    assert _ended(unknown) == ("INVALID_ARGUMENT", "usage")
    taken = host.call("Control/GetBalloon", phone)
    assert 60 <= taken[0]["actual_mb"] <= 68


def _reboot(host: Host, box: Sandbox) -> None:
    """Have the guest boot anew by itself: its VM stays, and so does whoever watches."""
    before = adb(box, "phone", "shell", "cat /proc/sys/kernel/random/boot_id", user=USER)
    # In the background: a shell whose guest is gone waits for ever.
    later = "sync; (sleep 1; reboot -f) </dev/null >/dev/null 2>&1 &"
    adb(box, "phone", "shell", later, user=USER)

    def again() -> bool:
        asked = box.cfctl_argv("adb", "phone", "shell", "cat /proc/sys/kernel/random/boot_id")
        done = box.run("timeout", "--foreground", "-k", "1", "5", *asked, user=USER, check=False)
        return done.returncode == 0 and len(done.stdout.strip()) > 30 and done.stdout.strip() != before

    wait(again, "the guest to boot anew")
    assert host.call("Devices/Get", {"name": "phone"})[0]["state"] == "running"
