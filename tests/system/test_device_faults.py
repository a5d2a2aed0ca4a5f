"""Launchers that misbehave, and everything a user can get wrong: a clear error, and nothing half-made left behind."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import pytest

from tests import standins
from tests.schemas import conforms
from tests.system.sandbox import Sandbox

Package = Callable[[str], str]


@pytest.fixture
def host(sandbox: Sandbox) -> Sandbox:
    """Give a host whose network serves two instances."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    return sandbox


@pytest.fixture
def package(sandbox: Sandbox, tmp_path: Path) -> Package:
    """Write a host package with one fault where programs inside can read it."""

    def make(fault: str) -> str:
        source = standins.write(tmp_path / fault, fault)
        # /tmp inside is not the machine's; /proc/PID/root reaches it.
        target = Path(f"/proc/{sandbox.pid}/root/tmp/package-{fault}")
        shutil.copytree(source, target)
        return f"/tmp/package-{fault}"

    return make


def refused(sandbox: Sandbox, *args: str, code: int, **kwargs: Any) -> dict[str, str]:
    """Run a verb that must fail with one exit code; return its error, after looking at both of its forms."""
    done = sandbox.cfctl(*args, check=False, **kwargs)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 40, "one screen"
    done = sandbox.cfctl(*args[: args.index("--")] if "--" in args else args, "--json", check=False, **kwargs)
    assert done.returncode == code, done.stdout + done.stderr
    document = json.loads(done.stdout)
    conforms(document, "error")
    error: dict[str, str] = document["error"]
    return error


def leaves_nothing(sandbox: Sandbox) -> None:
    assert sandbox.json("ps")["devices"] == []
    left = sandbox.run("sh", "-c", "ls -d /var/lib/cfctl/devices/* /tmp/cf* 2>/dev/null", check=False).stdout
    assert left == ""
    assert [p for p in sandbox.processes().values() if "dnsmasq" not in p] == []
    assert locks(sandbox) <= {"N"}


def locks(sandbox: Sandbox) -> set[str]:
    """Return the state bytes of all lock files."""
    return set(sandbox.run("sh", "-c", "cat /var/tmp/cvd/lock/*.lock 2>/dev/null || true").stdout)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("crash", "no images found"),
        ("garbage", "ended as if all were well"),
        ("kill", "was killed by signal 9"),
    ],
)
def test_launcher_that_never_comes_to_a_vm(host: Sandbox, package: Package, fault: str, said: str) -> None:
    error = refused(host, "launch", "phone", "--host-package", package(fault), code=1)
    assert error["code"] == "launch-failed"
    assert said in error["brief"] + error["details"]
    leaves_nothing(host)


def test_launcher_that_lies(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "phone", "--host-package", package("liar"), check=False)
    assert done.returncode == 1
    assert "phone did not boot; cvd-1 came as far as: first userspace running" in done.stderr
    assert "The launcher ended as if all were well." in done.stderr
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_guest_that_panics_is_kept_with_its_logs(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "phone", "--host-package", package("panic"), check=False)
    assert done.returncode == 1
    assert "phone did not boot: no init found" in done.stderr
    assert "Kernel panic" in done.stderr
    device = host.json("ps")["devices"][0]
    conforms(device, "device")
    assert device["state"] == "failed"
    assert device["failure"]["phase"] == "userspace"
    assert "Kernel panic" in host.cfctl("logs", "phone").stdout
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_boot_that_hangs_is_ended_at_its_timeout(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "phone", "--host-package", package("hang"), "--timeout", "2", check=False)
    assert done.returncode == 5
    assert "did not boot within 2 s: cvd-1 came as far as: first userspace running" in done.stderr
    assert host.json("ps")["devices"][0]["state"] == "failed"
    assert locks(host) == {"N"}
    host.cfctl("rm", "phone")
    leaves_nothing(host)


