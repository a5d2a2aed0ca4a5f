"""The embedded guest through every verb of a device's life, over the protocol and the tools that Android's have."""

from __future__ import annotations

import json
import struct
import time
import zlib
from pathlib import Path

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, refused
from tests.system.test_device_vm import adb, end_adb_server


@pytest.fixture
def host(sandbox: Sandbox, host_package: Path) -> Sandbox:
    """Give a host whose network serves two instances, and where the embedded guest is built."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    return sandbox


def state(host: Sandbox) -> str:
    """Return the state of the only device, as ``ps`` sees it."""
    (device,) = host.json("ps")["devices"]
    return str(device["state"])


def qmp_status(host: Sandbox) -> str:
    """Return what QEMU itself says; the device is cvd-1 of root."""
    talk = (
        "import json, socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('/tmp/cf_avd_0/cvd-1/internal/qemu_monitor.sock')\nf = s.makefile('rw')\nf.readline()\n"
        "for c in ('qmp_capabilities', 'query-status'):\n"
        "    f.write(json.dumps({'execute': c}) + '\\n'); f.flush()\n"
        "    while 'return' not in (a := json.loads(f.readline())): pass\n"
        "print(a['return']['status'])"
    )
    return host.run("python3", "-c", talk).stdout.strip()


def read(host: Sandbox, path: str) -> bytes:
    """Return a file of the inside."""
    return Path(f"/proc/{host.pid}/root{path}").read_bytes()


def write(host: Sandbox, path: str, text: str) -> None:
    Path(f"/proc/{host.pid}/root{path}").write_text(text)


def png_size(raw: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, all of whose chunks are whole."""
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    position, kinds, size = 8, [], (0, 0)
    while position < len(raw):
        (length,) = struct.unpack_from(">I", raw, position)
        kind, data = raw[position + 4 : position + 8], raw[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack_from(">I", raw, position + 8 + length)[0]
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data)
        kinds.append(kind)
        position += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    return size


