"""A relay that is used from another network: the real daemon, TLS and tokens, real guests, a client of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cfctl.control import operations, qemu
from tests.schemas import conforms
from tests.system import sandbox as sandboxes
from tests.system.docker_terminal import resize
from tests.system.sandbox import Sandbox

#: Of the cable between the two machines.
SERVER, CLIENT = "198.51.100.1", "198.51.100.2"
PORT = 7070

PATIENCE = 60.0

#: Who works at the client, and where his contexts are.
USER = "tester"
BOOK = "/home/tester/.config/cfctl/contexts.json"

#: What is pushed.
PUSHED = 100 << 20


@dataclass
class Lab:
    """Two machines with a cable between them.

    :param host: has a relay and a device ``farm`` with three instances.
    :param client: knows the relay as the context ``lab``, with a token of an operator.
    """

    host: Sandbox
    client: Sandbox
    fingerprint: str

    def token(self, role: str, *options: str) -> str:
        secret: str = self.host.json("relay", "token", "create", "--role", role, *options)["secret"]
        return secret

    def add(self, name: str, token: str, fingerprint: str | None = None) -> subprocess.CompletedProcess[str]:
        pin = ["--fingerprint", fingerprint or self.fingerprint]
        return self.cfctl(
            "context", "add", name, f"{SERVER}:{PORT}", *pin, "--token-file", "-", stdin=token, check=False
        )

    def cfctl(self, *args: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run cfctl at the client, as an ordinary user."""
        return self.client.cfctl(*args, user=USER, check=check, stdin=stdin)

    def json(self, *args: str) -> Any:
        return json.loads(self.cfctl(*args, "--json").stdout)

    def serials(self) -> list[str]:
        """Return the devices that the client's adb server knows and reaches."""
        return re.findall(r"(\S+)\tdevice\n", self.client.run("adb", "devices", user=USER).stdout)

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        return self.client.start(*self.client.cfctl_argv(*args), user=USER, **kwargs)

    def adb(self, target: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cfctl("--relay", "lab", "adb", target, *args, check=check)


def until(what: str, condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextlib.contextmanager
def serving(host: Sandbox, *options: str) -> Iterator[str]:
    """Run a relay for the block; give its certificate's fingerprint."""
    argv = host.cfctl_argv("relay", "serve", "--grpc", f"{SERVER}:{PORT}", *options, "--json")
    relay = host.start(*argv, stdout=subprocess.PIPE)
    assert relay.stdout is not None
    fingerprint = ""
    try:
        for line in relay.stdout:
            event = json.loads(line)
            fingerprint = event.get("fingerprint", fingerprint)
            if event["event"] == "ready":
                break
        yield fingerprint
    finally:
        relay.terminate()
        host.run("pkill", "-TERM", "-f", "cfctl relay serve", check=False)
        relay.wait(PATIENCE)
        relay.stdout.close()


def plug(host: Sandbox, client: Sandbox) -> None:
    """Lay a cable between two machines."""
    link = ["ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1", "netns", str(client.pid)]
    subprocess.run(["nsenter", "-t", str(host.pid), "-n", *link], check=True)
    for box, name, address in ((host, "lab0", SERVER), (client, "lab1", CLIENT)):
        box.run("ip", "addr", "add", f"{address}/24", "dev", name)
        box.run("ip", "link", "set", name, "up")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, host_package: Path) -> Iterator[Lab]:
    base = tmp_path_factory.mktemp("lab")
    with sandboxes.sandbox(base / "host") as host, sandboxes.sandbox(base / "client") as client:
        plug(host, client)
        host.cfctl("host", "setup", "--instances", "4")
        # The first one has room for what is pushed to it, in its memory.
        host.cfctl("launch", "farm", "--num-instances", "3", "--memory-mb", "512,192,192")
        with serving(host) as fingerprint:
            made = Lab(host, client, fingerprint)
            done = made.add("lab", made.token("operator"))
            assert done.returncode == 0, done.stderr
            yield made
            client.run("adb", "kill-server", user=USER, check=False)


def test_the_devices_of_another_server(lab: Lab) -> None:
    theirs = lab.json("--relay", "lab", "ps")
    conforms(theirs, "devices")
    here = lab.host.json("ps")
    for document in (*theirs["devices"], *here["devices"]):
        for changing in ("uptime_s", "memory_mb"):
            document.pop(changing)
    assert theirs == here
    one = lab.json("--relay", f"{SERVER}:{PORT}", "status", "farm/2")
    conforms(one, "device")
    assert [instance["number"] for instance in one["instances"]] == [2]


def test_a_shell(lab: Lab) -> None:
    assert lab.adb("farm", "shell", "uname", "-s").stdout == "Linux\n"
    failed = lab.adb("farm", "shell", "exit 7", check=False)
    assert failed.returncode == 7
    # Nothing is left of it: adb knows no device any more.
    assert lab.client.run("adb", "devices", user=USER).stdout.split("\n", 1)[1].strip() == ""


def test_100_mb_arrive_as_they_were_sent(lab: Lab, tmp_path: Path) -> None:
    made = "import hashlib, random, sys; d = random.Random(4).randbytes(int(sys.argv[1])); "
    made += "open('/tmp/pushed', 'wb').write(d); print(hashlib.sha256(d).hexdigest())"
    digest = lab.client.run("python3", "-c", made, str(PUSHED)).stdout.strip()
    assert len(digest) == hashlib.sha256().digest_size * 2
    lab.adb("farm", "push", "/tmp/pushed", "/tmp/pushed")
    said = lab.adb("farm", "shell", "sha256sum", "/tmp/pushed").stdout
    assert said.split()[0] == digest
    lab.adb("farm", "shell", "rm", "/tmp/pushed")


def test_three_at_once(lab: Lab) -> None:
    runs = [
        lab.start(
            *("--relay", "lab", "adb", f"farm/{number}", "shell", "cat; ip -4 addr"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in (1, 2, 3)
    ]
    # All are connected before any of them ends.
    until("three tunnels", lambda: len(lab.serials()) == 3)
    answers = [run.communicate(f"to {number}\n", timeout=PATIENCE)[0] for number, run in enumerate(runs, 1)]
    assert [answer.splitlines()[0] for answer in answers] == ["to 1", "to 2", "to 3"]
    assert [f"inet 192.168.98.{1 + number}/24" in answer for number, answer in enumerate(answers, 1)] == [True] * 3
    assert [run.returncode for run in runs] == [0, 0, 0]


def test_what_a_vm_is_asked_from_elsewhere_is_answered_as_on_its_host(lab: Lab) -> None:
    for words in (["balloon", "stats"], ["vcpus"]):
        theirs, here = (
            lab.json("--relay", "lab", "control", "farm/3", *words),
            lab.host.json("control", "farm/3", *words),
        )
        assert theirs["operation"] == here["operation"]
        assert theirs["result"].keys() == here["result"].keys()
    assert lab.json("--relay", "lab", "control", "farm/3", "vcpus") == lab.host.json("control", "farm/3", "vcpus")
    lab.cfctl("--relay", "lab", "control", "farm/3", "balloon", "set", "32M")
    until(
        "memory taken", lambda: lab.host.json("control", "farm/3", "balloon", "stats")["result"]["balloon_bytes"] > 0
    )
    lab.cfctl("--relay", "lab", "control", "farm/3", "balloon", "set", "0")
    for words in (["key", "ctrl-a"], ["text", "true"]):
        assert lab.json("--relay", "lab", "control", "farm/3", *words)["operation"] == words[0]
    # What it cannot do it says in the same words: the embedded guest has no USB.
    cannot = ("control", "farm/3", "usb", "list", "--json")
    elsewhere, there = lab.cfctl("--relay", "lab", *cannot, check=False), lab.host.cfctl(*cannot, check=False)
    assert (elsewhere.returncode, json.loads(elsewhere.stdout)) == (there.returncode, json.loads(there.stdout))
    displays = lab.json("--relay", "lab", "display", "farm/3")
    assert displays == lab.host.json("display", "farm/3")
    conforms(displays, "displays")
    picture = lab.client.run(
        "sh",
        "-c",
        f"{' '.join(lab.client.cfctl_argv('--relay', 'lab', 'display', 'farm/3', 'screenshot', '-'))} | wc -c",
        user=USER,
    )
    assert int(picture.stdout) > 100
    assert "Through a relay:" in lab.cfctl("--relay", "lab", "control", "farm").stdout
    refused = lab.cfctl("--relay", "lab", "control", "farm", "raw", "{}", check=False)
    assert refused.returncode == 2
    assert "raw is not done through a relay" in refused.stderr


#: Of an admin, to a guest of QEMU's; each changes nothing the second time. Without USB for the first ones.
_ASKED = (
    *("balloon set 33000000 wait", "balloon set 0 wait", "disk resize 0 128M", "vcpus", "key ctrl-a hold-ms=20"),
    *("text true", "usb list", "usb detach 1", "disk resize 1 1G", "key ctrl-anykey", "balloon set 1T"),
    *("battery fake 50", "swap status", "swap out", "balloon working-set", "sleepbtn"),
)
_CONTROLLER = {"driver": "qemu-xhci", "id": "xhci"}
_TABLET = {"driver": "usb-tablet", "id": "tablet", "bus": "xhci.0", "port": "2"}


def test_every_operation_of_qemus_over_tls(lab: Lab) -> None:
    """Each is answered as on the host, and so is what QEMU cannot do."""
    assert lab.add("boss", lab.token("admin")).returncode == 0

    def both(words: str) -> tuple[int, Any]:
        asked = ("control", "farm/3", *words.split(), "--json")
        theirs, here = lab.cfctl("--relay", "boss", *asked, check=False), lab.host.cfctl(*asked, check=False)
        told = json.loads(theirs.stdout)
        assert (words, theirs.returncode, told) == (words, here.returncode, json.loads(here.stdout))
        conforms(told, "error" if theirs.returncode else "control")
        return theirs.returncode, told

    answers = {words: both(words) for words in _ASKED}
    assert [code for code, _ in answers.values()] == [0] * 6 + [1] + [1] + [2] * 3 + [4] * 5
    # This guest has no USB; upstream's has this controller. Only its own host may say raw things.
    for device in (_CONTROLLER, _TABLET):
        lab.host.cfctl("control", "farm/3", "raw", json.dumps({"execute": "device_add", "arguments": device}))
    _, listed = both("usb list")
    assert [(row["port"], row["id"]) for row in listed["result"]["devices"]] == [(2, "tablet")]
    detached = lab.json("--relay", "boss", "control", "farm/3", "usb", "detach", "2")
    assert detached["result"] == {"port": 2}
    until("the tablet's end", lambda: both("usb list")[1]["result"] == {"devices": []})
    # The others have tests of their own here.
    asked = {operations.from_words(words.split()).name for words in answers} | {"balloon.stats"}
    assert asked >= {name for name in qemu.NAMES if operations.TABLE[name].relayed and operations.TABLE[name].control}
    # An operator resizes nothing.
    refused = lab.cfctl("--relay", "lab", "control", "farm/3", "disk", "resize", "0", "256M", check=False)
    assert (refused.returncode, "the role operator may not do that" in refused.stderr) == (1, True)
    lab.cfctl("context", "remove", "boss")


def test_suspended_and_resumed_from_elsewhere(lab: Lab) -> None:
    """Its clock stands still meanwhile, and goes on where it was."""

    def uptime() -> float:
        return float(lab.adb("farm", "shell", "cat", "/proc/uptime").stdout.split()[0])

    here, guest = time.monotonic(), uptime()
    assert lab.json("--relay", "lab", "suspend", "farm")["devices"][0]["state"] == "suspended"
    stood = time.monotonic()
    assert lab.host.json("status", "farm")["state"] == "suspended"
    asleep = lab.adb("farm", "shell", "true", check=False)
    assert asleep.returncode == 3
    assert "cfctl --relay lab resume farm" in asleep.stderr
    # Longer than all of the calls around it take.
    time.sleep(max(3.0, 2 * (time.monotonic() - here)))
    stood = time.monotonic() - stood
    assert lab.json("--relay", "lab", "resume", "farm")["devices"][0]["state"] == "running"
    now = uptime()
    assert guest < now <= guest + (time.monotonic() - here) - stood + 0.5, "its clock went on while it was suspended"


def test_a_console(lab: Lab) -> None:
    """At a real terminal: what is typed comes to the guest, what it says comes back, and Ctrl-] leaves."""
    ours, theirs = pty.openpty()
    resize(theirs, 40, 100)
    argv = lab.client.argv(lab.client.cfctl_argv("--relay", "lab", "console", "farm/3"), user=USER)
    sitting = subprocess.Popen(
        argv,
        env=lab.client.environment(user=USER),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""

    def hears(text: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + PATIENCE
        while text not in said:
            assert time.monotonic() < deadline, said
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 1 << 16)

    try:
        hears(b"Ctrl-] leaves it")
        hears(b"To the guest: stty rows 40 cols 100")
        # Raw from here on: the terminal itself would echo no more.
        os.write(ours, b"\recho 6 times 7 is $((6*7))\r")
        hears(b"6 times 7 is 42")
        busy = lab.cfctl("--relay", "lab", "status", "farm", check=False)
        assert busy.returncode == 0
        os.write(ours, b"\x1d")
        hears(b"Left the console of farm/3")
        assert sitting.wait(PATIENCE) == 0
    finally:
        sitting.kill()
        sitting.wait()
        os.close(ours)


def test_ending_adb_takes_everything_back(lab: Lab) -> None:
    """A supervisor's TERM comes to cfctl alone: adb ends with it, and its server forgets the device."""
    shell = lab.start(*("--relay", "lab", "adb", "farm", "shell", "sleep 1000"), stdout=subprocess.PIPE)
    until("a tunnel", lab.serials)
    until("adb itself", lambda: "sleep 1000" in "".join(lab.client.processes().values()))
    lab.client.run("pkill", "-TERM", "-f", "cfctl --relay lab adb")
    shell.communicate(timeout=PATIENCE)
    assert lab.serials() == []
    assert "sleep 1000" not in "".join(lab.client.processes().values())


def test_the_loopback_port_lets_in_nobody_else(lab: Lab) -> None:
    shell = lab.start(
        *("--relay", "lab", "adb", "farm", "shell", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    until("a tunnel", lab.serials)
    ((_, port),) = (serial.split(":") for serial in lab.serials())
    # adb's first packet (a CNXN of its protocol) gets an answer from adbd, whoever sends it, if anybody listens.
    ask = (
        "import socket, struct, sys\n"
        "text = b'host::\\0'\n"
        "head = struct.pack('<6I', 0x4e584e43, 0x01000001, 1 << 20, len(text), sum(text), 0x4e584e43 ^ 0xffffffff)\n"
        "end = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)\n"
        "end.sendall(head + text)\n"
        "print(len(end.recv(100)))\n"
    )
    stranger = lab.client.run(
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", ask, port), check=False
    )
    ours = lab.client.run("python3", "-c", ask, port, user=USER)
    assert stranger.stdout.strip() in ("", "0"), "it was closed, with or without a reset"
    assert int(ours.stdout) > 0
    shell.communicate("", timeout=PATIENCE)


def test_another_fingerprint_is_refused_and_nothing_is_kept(lab: Lab) -> None:
    done = lab.add("evil", "token", "0" * 64)
    assert done.returncode == 1
    assert "has another certificate than it should have" in done.stderr
    assert lab.fingerprint in done.stderr
    assert "evil" not in lab.cfctl("context", "list").stdout
    unasked = lab.cfctl("context", "add", "evil", f"{SERVER}:{PORT}", check=False)
    assert unasked.returncode == 1
    assert f"--fingerprint {lab.fingerprint}" in unasked.stderr


def test_a_viewer_gets_no_tunnel(lab: Lab) -> None:
    assert lab.add("viewer", lab.token("viewer")).returncode == 0
    done = lab.cfctl("--relay", "viewer", "adb", "farm", "shell", "true", check=False)
    assert done.returncode == 1
    assert "the role viewer may not do that" in done.stderr
    lab.cfctl("context", "remove", "viewer")


def test_one_table_over_all_servers(lab: Lab) -> None:
    known = json.loads(lab.client.run("cat", BOOK).stdout)
    lost = {**known["contexts"][0], "name": "lost", "address": f"{SERVER}:1"}
    known["contexts"].append(lost)
    lab.client.run("sh", "-c", f"cat >{BOOK}", stdin=json.dumps(known))
    done = lab.cfctl("ps", "--all-contexts", check=False)
    assert done.returncode == 1
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["CONTEXT", "NAME", "STATE"],
        ["lab", "farm", "running"],
    ]
    assert "lost: no relay answers at" in done.stderr
    document = json.loads(lab.cfctl("ps", "--all-contexts", "--json", check=False).stdout)
    conforms(document, "devices")
    assert [one["context"] for one in document["unreachable"]] == ["lost"]
    lab.cfctl("context", "remove", "lost")


def test_a_launch_from_elsewhere_runs_as_the_tokens_user(lab: Lab) -> None:
    assert lab.add("roots", lab.token("admin")).returncode == 0
    refused = lab.cfctl("--relay", "roots", "launch", "mine", check=False)
    assert refused.returncode == 1
    assert "never runs as root" in refused.stderr
    assert lab.add("mine", lab.token("admin", "--user", USER)).returncode == 0
    path = lab.cfctl("--relay", "mine", "launch", "mine", "--images", "/etc/passwd", check=False)
    assert path.returncode == 2
    assert "images" in path.stderr
    said = lab.cfctl("--relay", "mine", "launch", "mine", "--memory-mb", "192", "--events").stdout
    events = [json.loads(line) for line in said.splitlines()]
    for event in events:
        conforms(event, "event")
    assert [event["phase"] for event in events if event["event"] == "phase"][-1] == "booted"
    assert events[-1]["device"]["owner"] == USER
    # It is that user's: root's relay shows it to him and to root, and this user sees nobody else's.
    assert [device["name"] for device in lab.json("--relay", "mine", "ps")["devices"]] == ["mine"]
    assert lab.cfctl("--relay", "mine", "adb", "mine", "shell", "echo", "up").stdout == "up\n"
    assert "no-such-device" in lab.cfctl("--relay", "mine", "status", "farm", "--json", check=False).stdout
    # Its guest powers itself off.
    assert lab.json("--relay", "mine", "powerbtn", "mine")["name"] == "mine"
    until("the end of the guest", lambda: lab.cfctl("--relay", "mine", "status", "mine", check=False).returncode == 3)
    assert lab.json("--relay", "mine", "restart", "mine", "--no-wait")["state"] in ("preparing", "booting", "running")
    lab.cfctl("--relay", "mine", "stop", "mine")
    lab.host.cfctl("rm", "mine", user=USER)
    for name in ("roots", "mine"):
        lab.cfctl("context", "remove", name)


def test_a_guest_that_boots_again_cuts_its_tunnels_off(lab: Lab) -> None:
    """It forgets its connections without a word, and the VM's process goes on."""
    before = lab.json("--relay", "lab", "status", "farm/2")["instances"][0]["vm_pid"]
    # Three bytes, and then silence: nothing but the guest's own end tells that it is gone.
    shell = lab.start("--relay", "lab", "adb", "farm/2", "shell", "echo up; cat", stdin=subprocess.PIPE, stdout=-1)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "up\n"
    lab.host.cfctl("adb", "farm/2", "shell", "(sleep 1; reboot -f) >/dev/null 2>&1 &", check=False)
    assert shell.wait(PATIENCE) != 0
    shell.communicate()
    until("the guest again", lambda: lab.adb("farm/2", "shell", "echo again", check=False).stdout == "again\n")
    assert lab.json("--relay", "lab", "status", "farm/2")["instances"][0]["vm_pid"] == before


def test_a_stop_closes_tunnels_with_a_reason(lab: Lab) -> None:
    shell = lab.start(
        *("--relay", "lab", "adb", "farm/2", "shell", "cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write("hello\n")
    shell.stdin.flush()
    assert shell.stdout.readline() == "hello\n"
    assert lab.cfctl("--relay", "lab", "stop", "farm").returncode == 0
    _, said = shell.communicate(timeout=PATIENCE)
    assert "farm/2: farm was stopped" in said
    # adb itself takes the end of a connection for the end of the command, and says 0.
    assert shell.returncode == 1
    late = lab.adb("farm", "shell", "true", check=False)
    assert late.returncode == 3
    assert "farm is stopped" in late.stderr


def test_another_certificate_is_not_trusted(lab: Lab) -> None:
    lab.host.run("pkill", "-TERM", "-f", "cfctl relay serve")
    until("the end of the relay", lambda: lab.host.cfctl("relay", "status", check=False).returncode == 3)
    lab.host.run("rm", "-r", "/var/lib/cfctl/relay")
    with serving(lab.host) as fingerprint:
        assert fingerprint != lab.fingerprint
        done = lab.cfctl("--relay", "lab", "ps", check=False)
    assert done.returncode == 1
    assert "has another certificate than it should have" in done.stderr
    assert fingerprint in done.stderr
