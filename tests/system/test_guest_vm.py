"""The embedded host package: its commands, a real VM on the real network, and every way it can end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.sandbox import Sandbox

#: Of the first two instances, for an ordinary user.
SOCKETS = "/tmp/cf_avd_1000"

TALK = r"""
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
s.sendall(bytes.fromhex(sys.argv[2]))
got = b""
while len(got) < int(sys.argv[3]):
    more = s.recv(64)
    if not more:
        break
    got += more
print(got.hex())
"""


@dataclass
class Host:
    """A host with two instances' network, and the package's commands run by an ordinary user."""

    box: Sandbox
    package: Path
    home: str = "/home/tester/d"

    @property
    def env(self) -> dict[str, str]:
        return {"HOME": self.home, "ANDROID_ADB_SERVER_PORT": "5999"}

    def run(self, command: str, *args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        program = str(self.package / "bin" / command)
        return self.box.run(program, *args, user="tester", env={**self.env, **env}, check=check)

    def launch(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        try:
            return self.run("launch_cvd", "--daemon", *args, check=check)
        except subprocess.TimeoutExpired as exc:
            # How far the guest came, and what its launcher and QEMU say.
            logs = self.sh(
                "tail -n 40 $HOME/cuttlefish/instances/*/kernel.log $HOME/cuttlefish/instances/*/logs/*.log"
            )
            raise AssertionError(f"{exc}\n{logs}") from exc

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.box.run("sh", "-c", script, user="tester", env=self.env, check=check).stdout

    def adb(self, port: int, *command: str) -> str:
        # The server takes a VM that was started again for the connection that it had to the one before.
        self.sh(f"adb disconnect 127.0.0.1:{port}; adb connect 127.0.0.1:{port}", check=False)
        self.box.run("adb", "-s", f"127.0.0.1:{port}", "wait-for-device", user="tester", env=self.env, timeout=60)
        done = self.box.run("adb", "-s", f"127.0.0.1:{port}", *command, user="tester", env=self.env)
        return done.stdout

    def talk(self, number: int, request: bytes, expect: int) -> bytes:
        path = f"{SOCKETS}/cvd-{number}/launcher_monitor.sock"
        done = self.box.run("python3", "-c", TALK, path, request.hex(), str(expect), user="tester")
        return bytes.fromhex(done.stdout.strip())

    def file(self, path: str) -> str:
        return self.box.run("cat", f"{self.home}/{path}", user="tester").stdout

    def device_processes(self) -> dict[int, str]:
        return {
            pid: args
            for pid, args in self.box.processes().items()
            if any(word in args for word in ("run_cvd", "qemu", "webRTC"))
        }

    def machines(self) -> set[int]:
        """Return the supervisors and their VMs; streamers come and go while no relay serves them."""
        return {pid for pid, args in self.device_processes().items() if "bin/webRTC" not in args}

    def wait_until_gone(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while left := self.device_processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def sockets(self) -> list[str]:
        return self.sh(f"find {SOCKETS} -type s | sort").split()


@pytest.fixture
def host(sandbox: Sandbox, host_package: Path) -> Iterator[Host]:
    """Give a host that is ready for two instances."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    sandbox.run("mkdir", "/home/tester/d", user="tester")
    made = Host(sandbox, host_package)
    yield made
    sandbox.run("adb", "kill-server", user="tester", env=made.env, check=False)


