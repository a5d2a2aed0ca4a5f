"""Devices in containers: a real engine, a real image, real VMs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cfctl.docker import request, seccomp
from tests.schemas import conforms
from tests.system import dockerd, relay_host
from tests.system.docker_helpers import ask_adb, boot, fails, leaves_nothing, programs, wait_until
from tests.system.docker_terminal import at_terminal
from tests.system.dockerd import Engine
from tests.system.sandbox import CVDNETWORK_GID, Sandbox

#: linux/capability.h
CAPABILITY_BITS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "SETGID": 6,
    "SETUID": 7,
    "NET_ADMIN": 12,
    "SYS_CHROOT": 18,
}


@pytest.mark.kvm
def test_two_containers_from_the_image_to_nothing(engine: Engine, host_package: Path) -> None:
    host = engine.box
    before = programs(host)
    current = host.json("docker", "build", "--base", dockerd.BASE)
    conforms(current, "image")
    assert current["changed"] is False
    labels = json.loads(engine.docker("inspect", dockerd.TAG).stdout)[0]["Config"]["Labels"]
    assert labels["cfctl.gpu-vendor"] == "none"
    assert labels["cfctl.version"]

    for name in ("phone", "tablet"):
        made = host.json("docker", "create", name)
        conforms(made, "container")
    ports = {}
    for name in ("phone", "tablet"):
        ports[name] = boot(host, name)
    assert ports == {"phone": "127.0.0.1:6520", "tablet": "127.0.0.1:6521"}
    # Each answers as itself, at its own address.
    assert ask_adb(host, ports["phone"], "uname", "-n") == "CUTTLEFISHCVD01"
    assert ask_adb(host, ports["tablet"], "uname", "-n") == "CUTTLEFISHCVD02"
    assert "192.168.98.2" in ask_adb(host, ports["phone"], "ip", "addr")
    assert "192.168.98.3" in ask_adb(host, ports["tablet"], "ip", "addr")

    listed = host.json("docker", "list")
    conforms(listed, "containers")
    assert [one["adb"] for one in listed["containers"]] == [[ports["phone"]], [ports["tablet"]]]
    assert [one["devices"][0]["state"] for one in listed["containers"]] == ["running", "running"]
    assert "127.0.0.1:6521" in host.cfctl("docker", "list").stdout
    # Old scripts read these.
    assert [engine.inspect(n)["Config"]["Labels"]["cf_instance"] for n in ports] == ["1", "2"]
    beside = host.json("ps")
    conforms(beside, "devices")
    assert [(one["name"], one["runtime"], one["container"]) for one in beside["devices"]] == [
        ("phone", "docker", "phone"),
        ("tablet", "docker", "tablet"),
    ]
    assert "in container tablet" in host.cfctl("ps").stdout
    _through_the_relay(host)
    # A monitor's socket is asked through the wall as if the device were beside the containers.
    socket = listed["containers"][1]["sockets"] + "/cvd-2/launcher_monitor.sock"
    code = (
        "import sys\nfrom pathlib import Path\nfrom cfctl.control import launcher_monitor as m, sync\n"
        "sync.run(m.request(Path(sys.argv[1]), m.Action.STATUS, seconds=30))"
    )
    host.run(host.cfctl_argv()[0], "-c", code, socket)
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in host.cfctl("docker", "logs", "phone").stdout

    # Its sockets are had from out here, and answer; the API sees the devices too.
    python = (*host.cfctl_argv()[:1], "-c", FROM_OUTSIDE)
    socket, *devices = host.run(*python).stdout.split()
    assert devices == ["phone", "tablet"]
    assert host.run(*python, socket).stdout == "answered\n"
    # To a member of cvdnetwork as well, who is neither root nor has the number of the user inside; to nobody else.
    asking = ("setpriv", "--reuid=4242", "--regid=4242")
    assert host.run(*asking, f"--groups={CVDNETWORK_GID}", *python, socket).stdout == "answered\n"
    refused = host.run(*asking, "--groups=997", *python, socket, check=False)
    assert "MonitorRefused" in refused.stderr
    # A container has what its own number needs, and no more.
    links = host.cfctl("docker", "login", "tablet", "--", "ls", "/sys/class/net").stdout.split()
    assert {link for link in links if link.startswith("cvd-")} == {
        *("cvd-ebr", "cvd-wbr"),
        *(f"cvd-{kind}-02" for kind in ("etap", "mtap", "wtap", "wifiap")),
    }
    assert host.json("docker", "login", "tablet", "--", "cfctl", "host", "status", "--json")["state"] == "ready"

    whoami = host.cfctl("docker", "login", "phone", "--", "sh", "-c", "id -un; pwd; exit 7", check=False)
    assert (whoami.returncode, whoami.stdout.split()) == (7, ["vsoc-01", "/home/vsoc-01"])
    echoed = host.cfctl("docker", "login", "phone", "--", "cat", stdin="through SSH\n")
    assert echoed.stdout == "through SSH\n"
    assert host.cfctl("docker", "login", "--exec", "phone", "--", "id", "-un").stdout == "vsoc-01\n"
    home = host.cfctl("docker", "home", "phone").stdout.strip()
    assert host.run("test", "-d", f"{home}/.local/state/cfctl/devices/phone").returncode == 0

    # Bare metal beside it does not get a container's number.
    host.cfctl("host", "setup", "--instances", "2")
    taken = host.cfctl("launch", "--host-package", str(host_package), check=False)
    assert taken.returncode == 1
    assert "is locked by a running device" in taken.stderr
    host.cfctl("host", "teardown")

    boot_id = ("cat", "/proc/sys/kernel/random/boot_id")
    first = ask_adb(host, ports["phone"], *boot_id)
    restarted = host.json("docker", "restart", "phone", timeout=300)
    conforms(restarted, "device")
    assert restarted["state"] == "running"
    again = ask_adb(host, ports["phone"], *boot_id)
    assert len(again) == len(first) == 36
    assert again != first
    host.cfctl("docker", "stop", "phone")
    assert host.cfctl("docker", "status", "phone", check=False).returncode == 3

    host.cfctl("docker", "rm", "phone")
    assert [one["name"] for one in host.json("docker", "list")["containers"]] == ["tablet"]
    host.cfctl("docker", "rm-all")
    leaves_nothing(engine, before)


#: What the relay does: it asks where the sockets are, and talks to one.
def _through_the_relay(host: Sandbox) -> None:
    """Devices in containers are served like those beside them."""
    # The engine that docker would take is another one there: each container's own is what counts.
    no_engine = {"DOCKER_HOST": "unix:///run/no-engine.sock"}
    with relay_host.serving(host, "--web", "127.0.0.1:8443", env=no_engine) as relay:
        listed, _ = relay.call("Devices/List", user="root")
        assert [(one["name"], one["container"]) for one in listed["devices"]] == [(n, n) for n in ("phone", "tablet")]
        phone = {"target": "phone"}
        assert relay.call("Control/Suspend", phone, user="root") == [{}, {"status": "OK"}]
        assert relay.call("Devices/Get", {"name": "phone"}, user="root")[0]["state"] == "suspended"
        assert relay.call("Control/Resume", phone, user="root") == [{}, {"status": "OK"}]
        vcpus, _ = relay.call("Control/ListVcpus", phone, user="root")
        assert vcpus["vcpus"][0]["thread_id"] > 0
        refused = relay.call("Control/PressKey", {**phone, "keys": ["no-such-key"]}, user="root")[-1]
        assert refused["status"] != "OK"
        *lines, ended = relay.call("Devices/Logs", {"name": "phone", "lines": 2}, user="root")
        assert (len(lines), ended) == (2, {"status": "OK"})
        _tunnels(host)
        # The page's console is the same one.
        page = ("http://127.0.0.1:8443", relay.token("--role", "operator"), "tablet")
        program = (*host.cfctl_argv()[:1], "-m", "tests.relay.console", *page)
        seen = host.run(*program, "echo 6 times 9 is $((6*9))", "6 times 9 is 54")
        assert seen.stdout.split() == ["phone", "tablet"]
        *_, stopped, ended = relay.call("Devices/Stop", {"name": "phone"}, user="root")
        assert (stopped["device"]["state"], ended) == ("stopped", {"status": "OK"})
        *events, booted, ended = relay.call("Devices/Restart", {"name": "phone"}, user="root")
        assert (booted["device"]["state"], booted["device"]["container"], ended) == (
            "running",
            "phone",
            {"status": "OK"},
        )
        assert "booted" in [event["phase"]["phase"] for event in events if "phase" in event]


def _tunnels(host: Sandbox) -> None:
    """The consoles and the ADB of both: one is published, the other is reached by the engine."""
    there = ("--relay", "unix:/run/cfctl/relay.sock")
    with at_terminal(host, *host.cfctl_argv(*there, "console", "phone")) as terminal:
        terminal.wait_for("Ctrl-] leaves it.")
        terminal.type("\recho 6 times 7 is $((6*7))\r")
        terminal.wait_for("6 times 7 is 42")
        # It is one reader's, and the other hears so.
        with at_terminal(host, *host.cfctl_argv(*there, "console", "phone")) as second:
            second.wait_for("somebody else has the console of phone")
            assert second.end() == 1
        terminal.type("\x1d")
        terminal.wait_for("Left the console of phone")
        assert terminal.end() == 0
    # The program inside has gone with the terminal: the next one has the console.
    with at_terminal(host, *host.cfctl_argv(*there, "console", "phone")) as terminal:
        terminal.wait_for("Ctrl-] leaves it.")
        terminal.type("\x1d")
        assert terminal.end() == 0
    host.cfctl("docker", "unpublish", "tablet")
    [tablet] = [one for one in host.json("ps")["devices"] if one["name"] == "tablet"]
    assert tablet["instances"][0]["adb"] is None
    try:
        for name, node in (("phone", "CUTTLEFISHCVD01"), ("tablet", "CUTTLEFISHCVD02")):
            assert host.cfctl(*there, "adb", name, "shell", "uname", "-n").stdout.strip() == node
            script = f"head -c {_PUSHED} /dev/urandom >/tmp/pushed; sha256sum </tmp/pushed"
            digest = host.run("sh", "-c", script).stdout
            host.cfctl(*there, "adb", name, "push", "/tmp/pushed", "/tmp/pushed")
            assert host.cfctl(*there, "adb", name, "shell", "sha256sum </tmp/pushed").stdout == digest
    finally:
        host.run("adb", "kill-server", check=False)
    host.cfctl("docker", "publish", "tablet")


#: Bytes that are pushed: guests of 192 MB have room for so many.
_PUSHED = 16 << 20


FROM_OUTSIDE = """
import sys
from pathlib import Path
from cfctl import Host
from cfctl.control import launcher_monitor, sync
from cfctl.docker import sockets
if sys.argv[1:]:
    sync.run(launcher_monitor.request(Path(sys.argv[1]), launcher_monitor.Action.STATUS, seconds=30))
    print("answered")
