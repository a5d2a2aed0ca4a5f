"""A real VM of QEMU's, asked for everything that QEMU can do; one device for all of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import refused
from tests.system.test_device_vm import adb, end_adb_server
from tests.system.test_lifecycle_vm import png_size, qmp_status, read, state

#: Far more than anything here takes.
PATIENCE_S = 60.0

MONITOR = "/tmp/cf_avd_0/cvd-1/internal/qemu_monitor.sock"


@pytest.fixture
def host(sandbox: Sandbox, host_package: Path) -> Sandbox:
    """Give a host whose network serves one instance, and where the embedded guest is built."""
    sandbox.cfctl("host", "setup", "--instances", "1")
    return sandbox


def control(host: Sandbox, *words: str) -> dict[str, Any]:
    """Do an operation on the only device; return its result."""
    document = host.json("control", "phone", *words)
    conforms(document, "control")
    assert document["target"] == "phone"
    found: dict[str, Any] = document["result"]
    return found


def until(what: Callable[[], bool], why: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.1)


def uptime(host: Sandbox) -> float:
    """Return the guest's clock: seconds since its boot."""
    return float(adb(host, "phone", "shell", "cat /proc/uptime").split()[0])


def test_everything_that_qemu_can_do(host: Sandbox) -> None:
    host.cfctl("launch", "phone", "--cpus", "2")

    # -- what there is
    listed = host.json("control", "phone")
    conforms(listed, "operations")
    assert listed["vm_manager"] == "qemu_cli"
    can = {row["operation"] for row in listed["operations"] if row["can"]}
    assert {"balloon.set", "key", "text", "disk.resize", "usb.attach", "vcpus", "raw"} <= can
    assert not {"battery.capacity", "swap.out", "sleepbtn"} & can
    assert "not here: QEMU gives a guest no battery" in host.cfctl("control", "phone").stdout

    # -- what QEMU cannot do is said before anything is tried, and what can
    for words in (["battery", "capacity", "15"], ["swap", "out"], ["sleepbtn"], ["balloon", "working-set"]):
        error = refused(host, "control", "phone", *words, code=4)
        assert (error["code"], "cfctl" in error["resolution"]) == ("vm-cannot", True)
    error = refused(host, "display", "phone", "add", "640x480", code=4)
    assert error["brief"] == "the VM manager of phone (qemu_cli) cannot add displays while a guest runs"
    assert refused(host, "control", "phone", "fly", code=2)["brief"] == "'fly' is no operation"
    assert "verb of its own" in refused(host, "control", "phone", "suspend", code=2)["brief"]

    memory(host)
    disk(host)
    processors(host)
    keys(host)
    usb(host)
    screen(host)
    raw(host)
    clock(host)
    console(host)
    a_held_monitor(host)

    # -- the power button: this guest powers itself off
    host.cfctl("powerbtn", "phone")
    until(lambda: state(host) == "stale", "the guest is up")
    assert refused(host, "control", "phone", "balloon", "stats", code=3)
    host.cfctl("stop", "phone")
    end_adb_server(host)


def memory(host: Sandbox) -> None:
    """The balloon: what the guest has, and less of it."""

    def total() -> int:
        first = adb(host, "phone", "shell", "cat /proc/meminfo").splitlines()[0]
        return int(first.split()[1]) << 10

    before = total()
    stats = control(host, "balloon", "stats")
    assert stats["balloon_bytes"] == 0
    assert stats["stats"]["total_memory"] == before
    assert 0 < stats["stats"]["free_memory"] < before
    control(host, "balloon", "set", "32M", "wait")
    until(lambda: abs(before - total() - (32 << 20)) < (2 << 20), "the guest has all its memory")
    assert abs(control(host, "balloon", "stats")["balloon_bytes"] - (32 << 20)) <= (1 << 20)
    control(host, "balloon", "set", "0", "wait")
    until(lambda: total() == before, "the guest has less memory")
    assert "has less memory than that" in refused(host, "control", "phone", "balloon", "set", "1T", code=2)["brief"]


