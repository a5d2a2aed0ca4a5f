"""A device's life with host packages that lack something or lie, devices that die, and hosts that are too small."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import standins
from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, refused, wait_for_state
from tests.system.watching import watching

Package = Callable[..., str]

#: Plays upstream's program over crosvm: its answer is a file, and it ends with status 0 whatever comes of it.
_DISPLAY = """#!/bin/sh
answer={directory}/displays
case "$1" in
list) cat $answer ;;
add) [ -e {directory}/obeys ] && cp {directory}/two $answer; echo "displays updated" ;;
remove) [ -e {directory}/obeys ] && cp {directory}/one $answer; echo "no_such_display: 1" ;;
esac
exit 0
"""
_ONE = {"0": {"mode": {"windowed": [720, 1280]}, "refresh-rate": 60, "dpi": [320, 320]}}
_TWO = {**_ONE, "1": {"mode": {"windowed": [640, 480]}, "refresh-rate": 30, "dpi": [160, 160]}}


@pytest.fixture
def host(sandbox: Sandbox) -> Sandbox:
    """Give a host whose network serves two instances."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    return sandbox


@pytest.fixture
def package(sandbox: Sandbox, tmp_path: Path) -> Package:
    """Write a host package with one fault, and further programs, where programs inside can read it."""

    def make(fault: str = "none", **programs: str) -> str:
        source = standins.write(tmp_path / fault, fault)
        for name, text in programs.items():
            (source / "bin" / name).write_text(text)
            (source / "bin" / name).chmod(0o755)
        shutil.copytree(source, inside(sandbox, f"/tmp/package-{fault}"))
        return f"/tmp/package-{fault}"

    return make


def inside(host: Sandbox, path: str) -> Path:
    """Return a file of the inside as it is seen from here."""
    return Path(f"/proc/{host.pid}/root{path}")


def device(host: Sandbox) -> dict[str, Any]:
    (found,) = host.json("ps")["devices"]
    return dict(found)


def change_record(host: Sandbox, **changed: object) -> None:
    mark = inside(host, "/var/lib/cfctl/devices/phone/device.json")
    mark.write_text(json.dumps({**json.loads(mark.read_text()), **changed}))


def record(host: Sandbox) -> dict[str, Any]:
    return dict(json.loads(inside(host, "/var/lib/cfctl/devices/phone/device.json").read_text()))


def kill_run_cvd(host: Sandbox) -> None:
    pids = [str(pid) for pid, args in host.processes().items() if "/bin/run_cvd" in args]
    host.run("kill", "-9", *pids)


def tend(host: Sandbox) -> list[str]:
    """Do one round of what keeps devices up; return what was decided."""
    code = (
        "from datetime import UTC, datetime\nfrom cfctl.launch import keeper\n"
        "for d in keeper.tend(now=datetime.now(UTC), timeout=60): print(d.name, d.why)\n"
    )
    return host.run(host.cfctl_argv()[0], "-c", code).stdout.splitlines()