def test_a_life_with_one_vm(host: Sandbox) -> None:
    write(host, "/tmp/payload", "from outside\n")
    write(host, "/tmp/ready", "# before it counts\nshell 'mkdir -p /data/app'\n\npush payload /data/app/payload\n")
    launched = host.cfctl("launch", "phone", "--after-boot", "/tmp/ready", "--restart", "on-failure", "--json")
    device = json.loads(launched.stdout)
    conforms(device, "device")
    assert (device["state"], device["restart"]) == ("running", "on-failure")
    assert "after boot, line 4: adb push" in launched.stderr
    assert adb(host, "phone", "shell", "cat", "/data/app/payload") == "from outside"

    flags = host.run("cat", f"{device['home']}/cuttlefish/assembly/assemble_cvd.log").stdout
    assert "--udp_port_range has no effect" in flags, "it knows the flag, so it is given its slice"

    # -- suspend: QEMU's processors stand, ps says so, and what needs them is refused
    (suspended,) = host.json("suspend", "phone")["devices"]
    conforms(suspended, "device")
    assert suspended["state"] == state(host) == "suspended"
    assert qmp_status(host) == "paused"
    assert host.json("suspend", "phone")["devices"][0]["suspended_at"] == suspended["suspended_at"]
    for verb in (["powerbtn", "phone"], ["display", "phone"], ["adb", "phone", "shell", "true"]):
        done = host.cfctl(*verb, check=False)
        assert done.returncode == 3
        assert "cfctl resume phone" in done.stderr
    assert host.json("resume", "phone")["devices"][0]["state"] == state(host) == "running"
    assert qmp_status(host) == "running"
    assert adb(host, "phone", "shell", "echo", "awake") == "awake"
    code = "from cfctl import Device\np = Device('phone')\n"
    code += "for verb in (p.suspend, p.resume): verb(); print(p.state.value)"
    assert host.run(host.cfctl_argv()[0], "-c", code).stdout.split() == ["suspended", "running"]

    # -- snapshot: memory and disk of the same moment
    # The kernel makes this up when it is first read.
    boots = adb(host, "phone", "shell", "cat /proc/sys/kernel/random/boot_id")
    adb(host, "phone", "shell", "echo before >/data/disk; echo before >/tmp/memory")
    taken = host.json("snapshot", "phone", "take", "/tmp/snap")
    conforms(taken, "device")
    assert (taken["state"], taken["snapshot"]) == ("running", "/tmp/snap")
    assert refused(host, "snapshot", "phone", "take", "/tmp/snap", code=2)["brief"] == "/tmp/snap is there already"
    adb(host, "phone", "shell", "echo after >/data/disk; echo after >/tmp/memory")
    restored = host.json("snapshot", "phone", "restore", "/tmp/snap")
    assert restored["state"] == state(host) == "running"
    assert adb(host, "phone", "shell", "cat /tmp/memory /data/disk").split() == ["before", "before"]
    assert adb(host, "phone", "shell", "cat /proc/sys/kernel/random/boot_id") == boots, "it went on, no boot"

    # -- a snapshot that fails, for want of room, leaves nothing, and the device goes on
    host.run("sh", "-c", "mkdir /tmp/small && mount -t tmpfs -o size=1m tmpfs /tmp/small")
    assert refused(host, "snapshot", "phone", "take", "/tmp/small/s", code=1)
    assert host.run("ls", "/tmp/small").stdout == ""
    assert (state(host), qmp_status(host)) == ("running", "running")

    # -- a damaged one fails at once, and the device can be booted
    host.run("truncate", "-s", "1M", "/tmp/snap/instances/cvd-1/guest_vm")
    assert "QEMU ended with status" in refused(host, "snapshot", "phone", "restore", "/tmp/snap", code=1)["details"]
    assert state(host) == "failed"
    host.cfctl("restart", "phone")

    # -- displays
    found = host.json("display", "phone")
    conforms(found, "displays")
    assert found["displays"] == [{"id": 0, "width": 720, "height": 1348, "dpi": 280, "refresh_rate_hz": 60}]
    picture = host.json("display", "phone", "screenshot", "/tmp/screen.png")
    conforms(picture, "screenshot")
    raw = read(host, "/tmp/screen.png")
    assert (len(raw), png_size(raw)) == (picture["bytes"], (720, 400))
    assert any(zlib.decompress(raw[raw.index(b"IDAT") + 4 : -16])), "there is something on it"
    error = refused(host, "display", "phone", "screenshot", "/tmp/s.png", "--display", "3", code=2)
    assert (error["brief"], error["details"]) == ("phone has no display 3", "Displays: 0.")
    # What run_cvd has against it stands in its log, and is told from there.
    error = refused(host, "display", "phone", "screenshot", "/tmp/s.jpg", code=1)
    assert error["details"] == "a screenshot of the embedded guest is a .png, not .jpg"
    error = refused(host, "display", "phone", "screenshot", "/proc/s.png", code=1)
    assert (error["brief"], error["details"]) == ("/proc/s.png cannot be written", "No such file or directory")
    error = refused(host, "display", "phone", "add", "640x480", code=4)
    assert error["brief"] == "the VM manager of phone (qemu_cli) cannot add displays while a guest runs"
    assert "cfctl screen phone --record" in refused(host, "screen-record", "phone", "start", code=1)["resolution"]

    # -- a report
    report = host.json("bugreport", "phone", "/tmp/report.zip")
    conforms(report, "bugreport")
    assert {"cvd-1/kernel.log", "cvd-1/launcher.log", "cvd-1/status.json", "host.json"} <= set(report["files"])

    # -- restart keeps the disk, powerwash does not; what comes after a boot is done again each time
    host.cfctl("restart", "phone")
    assert adb(host, "phone", "shell", "cat /data/disk") == "before"
    assert len(host.run("ls", f"{device['home']}/old-logs/cvd-1").stdout.split()) > 2
    washed = host.json("powerwash", "phone")
    assert washed["state"] == state(host) == "running"
    assert adb(host, "phone", "shell", "ls /data").split() == ["app", "local", "lost+found"]

    # -- the power button: this guest powers itself off
    host.cfctl("powerbtn", "phone")
    deadline = time.monotonic() + 60
    while state(host) != "stale":
        assert time.monotonic() < deadline, host.cfctl("logs", "phone", "-n", "20").stdout
        time.sleep(0.2)
    assert "cfctl: the power button was pressed" in host.cfctl("logs", "phone", "--which", "kernel").stdout
    assert "the guest has powered itself off" in host.cfctl("logs", "phone", "--which", "launcher").stdout

    host.cfctl("stop", "phone")
    assert refused(host, "suspend", "phone", code=3)
    end_adb_server(host)
    host.cfctl("rm", "phone")
    leaves_nothing(host)