def disk(host: Sandbox) -> None:
    """A larger disk, which the guest sees at once."""
    control(host, "disk", "resize", "0", "128M")
    until(
        lambda: adb(host, "phone", "shell", "cat /sys/block/vda/size") == str((128 << 20) // 512),
        "the guest's disk is as it was",
    )
    assert "has 1 disk(s)" in refused(host, "control", "phone", "disk", "resize", "1", "1G", code=2)["brief"]


def processors(host: Sandbox) -> None:
    """The host's threads that are the guest's processors."""
    vcpus = control(host, "vcpus")["vcpus"]
    assert [vcpu["index"] for vcpu in vcpus] == [0, 1]
    assert adb(host, "phone", "shell", "nproc") == "2"
    for vcpu in vcpus:
        assert (
            f"/proc/{vcpu['pid']}/task/{vcpu['tid']}"
            in host.run("ls", "-d", f"/proc/{vcpu['pid']}/task/{vcpu['tid']}").stdout
        )
    assert "qemu-system" in host.processes()[vcpus[0]["pid"]]


def keys(host: Sandbox) -> None:
    """A text that is typed is what the guest's keyboard says: a shell is on its screen."""
    text = "echo 'A b~{}|\"@#' $((6*7)) >/tmp/typed\n"
    assert control(host, "text", text)["keys"] == len(text)
    typed = "cat /tmp/typed 2>/dev/null || true"
    until(lambda: adb(host, "phone", "shell", typed) == 'A b~{}|"@# 42', adb(host, "phone", "shell", typed))
    control(host, "text", "sleep 1000\n")
    until(lambda: "sleep 1000" in adb(host, "phone", "shell", "ps"), "nothing sleeps")
    control(host, "key", "ctrl-c")
    until(lambda: "sleep 1000" not in adb(host, "phone", "shell", "ps"), "it was not interrupted")
    assert refused(host, "control", "phone", "key", "ctrl-anykey", code=2)["brief"] == "QEMU knows no key 'anykey'"


def usb(host: Sandbox) -> None:
    """What is plugged in; a device of QEMU's own stands for one of the host, of which there is none here."""
    assert refused(host, "control", "phone", "usb", "list", code=1)["details"] == "USB support not enabled"
    # This guest has no USB; upstream's has this controller.
    controller = {"driver": "qemu-xhci", "id": "xhci"}
    control(host, "raw", json.dumps({"execute": "device_add", "arguments": controller}))
    assert control(host, "usb", "list") == {"devices": []}
    added = {"driver": "usb-tablet", "id": "tablet", "bus": "xhci.0", "port": "2"}
    control(host, "raw", json.dumps({"execute": "device_add", "arguments": added}))
    (device,) = control(host, "usb", "list")["devices"]
    assert (device["port"], device["id"], device["product"]) == (2, "tablet", "QEMU USB Tablet")
    assert "nothing on USB port 1" in refused(host, "control", "phone", "usb", "detach", "1", code=2)["brief"]
    assert control(host, "usb", "detach", "2") == {"port": 2}
    until(lambda: control(host, "usb", "list") == {"devices": []}, "the device is there")
    assert refused(host, "control", "phone", "usb", "attach", "/dev/bus/usb/001/002", code=1)


def screen(host: Sandbox) -> None:
    """A picture of the screen, by run_cvd and by QEMU itself."""
    host.cfctl("display", "phone", "screenshot", "/tmp/s.png")
    assert png_size(read(host, "/tmp/s.png")) == (720, 400)
    code = (
        "import sys, base64\nfrom cfctl.control import operations\nfrom cfctl.launch import vm\n"
        "found = vm.do('phone', operations.operation(sys.argv[1]))\n"
        "print(found['displays'] if 'displays' in found else base64.b64decode(found['picture'])[:8])"
    )
    python = host.cfctl_argv()[0]
    assert "'width': 720, 'height': 400" in host.run(python, "-c", code, "display.list").stdout
    assert host.run(python, "-c", code, "display.screenshot").stdout.strip() == repr(b"\x89PNG\r\n\x1a\n")
    left = host.run("ls", str(Path(MONITOR).parent)).stdout
    assert "cfctl-" not in left, "no picture is left beside the sockets"


def raw(host: Sandbox) -> None:
    """QEMU's own words, and its own answers."""
    reply = control(host, "raw", '{"execute": "query-status"}')["reply"]
    assert reply["status"] == "running"
    error = refused(host, "control", "phone", "raw", '{"execute": "no-such-thing"}', code=1)
    assert "no-such-thing" in error["details"]
    assert refused(host, "control", "phone", "raw", '"Powerbtn"', code=2)


def clock(host: Sandbox) -> None:
    """A suspended guest stands still, and goes on where it was."""
    guest, here = uptime(host), time.monotonic()
    host.cfctl("suspend", "phone")
    stood = time.monotonic()
    assert qmp_status(host) == "paused"
    # QEMU answers for a guest that stands still.
    assert control(host, "vcpus")["vcpus"]
    time.sleep(3)
    stood = time.monotonic() - stood
    host.cfctl("resume", "phone")
    assert qmp_status(host) == "running"
    now = uptime(host)
    assert guest < now <= guest + (time.monotonic() - here) - stood + 0.5, "its clock went on while it was suspended"
    until(lambda: uptime(host) > now, "its clock stands still")
    # By the table too, as a relay asks; cfctl remembers it.
    code = "import sys\nfrom cfctl.control import operations\nfrom cfctl.launch import vm\n"
    code += "print(vm.do('phone', operations.operation(sys.argv[1]))['state'])"
    python = host.cfctl_argv()[0]
    assert host.run(python, "-c", code, "suspend").stdout.strip() == state(host) == "suspended"
    assert host.run(python, "-c", code, "resume").stdout.strip() == state(host) == "running"


def console(host: Sandbox) -> None:
    """Sit at the guest's console: type, read, be the only one, and leave."""
    theirs, ours = os.openpty()
    termios.tcsetwinsize(ours, (33, 111))
    with sitting_at(host, stdin=ours, stdout=ours, stderr=ours) as sitting:
        seen = Seen(theirs)
        seen.until("Ctrl-] leaves it")
        seen.until("stty rows 33 cols 111")
        os.write(theirs, b"\necho $((6*7))-here; cat /proc/sys/kernel/hostname\n")
        seen.until("42-here")
        seen.until("CUTTLEFISHCVD01")
        # Ctrl-C is the guest's.
        os.write(theirs, b"sleep 1001\n")
        until(lambda: "sleep 1001" in adb(host, "phone", "shell", "ps"), "nothing sleeps")
        os.write(theirs, b"\x03")
        until(lambda: "sleep 1001" not in adb(host, "phone", "shell", "ps"), "it was not interrupted")

        other_theirs, other = os.openpty()
        with sitting_at(host, stdin=other, stdout=other, stderr=subprocess.PIPE) as late:
            said = late.communicate(timeout=PATIENCE_S)[1]
        assert (late.returncode, "somebody else has the console of phone" in said) == (1, True)
        os.write(theirs, b"\x1d")
        seen.until("Left the console of phone")
        assert sitting.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(ours)[3] & termios.ECHO, "the terminal is as it was"
    for fd in (theirs, ours, other_theirs, other):
        os.close(fd)
    # So it is in a shell over adb.
    ignored = int(adb(host, "phone", "shell", "grep SigIgn /proc/self/status").split()[1], 16)
    assert not ignored & 2, "Ctrl-C is ignored"
    assert "42-here" in host.cfctl("logs", "phone", "--which", "console").stdout
    assert refused(host, "console", "phone", code=2)["brief"] == "console is interactive and has no --json"
    assert "needs a terminal" in host.cfctl("console", "phone", check=False).stderr


@contextlib.contextmanager
def sitting_at(host: Sandbox, **descriptors: Any) -> Iterator[subprocess.Popen[str]]:
    """Run ``cfctl console`` for the block, and no longer."""
    with host.start(*host.cfctl_argv("console", "phone"), **descriptors) as sitting:
        try:
            yield sitting
        finally:
            sitting.kill()


class Seen:
    """What is shown on a terminal, as it comes."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.text = ""

    def until(self, wanted: str) -> None:
        """Read until something is there."""
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self._terminal], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self._terminal, 4096).decode(errors="replace")


def a_held_monitor(host: Sandbox) -> None:
    """Whoever holds QEMU's monitor makes cfctl wait, not hang; and cfctl itself holds it never."""
    with socket.socket(socket.AF_UNIX) as holder:
        holder.connect(f"/proc/{host.pid}/root{MONITOR}")
        assert b"QMP" in holder.recv(1000)
        error = refused(host, "control", "phone", "vcpus", "--timeout", "2", code=5)
        assert error["code"] == "vm-silent"
    assert control(host, "vcpus")["vcpus"]