else:
    print(sockets.monitor("tablet"), *(device["name"] for device in Host().devices()))
"""


def test_a_container_has_what_its_device_needs_and_no_more(engine: Engine) -> None:
    host = engine.box
    host.cfctl("docker", "create", "phone")
    found = engine.inspect("phone")["HostConfig"]
    assert found["Privileged"] is False
    assert found["CapDrop"] == ["ALL"]
    assert {name.removeprefix("CAP_") for name in found["CapAdd"]} == set(request.CAPABILITIES)
    has = [node for node in ("/dev/net/tun", "/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock") if Path(node).exists()]
    assert [(one["PathOnHost"], one["CgroupPermissions"]) for one in found["Devices"]] == [(n, "rw") for n in has]
    assert found["PidsLimit"] == request.PIDS_LIMIT
    assert found["NetworkMode"] == "bridge"
    assert found["PidMode"] == ""
    assert found["IpcMode"] == "private"
    assert "no-new-privileges" in found["SecurityOpt"]

    status = dict(
        line.split(":\t", 1)
        for line in host.cfctl("docker", "login", "phone", "--", "cat", "/proc/1/status").stdout.splitlines()
        if ":\t" in line
    )
    bits = sum(1 << CAPABILITY_BITS[name] for name in request.CAPABILITIES)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == bits
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    # The user himself has none of it.
    mine = host.cfctl("docker", "login", "phone", "--", "grep", "CapEff", "/proc/self/status").stdout
    assert int(mine.split()[1], 16) == 0
    nodes = host.cfctl("docker", "login", "phone", "--", "find", "/dev", "-type", "c").stdout.split()
    usual = {"full", "null", "random", "tty", "urandom", "zero", "ptmx", "pts/ptmx", "console"}
    assert {node for node in nodes if node.removeprefix("/dev/") not in usual} == set(has)

    def python(code: str) -> str:
        return engine.docker("exec", "phone", "python3", "-c", code).stdout.strip()

    assert python("import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); print('vsock')") == "vsock"
    # Refused by the filter itself, though root asks: bpf(2) is 321 and 280.
    number = "{'x86_64': 321, 'aarch64': 280}[os.uname().machine]"
    code = "import ctypes, os; l = ctypes.CDLL(None, use_errno=True)"
    assert python(f"{code}; print(l.syscall({number}, 0, 0, 0), ctypes.get_errno())") == "-1 1"
    assert python(f"{code}; print(l.unshare(0x10000000), ctypes.get_errno())") == "-1 1"
    # A device that is not on the list cannot be made either: 1:1 is the machine's memory.
    made = engine.docker("exec", "phone", "mknod", "/tmp/mem", "c", "1", "1", check=False)
    assert made.returncode != 0
    limit = engine.docker(
        "exec", "phone", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"
    )
    assert limit.stdout.split() == [str(request.PIDS_LIMIT)]
    assert "ptrace" not in seccomp.names()
    # The operator's sockets can be connected to, and not be replaced.
    mounts = {mount["Destination"]: mount["RW"] for mount in engine.inspect("phone")["Mounts"]}
    assert mounts["/run/cuttlefish"] is False
    for way in ((), ("--exec",)):
        at_a_terminal(host, *way)
    host.cfctl("docker", "rm", "phone")


def at_a_terminal(host: Sandbox, *way: str) -> None:
    """A person logs in: the shell has the terminal's size, Ctrl-C is the shell's, and the terminal is as before."""
    with at_terminal(host, *host.cfctl_argv("docker", "login", *way, "phone"), rows=33, columns=101) as terminal:
        before = terminal.settings()
        terminal.wait_for("$ ")
        terminal.type("stty size; echo I-am-$USER-on-$TERM\r")
        assert "33 101" in terminal.wait_for("I-am-vsoc-01-on-xterm")
        terminal.resize(20, 70)
        # The size comes beside what is typed: it is asked for until it is there.
        terminal.type("until [ \"$(stty size)\" = '20 70' ]; do sleep 0.1; done; echo re''sized\r")
        terminal.wait_for("resized")
        terminal.wait_for("$ ")
        # Typed in two parts: what is waited for is what the program says, and not the echo of what was typed.
        terminal.type("sh -c 'echo it be''gan; exec sleep 600'\r")
        terminal.wait_for("it began")
        terminal.type("\x03")
        terminal.wait_for("$ ")
        terminal.type("exit 7\r")
        assert terminal.end() == 7
        assert terminal.settings() == before


def test_images_go_through_a_registry(engine: Engine) -> None:
    """A real registry on loopback, where the engine asks for no TLS."""
    host = engine.box
    host.run("sh", "-c", "cat >/tmp/registry.yml", stdin=REGISTRY)
    registry = host.start(
        "docker-registry", "serve", "/tmp/registry.yml", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    tag = "127.0.0.1:5000/farm/cfctl:1"
    knock = ("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5000")
    wait_until(lambda: host.run(*knock, check=False).returncode == 0, "it listens")
    engine.docker("tag", dockerd.TAG, tag)
    pushed = host.json("docker", "push", tag, timeout=300)
    conforms(pushed, "image-moved")
    assert pushed["digest"].startswith("sha256:")
    engine.docker("image", "rm", tag)
    pulled = host.json("docker", "pull", tag, "--tag", "pulled", timeout=300)
    conforms(pulled, "image-moved")
    container = host.json("docker", "create", "phone", "--image", "pulled")
    assert container["image"] == "pulled"
    host.cfctl("docker", "rm", "phone")
    error = fails(host, 1, "pull", "127.0.0.1:5000/farm/nothing:1")
    assert "127.0.0.1:5000" in error["resolution"]
    engine.docker("image", "rm", tag, "pulled")
    registry.kill()
    registry.wait()


REGISTRY = """
version: 0.1
storage:
  filesystem:
    rootdirectory: /tmp/registry