def test_a_device_from_launch_to_stop(host: Host) -> None:
    launched = host.launch("--serial_number=SERIAL7")
    assert "Virtual device booted successfully" in launched.stderr
    assert launched.stdout == ""

    # -- ADB, at once, through the forwarder, and directly
    assert "Linux SERIAL7 " in host.adb(6520, "shell", "uname", "-a")
    addresses = host.adb(6520, "shell", "ifconfig")
    assert "192.168.98.2" in addresses
    assert "192.168.97.2" in addresses
    assert "connected to 192.168.98.2" in host.sh("adb connect 192.168.98.2:5555")
    host.sh("head -c 3000000 /dev/urandom >$HOME/file")
    host.adb(6520, "push", "/home/tester/d/file", "/tmp/file")
    host.adb(6520, "pull", "/tmp/file", "/home/tester/d/again")
    host.sh("cmp $HOME/file $HOME/again")

    # -- the layout
    links = host.sh("cd $HOME && find . -maxdepth 1 -type l -printf '%f %l\n' | sort").splitlines()
    root = "/home/tester/d/cuttlefish"
    assert links == [
        f".cuttlefish_config.json {root}/assembly/cuttlefish_config.json",
        f"cuttlefish_assembly {root}/assembly",
        f"cuttlefish_runtime {root}/instances/cvd-1",
        f"cuttlefish_runtime.1 {root}/instances/cvd-1",
    ]
    assert host.sh(f"stat -c '%a %G' {root} {root}/instances/cvd-1 {SOCKETS}/cvd-1") == "775 cvdnetwork\n" * 3
    assert host.sockets() == [
        f"{SOCKETS}/cvd-1/internal/input.sock",
        f"{SOCKETS}/cvd-1/internal/qemu_monitor.sock",
        f"{SOCKETS}/cvd-1/internal/vnc.sock",
        f"{SOCKETS}/cvd-1/launcher_monitor.sock",
    ]
    config = json.loads(host.file(".cuttlefish_config.json"))
    assert config["instances"]["1"]["adb_host_port"] == 6520
    log = host.file("cuttlefish_runtime/launcher.log")
    for token in ("BOOT_STARTED", "NETWORK_MOBILE_CONNECTED", "NETWORK_ETHERNET_CONNECTED", "BOOT_COMPLETED"):
        assert f"] VIRTUAL_DEVICE_{token}\n" in log
        assert f"VIRTUAL_DEVICE_{token}" in host.file("cuttlefish_runtime/kernel.log")

    # -- status
    (status,) = json.loads(host.run("cvd_status", "--print").stdout)
    assert status == {
        "adb_serial": "127.0.0.1:6520",
        "assembly_dir": f"{root}/assembly",
        "displays": ["720 x 1348 ( 280 )"],
        "instance_dir": f"{root}/instances/cvd-1",
        "status": "Running",
        "web_access": "",
        "webrtc_device_id": "cvd-1",
    }

    # -- the console
    script = f"(echo 'echo $((6*7))x'; sleep 0.5) >{root}/instances/cvd-1/console"
    assert "42x" in host.sh(f"timeout 2 cat {root}/instances/cvd-1/console & sleep 0.2; {script}; wait", check=False)

    # -- the socket: status, suspend, resume, what it does not know, stop
    assert host.talk(1, b"II", 2) == b"SS"
    assert host.talk(1, bytes.fromhex("41020000002a00"), 1) == b"S"
    assert host.talk(1, bytes.fromhex("410200000032" + "00"), 1) == b"S"
    host.adb(6520, "shell", "echo kept >/data/kept")
    assert host.talk(1, b"P", 5) == b"S" + bytes(4)
    assert "No such file" in host.adb(6520, "shell", "cat /data/kept 2>&1 || true")
    assert "up" in host.adb(6520, "shell", "uptime")
    stopped = host.run("stop_cvd")
    assert "Successfully stopped device cvd-1: 127.0.0.1:6520" in stopped.stderr
    assert host.device_processes() == {}
    assert host.sockets() == []
    assert host.run("cvd_status", check=False).returncode == 1


def test_two_side_by_side_keep_the_locks_they_were_given(host: Host) -> None:
    # As cfctl does it: the launcher is started with a locked descriptor, and everything below it keeps it.
    program = host.package / "bin/launch_cvd"
    launch = f"{program} --daemon --num_instances=2 --webrtc_device_id=a,b"
    host.sh(f"exec 9>$HOME/lock; flock 9; {launch} >$HOME/out 2>&1")
    assert "cvd-2: Virtual device booted successfully" in host.file("out")
    holds = "ls -l /proc/*/fd 2>/dev/null | grep -c /home/tester/d/lock"
    assert host.sh(holds).strip() == "4"
    assert host.adb(6520, "shell", "ifconfig", "eth1").count("192.168.97.2 ") == 1
    assert host.adb(6521, "shell", "ifconfig", "eth1").count("192.168.97.6 ") == 1
    both = json.loads(host.run("cvd_status", "--print", "--all_instances").stdout)
    assert [status["webrtc_device_id"] for status in both] == ["a", "b"]

    # -- restart: 'S' when the VM is down, four bytes when it is up again, on the same connection
    before = host.machines()
    assert host.talk(2, b"R", 5) == b"S" + bytes(4)
    assert len(host.machines() & before) == len(before) - 1 == 3
    assert "Virtual device booted successfully" in host.file("cuttlefish_runtime.2/launcher.log").splitlines()[-1]
    assert host.sh(holds).strip() == "4"

    # -- one of them is stopped, the other stays
    refused = host.run("cvd_internal_stop", "--instance_nums=1", check=False)
    assert refused.returncode == 1
    assert "cannot be stopped before the others" in refused.stderr
    host.run("cvd_internal_stop", "--instance_nums=2")
    assert host.run("cvd_status", "--instance_name=cvd-2", check=False).returncode == 1
    assert host.run("cvd_status", "--instance_name=cvd-1").returncode == 0
    host.run("stop_cvd")
    assert host.device_processes() == {}
    assert host.sh("flock -n $HOME/lock echo free").strip() == "free"