@pytest.mark.parametrize("fault", ["refuse", "orphan"])
def test_stop_ends_what_does_not_end_by_itself(host: Sandbox, package: Package, fault: str) -> None:
    host.cfctl("launch", "phone", "--host-package", package(fault))
    done = host.cfctl("stop", "phone")
    assert "were killed" in done.stderr
    assert host.json("ps")["devices"][0]["state"] == "stopped"
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_run_cvd_that_answers_nothing_and_ignores_term(
    host: Sandbox, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.cfctl("launch", "phone", "--host-package", package("deaf"))
    # The first rung's patience is 30 s: this test skips to the last by taking the socket away.
    host.run("rm", "/tmp/cf_avd_0/cvd-1/launcher_monitor.sock")
    host.cfctl("stop", "phone")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_the_number_is_locked_while_the_device_lives(host: Sandbox, package: Package) -> None:
    directory = package("none")
    host.cfctl("launch", "a", "--host-package", directory)
    assert host.run("flock", "-n", "/var/tmp/cvd/lock/local-instance-1.lock", "true", check=False).returncode == 1
    host.cfctl("launch", "b", "--host-package", directory)
    numbers = [d["instances"][0]["number"] for d in host.json("ps")["devices"]]
    assert numbers == [1, 2]
    error = refused(host, "launch", "c", "--host-package", directory, code=1)
    assert error["code"] == "number-taken"
    assert "cfctl host setup --instances 3" in error["resolution"]
    host.cfctl("rm", "--force", "a", "b")
    leaves_nothing(host)


def test_numbers_that_other_tools_hold_are_left_alone(host: Sandbox, package: Package) -> None:
    host.run("sh", "-c", "mkdir -p /var/tmp/cvd/lock && printf I >/var/tmp/cvd/lock/local-instance-1.lock")
    host.cfctl("launch", "phone", "--host-package", package("none"))
    assert host.json("status", "phone")["instances"][0]["number"] == 2
    host.cfctl("rm", "--force", "phone")
    assert host.run("cat", "/var/tmp/cvd/lock/local-instance-1.lock").stdout == "I"


def test_name_taken(host: Sandbox, package: Package) -> None:
    directory = package("none")
    host.cfctl("launch", "phone", "--host-package", directory)
    error = refused(host, "launch", "phone", "--host-package", directory, code=1)
    assert error["brief"] == "a device named 'phone' is there already, running"
    assert "cfctl restart phone" in error["resolution"]
    assert len(host.json("ps")["devices"]) == 1
    refused(host, "rm", "phone", code=2)
    host.cfctl("rm", "--force", "phone")


@pytest.mark.parametrize("signal", ["INT", "TERM"])
def test_interrupt_during_the_boot_removes_the_device(host: Sandbox, package: Package, signal: str) -> None:
    # A suite in the background runs with SIGINT ignored, and its children inherit that.
    argv = ["env", "--default-signal=INT", *host.cfctl_argv("launch", "phone", "--host-package", package("hang"))]
    launch = host.start(*argv)
    wait_for_state(host, "booting")
    host.run("pkill", f"-{signal}", "-f", "cfctl launch phone")
    assert launch.wait(30) == 130
    leaves_nothing(host)


def test_stop_during_launch(host: Sandbox, package: Package) -> None:
    launch = host.start(*host.cfctl_argv("launch", "phone", "--host-package", package("hang")))
    wait_for_state(host, "booting")
    host.cfctl("stop", "phone")
    assert launch.wait(30) == 1
    assert host.json("status", "phone", check=False)["state"] in ("stopped", "failed")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_an_interrupt_in_the_moment_of_the_start_leaves_no_vm(host: Sandbox, package: Package) -> None:
    directory = package("none")
    program = f"""
from cfctl import process
real = process.start
def interrupted(*args, **kwargs):
    real(*args, **kwargs)
    raise KeyboardInterrupt
process.start = interrupted
from cfctl.cli.app import run
raise SystemExit(run(["launch", "phone", "--host-package", {directory!r}]))
"""
    done = host.run(host.cfctl_argv()[0], "-c", program, check=False)
    assert done.returncode == 130, done.stderr
    leaves_nothing(host)


@pytest.mark.parametrize("second", ["INT", "HUP"])
def test_a_second_signal_does_not_disturb_the_cleaning_up(host: Sandbox, package: Package, second: str) -> None:
    argv = [
        "env",
        "--default-signal=INT,HUP",
        *host.cfctl_argv("launch", "phone", "--host-package", package("deaf-boot")),
    ]
    launch = host.start(*argv)
    wait_for_state(host, "booting")
    # Its run_cvd listens by then, and is waited for in vain: before that, the cleaning up takes no time at all.
    log = "/var/lib/cfctl/devices/phone/cuttlefish/instances/cvd-1/logs/kernel.log"
    host.run("sh", "-c", f"until grep -qs VIRTUAL_DEVICE_BOOT_STARTED {log}; do sleep 0.05; done", timeout=60)
    host.run("pkill", f"-{second}", "-f", "cfctl launch phone")
    time.sleep(0.3)
    host.run("pkill", "-INT", "-f", "cfctl launch phone")
    assert launch.wait(30) == 130
    leaves_nothing(host)


def test_a_full_disk_does_not_keep_a_device_from_being_stopped(host: Sandbox, package: Package) -> None:
    host.run("mkdir", "-p", "/var/lib/cfctl/devices")
    host.run("mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", "/var/lib/cfctl/devices")
    host.cfctl("launch", "phone", "--host-package", package("none"))
    host.run("sh", "-c", "cat /dev/zero >/var/lib/cfctl/devices/.full", check=False)
    done = host.cfctl("stop", "phone")
    assert "its state could not be written down" in done.stderr
    assert [p for p in host.processes().values() if "dnsmasq" not in p] == []
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)
    host.run("umount", "/var/lib/cfctl/devices")