def test_a_run_cvd_that_does_not_answer(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("deaf"))
    error = refused(host, "suspend", "phone", "--timeout", "1", code=5)
    assert error["brief"] == "cvd-1: run_cvd did not answer SUSPEND within 1 s"
    assert device(host)["state"] == "running"
    host.run("pkill", "-KILL", "-f", "bin/run_cvd")
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_packages_that_lack_the_programs(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package())
    for verb, program in (
        (["powerbtn", "phone"], "powerbtn_cvd"),
        (["snapshot", "phone", "take", "/tmp/s"], "snapshot_util_cvd"),
        (["display", "phone"], "cvd_internal_display"),
        (["bugreport", "phone", "/tmp/b.zip"], "cvd_internal_host_bugreport"),
    ):
        error = refused(host, *verb, code=4)
        assert error["brief"] == f"the host package of phone has no {program}"
    assert "no streamer" in refused(host, "screen-record", "phone", "start", code=4)["details"]
    # What goes through the monitor works without any.
    assert host.json("suspend", "phone")["devices"][0]["state"] == "suspended"
    assert host.json("resume", "phone")["devices"][0]["state"] == "running"
    # Stopped while suspended: nothing of that is left.
    host.cfctl("suspend", "phone")
    host.cfctl("stop", "phone")
    assert record(host)["suspended_at"] is None
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_programs_that_fail_or_lie(host: Sandbox, package: Package) -> None:
    liar = "#!/bin/sh\necho all is well\n"
    directory = "/tmp/package-none"
    host.cfctl(
        *("launch", "phone", "--host-package"),
        package(
            powerbtn_cvd="#!/bin/sh\necho no crosvm >&2\nexit 1\n",
            snapshot_util_cvd=liar,
            cvd_internal_host_bugreport=liar,
            cvd_internal_display=_DISPLAY.format(directory=directory),
        ),
    )
    assert refused(host, "powerbtn", "phone", code=1)["details"] == "no crosvm"
    assert "/tmp/s is not a snapshot" in refused(host, "snapshot", "phone", "take", "/tmp/s", code=2)["brief"]
    assert device(host)["state"] == "running", "it goes on after the attempt"
    assert "wrote no zip file" in refused(host, "bugreport", "phone", "/tmp/b.zip", code=1)["brief"]
    error = refused(host, "display", "phone", "screenshot", "/tmp/s.png", code=1)
    assert error["brief"] == "/tmp/s.png was not written"

    # -- displays: whoever ends with status 0 is looked at afterwards
    for name, displays in (("displays", _ONE), ("one", _ONE), ("two", _TWO)):
        inside(host, f"{directory}/{name}").write_text(json.dumps({"displays": displays}))
    error = refused(host, "display", "phone", "add", "640x480", code=4)
    assert "cannot add displays" in error["brief"]
    config = inside(host, "/var/lib/cfctl/devices/phone/.cuttlefish_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "vm_manager": "qemu_cli"}))
    error = refused(host, "snapshot", "phone", "take", "/tmp/q", code=4)
    assert error["brief"] == "the launcher of phone cannot save a VM of QEMU's"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vm_manager": "crosvm"}))
    assert refused(host, "display", "phone", "add", "640x480", code=1)["details"] == "displays updated"
    inside(host, f"{directory}/obeys").touch()
    added = host.json("display", "phone", "add", "640x480", "--dpi", "160", "--refresh-rate", "30")
    assert added["displays"][1] == {"id": 1, "width": 640, "height": 480, "dpi": 160, "refresh_rate_hz": 30}
    assert refused(host, "display", "phone", "remove", "7", code=2)["details"] == "Displays: 0, 1."
    assert [d["id"] for d in host.json("display", "phone", "remove", "1")["displays"]] == [0]
    inside(host, f"{directory}/displays").write_text("failed to connect")
    assert "does not tell its displays" in refused(host, "display", "phone", code=1)["brief"]
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_a_snapshot_path_is_never_deleted_unless_it_is_one(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package(snapshot_util_cvd="#!/bin/sh\nexit 1\n"))
    inside(host, "/tmp/precious").mkdir()
    inside(host, "/tmp/precious/file").touch()
    assert refused(host, "snapshot", "phone", "take", "/tmp/precious", code=2)
    error = refused(host, "snapshot", "phone", "take", "/tmp/precious", "--force", code=2)
    assert error["brief"] == "/tmp/precious is not a snapshot, and was not touched"
    assert inside(host, "/tmp/precious/file").exists()
    inside(host, "/tmp/other").mkdir()
    inside(host, "/tmp/other/snapshot_meta_info.json").write_text('{"guest_snapshot": {"2": "x"}}')
    error = refused(host, "snapshot", "phone", "restore", "/tmp/other", code=2)
    assert error["brief"] == "/tmp/other is a snapshot of instance 2, not of 1"
    host.cfctl("rm", "--force", "phone")


def test_devices_that_come_back(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package(), "--restart", "on-failure")
    assert tend(host) == [], "it is up"
    kill_run_cvd(host)
    wait_for_state(host, "stale")
    assert tend(host) == ["phone it died"]
    assert (device(host)["state"], record(host)["restarts"]) == ("running", 1)

    # -- a second death soon after: it waits
    kill_run_cvd(host)
    wait_for_state(host, "stale")
    change_record(host, started_at="2999-01-01T00:00:00.000Z", restarts=0)
    assert tend(host) == ["phone it died"]
    assert device(host)["state"] == "running"
    kill_run_cvd(host)
    wait_for_state(host, "stale")
    change_record(host, restarts=9)
    assert tend(host) == ["phone it died"]
    assert device(host)["state"] == "stale", "not yet"

    # -- another boot of the host: only for those that always come back
    change_record(host, boot_id="another", restarts=0)
    assert tend(host) == []
    change_record(host, request={**record(host)["request"], "restart": "always"})
    assert tend(host) == ["phone the host was booted again"]
    assert device(host)["state"] == "running"

    # -- whoever stops it means it
    host.cfctl("stop", "phone")
    assert tend(host) == []
    host.cfctl("restart", "phone")
    kill_run_cvd(host)
    wait_for_state(host, "stale")
    host.cfctl("stop", "phone")
    assert tend(host) == []
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_a_device_that_nobody_waited_for_is_remembered_to_have_booted(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--no-wait", "--host-package", package())
    wait_for_state(host, "running")
    # Whoever looks next writes it down, once nobody can be waiting for it any more; until then its log is kept.
    deadline = time.monotonic() + 60
    while not record(host)["booted_at"]:
        assert time.monotonic() < deadline
        tend(host)
    # Its log may be emptied now.
    inside(host, f"{device(host)['home']}/cuttlefish/instances/cvd-1/logs/kernel.log").write_text("")
    assert device(host)["state"] == "running"
    host.cfctl("rm", "--force", "phone")


def test_the_watcher_of_the_host_boots_them_again(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--restart", "on-failure", "--host-package", package())
    with watching(host) as watch:
        kill_run_cvd(host)
        watch.until(lambda: record(host)["restarts"] == 1, "it is begun")
        wait_for_state(host, "running")
        watch.until(lambda: any("boot phone again: it died" in e["text"] for e in watch.of("note")), "it is told")
        host.cfctl("stop", "phone")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_in_the_foreground(host: Sandbox, package: Package) -> None:
    directory = package()

    def start(*words: str) -> subprocess.Popen[str]:
        argv = ["env", "--default-signal=INT", *host.cfctl_argv(*words, "--foreground")]
        return host.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    running = start("launch", "phone", "--host-package", directory)
    wait_for_state(host, "running")
    assert running.poll() is None
    host.cfctl("stop", "phone")
    assert running.communicate(timeout=60)[0] == "phone was stopped\n"
    assert running.returncode == 0

    running = start("restart", "phone")
    wait_for_state(host, "running")
    kill_run_cvd(host)
    assert "phone ended by itself: it was stale" in running.communicate(timeout=60)[1]
    assert running.returncode == 1

    running = start("restart", "phone")
    wait_for_state(host, "running")
    # Both look at it once before the signal comes: it is for whoever attends, not for the boot.
    deadline = time.monotonic() + 60
    while not record(host)["booted_at"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    host.run("pkill", "-INT", "-f", "cfctl restart phone --foreground")
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert device(host)["state"] == "stopped"
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_a_device_that_does_not_fit(host: Sandbox, package: Package) -> None:
    directory = package()
    error = refused(host, "launch", "phone", "--host-package", directory, "--memory-mb", "99999999", code=4)
    assert error["brief"].startswith("the device does not fit into memory: 100000063 MiB are needed, ")
    assert "MemAvailable" in error["details"] or "control group" in error["details"]
    assert host.json("ps")["devices"] == []
    host.cfctl(
        *("launch", "phone", "--host-package", directory, "--force"),
        *("--num-instances", "2", "--memory-mb", "99999999,512", "--cpus", "2,4"),
    )
    argv = inside(host, "/var/lib/cfctl/devices/phone/argv").read_text()
    assert "--memory_mb=99999999,512 " in argv
    assert "--cpus=2,4 " in argv
    assert "port_range" not in argv, "this launcher does not know the flags"
    host.cfctl("rm", "--force", "phone")


def test_slips_before_a_launch(host: Sandbox, package: Package) -> None:
    directory = package()
    inside(host, "/tmp/ready").write_text("root\nreboot\n")
    launch = ("launch", "phone", "--host-package", directory)
    assert refused(host, *launch, "--after-boot", "/tmp/ready", code=2)["brief"].startswith("/tmp/ready, line 2: ")
    assert "not one of" in refused(host, *launch, "--restart", "sometimes", code=2)["brief"]
    assert "2 values for 1 instance" in refused(host, *launch, "--cpus", "2,4", code=2)["brief"]
    assert "whole number" in refused(host, *launch, "--cpus", "2,x", code=2)["brief"]
    assert "contradict" in refused(host, *launch, "--foreground", "--no-wait", code=2)["brief"]
    leaves_nothing(host)


def test_what_comes_after_a_boot_can_fail(host: Sandbox, package: Package) -> None:
    inside(host, "/tmp/ready").write_text("shell true\n")
    # Nothing listens on the device's ADB port: this guest has none.
    launch = ("launch", "phone", "--host-package", package(), "--after-boot", "/tmp/ready", "--timeout", "5")
    done = host.cfctl(*launch, check=False)
    assert done.returncode == 5
    assert "adb does not reach 127.0.0.1:6520" in done.stderr
    found = device(host)
    conforms(found, "device")
    assert (found["state"], found["failure"]["phase"]) == ("failed", "after-boot")
    host.run("adb", "kill-server")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_logs_of_earlier_boots_are_kept(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package())
    home = device(host)["home"]
    log = inside(host, f"{home}/cuttlefish/instances/cvd-1/logs/kernel.log")
    with log.open("a") as file:
        file.write("of the first boot\n")
    host.cfctl("restart", "phone")
    assert "of the first boot" not in log.read_text()
    assert "of the first boot" in inside(host, f"{home}/old-logs/cvd-1/kernel.log.1").read_text()
    host.cfctl("rm", "--force", "phone")


def test_the_unit_is_what_systemd_and_cfctl_understand() -> None:
    unit = Path(__file__).parents[2] / "packaging/systemd/cfctl-device@.service"
    command = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")).split()
    assert command == ["ExecStart=/usr/bin/cfctl", "restart", "--foreground", "%i"]
    if found := shutil.which("systemd-analyze"):
        # The program itself is not installed where this runs.
        done = subprocess.run([found, "verify", unit], capture_output=True, text=True, check=False, timeout=60)
        said = [line for line in done.stderr.splitlines() if "cfctl-device@" in line and "/usr/bin/cfctl" not in line]
        assert said == []