def test_a_killed_launcher_leaves_no_vm_and_can_be_cleaned(host: Host) -> None:
    host.launch()
    (launcher,) = [pid for pid, args in host.box.processes().items() if "bin/run_cvd" in args]
    host.box.run("kill", "-9", str(launcher))
    host.wait_until_gone()
    assert host.run("cvd_status", check=False).returncode == 1
    assert host.run("stop_cvd").returncode == 0
    assert host.sockets() == []

    # -- a supervisor that does not answer: stop kills it, and nothing else
    host.launch()
    (launcher,) = [pid for pid, args in host.box.processes().items() if "bin/run_cvd" in args]
    bystander = host.box.start("sleep", "60", user="tester", env={**host.env, "CUTTLEFISH_INSTANCE": "1"})
    host.box.run("kill", "-STOP", str(launcher))
    assert host.run("stop_cvd", "--wait_for_launcher=1").returncode == 0
    host.wait_until_gone()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_running_number_is_refused_and_stays_reachable(host: Host) -> None:
    host.launch()
    before = host.machines()
    host.sh("mkdir /home/tester/other")
    other = Host(host.box, host.package, "/home/tester/other")
    refused = other.launch(check=False)
    assert refused.returncode == 255
    assert "cvd-1 is running already" in refused.stderr
    again = host.launch(check=False)
    assert (again.returncode, "cvd-1 is running already" in again.stderr) == (255, True)
    assert host.machines() == before
    assert host.run("cvd_status").returncode == 0
    # -- a file held open in the instance's directory
    host.run("stop_cvd")
    with contextlib.ExitStack() as stack:
        log = f"{host.home}/cuttlefish/instances/cvd-1/logs/launcher.log"
        holder = host.box.start("tail", "-f", log, user="tester")
        stack.callback(holder.wait)
        stack.callback(holder.kill)
        time.sleep(0.2)
        busy = host.launch(check=False)
    assert busy.returncode == 255
    assert "Instance directory files in use" in busy.stderr
    assert "tail -f" in busy.stderr


def test_boots_that_fail(host: Host) -> None:
    late = host.launch("--boot_timeout_secs=1", check=False)
    assert late.returncode == 255
    assert "it took more than 1 s" in late.stderr
    assert "run_cvd returned 11" in late.stderr
    host.wait_until_gone()
    # The kernel finds no first process: its panic is heard.
    panic = host.launch("--extra_kernel_cmdline=rdinit=/nothing init=/nothing", check=False)
    assert panic.returncode == 255
    assert "Kernel panic" in panic.stderr
    host.wait_until_gone()
    left = host.launch("--extra_kernel_cmdline=rdinit=/nothing init=/nothing", "--fail_fast=false", check=False)
    assert left.returncode == 255
    assert "run_cvd returned 11" in left.stderr
    assert host.run("cvd_status").returncode == 0
    host.run("stop_cvd")
    assert host.device_processes() == {}
    # QEMU does not start.
    dead = host.launch("--memory_mb=99999999", check=False)
    assert dead.returncode == 255
    assert "QEMU ended with status 1" in dead.stderr
    assert "run_cvd returned 10" in dead.stderr


def test_an_emulator_that_crashes_in_the_boot_is_started_once_more(host: Host) -> None:
    program = str(host.package / "bin/launch_cvd")

    def crash(*before: int) -> int:
        """Crash the VM in which a kernel runs, unless it is one from before."""
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline
            vms = [pid for pid, args in host.device_processes().items() if "qemu" in args.split()[0]]
            # One line for each time that a kernel has begun.
            log = host.sh("cat $HOME/cuttlefish_runtime/kernel.log", check=False)
            if vms and vms[0] not in before and log.count("Linux version") > len(before):
                host.box.run("kill", "-SEGV", str(vms[0]))
                return vms[0]
            time.sleep(0.02)

    running = host.box.start(program, "--daemon", user="tester", env=host.env, stderr=subprocess.DEVNULL)
    crash()
    assert running.wait(60) == 0
    assert "(signal 11): starting it once more" in host.file("cuttlefish_runtime/launcher.log")
    assert "CUTTLEFISHCVD01" in host.adb(6520, "shell", "cat", "/proc/cmdline")
    host.run("stop_cvd")
    # What crashes again is broken.
    running = host.box.start(program, "--daemon", user="tester", env=host.env, stderr=subprocess.DEVNULL)
    crash(crash())
    assert running.wait(60) == 255
    assert "QEMU ended with status -11" in host.file("cuttlefish_runtime/launcher.log")
    host.wait_until_gone()
    # And a guest that was up is not booted behind anybody's back.
    host.launch()
    crash()
    host.wait_until_gone()