http:
  addr: 127.0.0.1:5000
"""


def test_a_stranger_in_a_containers_place_gets_no_login(engine: Engine) -> None:
    host = engine.box
    host.cfctl("docker", "create", "phone")
    new_key = "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; pkill -x sshd"
    engine.docker("exec", "phone", "sh", "-c", new_key)

    def said() -> str:
        return host.cfctl("docker", "login", "phone", "--", "true", check=False).stderr

    wait_until(lambda: "is not phone" in said(), "sshd is up again, with another key")
    assert host.cfctl("docker", "login", "phone", "--", "true", check=False).returncode == 1
    # The engine tells the new key to whoever asks it.
    host.cfctl("docker", "start", "phone", "--no-wait")
    host.cfctl("docker", "login", "phone", "--", "true")
    # A key that was lost is made again, and the old one stays outside of it.
    host.run("sh", "-c", "rm /var/lib/cfctl/docker/*/phone/id_ecdsa")
    assert host.cfctl("docker", "login", "phone", "--", "echo", "in").stdout == "in\n"
    host.cfctl("docker", "rm", "phone")


def test_singleshot_leaves_nothing(engine: Engine) -> None:
    host = engine.box
    before = programs(host)
    done = host.cfctl("docker", "create", "once", "--singleshot", stdin="echo shot by $USER; exit 5\n", check=False)
    assert (done.returncode, done.stdout) == (5, "shot by vsoc-01\n")
    leaves_nothing(engine, before)