def test_a_damaged_record_of_a_running_device(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("none"))
    host.run("sh", "-c", "echo '{\"name\": 3' >/var/lib/cfctl/devices/phone/device.json")
    error = refused(host, "stop", "phone", code=1)
    assert error["resolution"] == "Stop what runs of it, and remove it: cfctl rm --force phone"
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def said(stream: IO[str] | None, text: str) -> None:
    """Read what a program says until it says ``text``."""
    assert stream is not None
    assert any(text in line for line in iter(stream.readline, ""))


def test_rm_looks_at_the_device_only_when_nobody_else_works_on_it(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("none"))
    host.cfctl("stop", "phone")
    # It says when it has the device.
    holder = host.start("flock", "/var/lib/cfctl/devices/phone", "sh", "-c", "echo; exec sleep 60", stdout=PIPE)
    said(holder.stdout, "")
    restart = host.start(*host.cfctl_argv("restart", "phone", "--no-wait"), stderr=PIPE)
    said(restart.stderr, "Waiting for another cfctl")
    rm = host.start(*host.cfctl_argv("rm", "phone"), stderr=PIPE)
    said(rm.stderr, "Waiting for another cfctl")
    host.run("pkill", "-f", "^sleep 60$")
    holder.communicate(timeout=60)
    restart.communicate(timeout=60)
    assert restart.returncode == 0
    told = rm.communicate(timeout=60)[1]
    assert rm.returncode == 2, told
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_a_home_that_is_a_link(host: Sandbox, package: Package) -> None:
    """Some ways to log in resolve it, others do not: it is the same device."""
    host.run("ln", "-s", "/home/tester", "/home/link")
    linked, directory = {"HOME": "/home/link"}, package("none")
    for one, other in (({}, linked), (linked, {})):
        host.cfctl("launch", "phone", "--host-package", directory, user="tester", env=one)
        assert host.json("status", "phone", user="tester", env=other)["state"] == "running"
        refused(host, "rm", "phone", code=2, user="tester", env=other)
        host.cfctl("stop", "phone", user="tester", env=other)
        host.cfctl("rm", "phone", user="tester", env=other)
        leaves_nothing(host)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_number_is_locked_whatever_descriptors_are_closed(host: Sandbox, package: Package, closed: str) -> None:
    argv = host.cfctl_argv("launch", "phone", "--host-package", package("none"))
    done = host.run("sh", "-c", f'"$@" {closed}', "sh", *argv)
    assert "assemble" not in done.stdout, "what is said on standard error stays off the answer"
    lock = "/var/tmp/cvd/lock/local-instance-1.lock"
    assert host.run("flock", "--nonblock", lock, "true", check=False).returncode == 1
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_events_that_cannot_be_written(host: Sandbox, package: Package) -> None:
    argv = host.cfctl_argv("launch", "phone", "--events", "--host-package", package("none"))
    done = host.run("sh", "-c", '"$@" >/dev/full', "sh", *argv, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    leaves_nothing(host)


def test_stop_spares_bystanders(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("none"))
    shell = host.start("sleep", "30", env={"HOME": "/var/lib/cfctl/devices/phone"})
    host.cfctl("stop", "phone")
    assert shell.poll() is None
    shell.terminate()
    shell.wait()
    host.cfctl("rm", "phone")


def test_one_device_that_fails_does_not_keep_the_others_waiting(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "a", "--host-package", package("none"))
    done = host.cfctl("stop", "nosuch", "a", "--json", check=False)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    conforms(document, "devices")
    assert [device["state"] for device in document["devices"]] == ["stopped"]
    assert document["errors"][0]["code"] == "no-such-device"
    conforms(host.json("rm", "a"), "removed")


def test_events_end_with_the_error(host: Sandbox, package: Package) -> None:
    done = host.cfctl("launch", "--events", "--host-package", package("crash"), check=False)
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        conforms(event, "event")
    assert [event["phase"] for event in events if event["event"] == "phase"] == ["host", "assemble"]
    assert events[-1]["event"] == "error"
    assert events[-1]["error"]["code"] == "launch-failed"


def test_a_launch_that_nobody_waits_for_and_that_fails(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--no-wait", "--host-package", package("panic"))
    wait_for_state(host, "failed")
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def wait_for_state(sandbox: Sandbox, state: str) -> None:
    for _ in range(100):
        devices = sandbox.json("ps")["devices"]
        if devices and devices[0]["state"] == state:
            return
    raise AssertionError(f"no device became {state}: {devices}")


# -- what users get wrong --------------------------------------------------------------------------------


def test_unknown_gpu_mode(host: Sandbox, package: Package) -> None:
    error = refused(host, "launch", "--gpu", "gfxstrem", "--host-package", package("none"), code=2)
    assert "gfxstream" in error["details"] + (error["resolution"] or "")
    leaves_nothing(host)


@pytest.mark.parametrize("count", ["-1", "129", "10000"])
def test_impossible_number_of_instances(sandbox: Sandbox, count: str) -> None:
    before = sandbox.snapshot()
    refused(sandbox, "host", "setup", "--instances", count, code=2)
    refused(sandbox, "launch", "--num-instances", count, "--host-package", "/", code=2)
    assert sandbox.snapshot() == before


def test_not_a_host_package(host: Sandbox) -> None:
    error = refused(host, "launch", "--host-package", "/usr", code=2)
    assert error["brief"] == "/usr is not a host package"
    leaves_nothing(host)


def test_no_host_network(sandbox: Sandbox, package: Package) -> None:
    error = refused(sandbox, "launch", "--host-package", package("none"), code=4)
    assert error["resolution"] == "Make them: cfctl host setup --instances 10"
    leaves_nothing(sandbox)


@pytest.mark.parametrize(
    ("options", "said"), [("ro", "Read-only file system"), ("size=4k", "No space left on device")]
)
def test_home_on_a_full_or_read_only_disk(host: Sandbox, package: Package, options: str, said: str) -> None:
    host.run("mkdir", "-p", "/var/lib/cfctl/devices")
    host.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", "/var/lib/cfctl/devices")
    if options != "ro":
        host.run("sh", "-c", "cat /dev/zero >/var/lib/cfctl/devices/.full", check=False)
    error = refused(host, "launch", "phone", "--host-package", package("none"), code=1)
    assert said in error["brief"]
    host.run("umount", "/var/lib/cfctl/devices")
    leaves_nothing(host)


def test_lock_files_on_a_full_disk(host: Sandbox, package: Package) -> None:
    host.run("mount", "-t", "tmpfs", "-o", "size=8k,mode=1777", "tmpfs", "/var/tmp")
    host.run("sh", "-c", "cat /dev/zero >/var/tmp/.full", check=False)
    directory = package("none")
    error = refused(host, "launch", "phone", "--host-package", directory, code=1)
    lock = "/var/tmp/cvd/lock/local-instance-1.lock"
    assert error["brief"] == f"{lock} cannot be written: No space left on device"
    assert error["resolution"] == f"Make room there: df -h {lock}"
    host.run("rm", "/var/tmp/.full")
    leaves_nothing(host)
    # A mark that was written before the disk of another directory was found to be full is taken back.
    acloud = "/tmp/acloud_cvd_temp"
    host.run("mkdir", acloud)
    host.run("mount", "-t", "tmpfs", "-o", "size=4k,mode=1777", "tmpfs", acloud)
    host.run("sh", "-c", f"cat /dev/zero >{acloud}/.full", check=False)
    error = refused(host, "launch", "phone", "--host-package", directory, code=1)
    assert error["brief"] == f"{acloud}/local-instance-1.lock cannot be written: No space left on device"
    assert locks(host) == {"N"}
    host.run("umount", acloud)
    host.cfctl("launch", "phone", "--host-package", directory)
    host.cfctl("rm", "--force", "phone")


@pytest.mark.parametrize("verb", [("host", "setup"), ("host", "teardown"), ("demo",)])
def test_not_root(sandbox: Sandbox, verb: tuple[str, ...]) -> None:
    error = refused(sandbox, *verb, code=4, user="tester")
    assert f"sudo cfctl {' '.join(verb)}" in error["resolution"]


@pytest.mark.parametrize(
    ("program", "verb", "package"),
    [
        ("nft", ("host", "setup"), "nftables"),
        ("dnsmasq", ("host", "setup"), "dnsmasq-base"),
        ("adb", ("demo",), "adb"),
        ("qemu-system-x86_64", ("launch",), "qemu-system-x86"),
    ],
)
def test_missing_program(
    sandbox: Sandbox, program: str, verb: tuple[str, ...], package: str, host_package: Path
) -> None:
    if verb == ("launch",):
        sandbox.cfctl("host", "setup", "--instances", "1")
    before = sandbox.snapshot()
    place = sandbox.run("sh", "-c", f"command -v {program}").stdout.strip()
    sandbox.run("mount", "--bind", "/dev/null", place)
    # By itself, cfctl would do without nft.
    error = refused(sandbox, *verb, code=4, env={"CFCTL_HOST_RULES": "nft"})
    assert f"apt-get install --no-install-recommends {package}" in error["resolution"]
    assert sandbox.json("ps")["devices"] == []
    sandbox.run("umount", place)
    for part in ("links", "addresses", "rules", "processes"):
        assert sandbox.snapshot()[part] == before[part]