def test_in_the_foreground(host: Host) -> None:
    program = str(host.package / "bin/launch_cvd")
    running = host.box.start(program, user="tester", env=host.env, stderr=subprocess.PIPE)
    assert running.stderr is not None
    assert any("booted successfully" in line for line in running.stderr)
    assert running.poll() is None
    host.run("stop_cvd")
    assert running.wait(5) == 0
    running.stderr.close()
    # Without its launcher, a device that was not made a daemon ends too.
    running = host.box.start(program, user="tester", env=host.env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while "BOOT_STARTED" not in host.sh("cat $HOME/cuttlefish_runtime/kernel.log", check=False):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (launcher,) = [pid for pid, args in host.box.processes().items() if args.startswith("/usr") and program in args]
    host.box.run("kill", "-9", str(launcher))
    running.wait()
    host.wait_until_gone()


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (["--frobnicate"], 1, "ERROR: unknown command line flag 'frobnicate'"),
        (["--gpu_mode=fast"], 255, "Invalid gpu_mode provided: fast"),
        (["--gpu_mode=gfxstream"], 255, "--gpu_mode=gfxstream is not supported by the embedded guest"),
        (["--vm_manager=crosvm"], 255, "--vm_manager=crosvm is not supported by the embedded guest"),
        (["--instance_nums=1,1"], 134, "--instance_nums names an instance twice"),
        (["--base_instance_num=3"], 255, "Tap interface does not exist: cvd-wtap-03"),
        (["--kernel_path=/nowhere"], 255, "/nowhere cannot be read"),
    ],
)
def test_launches_that_are_refused(refusing: Host, args: list[str], status: int, text: str) -> None:
    done = refusing.launch(*args, check=False)
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    assert refusing.sh("ls -A $HOME") == ""


def test_small_tools_refuse_and_help(refusing: Host) -> None:
    assert refusing.run("stop_cvd", "--frobnicate", check=False).returncode == 134
    assert refusing.run("cvd_status", "--frobnicate", check=False).returncode == 1
    for tool in ("stop_cvd", "cvd_status"):
        helped = refusing.run(tool, "--help", check=False)
        assert (helped.returncode, helped.stdout, helped.stderr != "") == (1, "", True)
        xml = refusing.run(tool, "--helpxml", check=False)
        assert (xml.returncode, xml.stdout[:5]) == (1, "<?xml")
    assert refusing.run("stop_cvd").returncode == 0
    assert refusing.run("cvd_status", check=False).returncode == 1


def test_a_tap_that_is_busy(refusing: Host) -> None:
    hold = (
        "import fcntl, struct, time; tun = open('/dev/net/tun', 'r+b', 0);"
        "fcntl.ioctl(tun, 0x400454CA, struct.pack('=16sH22x', b'cvd-mtap-02', 0x5002));"
        "print(flush=True); time.sleep(60)"
    )
    holder = refusing.box.start("python3", "-c", hold, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    busy = refusing.launch("--base_instance_num=2", check=False)
    assert busy.returncode == 255
    assert "Failed to validate tap devices" in busy.stderr
    assert "Unable to connect to tap interface: cvd-mtap-02" in busy.stderr
    holder.kill()
    holder.wait()
    holder.stdout.close()


@pytest.fixture
def refusing(host: Host) -> Host:
    """Give a host on which nothing is to start."""
    return host


def test_kvm_is_tried_with_a_kernel(host: Host) -> None:
    def ask(kernel: Path) -> str:
        code = f"from pathlib import Path; from cfctl.guest import kvm; print(kvm.usable(Path('{kernel}')))"
        env = {**host.env, "CFCTL_PATHS_CACHE": "/home/tester/cache"}
        return host.box.run("python3", "-c", code, user="tester", env=env).stdout

    first = ask(host.package / "images/kernel")
    # It is known by now: this one would not even begin.
    assert ask(Path("/nowhere")) == first
    assert host.device_processes() == {}
    if "ok=True" in first:
        host.launch()
        assert "-accel kvm" in " ".join(host.device_processes().values())
