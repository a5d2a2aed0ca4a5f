"""A VM of crosvm's behind a real relay: what is typed elsewhere succeeds and fails as it does on its host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType

from cfctl.control.operations import TABLE
from cfctl.instance import Instance
from cfctl.launch import procs
from cfctl.relay import people
from cfctl.remote.channel import connected
from cfctl.remote.contexts import Context
from cfctl.remote.tunnel import ADB, Tunnel
from tests import crosvm
from tests.relay.relays import PATIENCE_S, REPO, Relay, bearer, running, wait
from tests.schemas import conforms
from tests.system.docker_terminal import resize

#: Each changes nothing the second time, so that both can be asked for it.
SAME = (
    "balloon set 3M wait",
    "balloon stats",
    "balloon working-set",
    *(f"battery {words}" for words in ("status charging", "health good", "present true", "capacity 15", "ac off")),
    *(f"battery {words}" for words in ("fake 50", "cancel-fake")),
    "usb list",
    "disk resize 0 2G",
    *(f"swap {word}" for word in ("enable", "trim", "out", "status", "disable", "disable slow-file-cleanup")),
    "vcpus",
    "sleepbtn",
    # What it cannot do, and what makes no sense.
    "key home",
    "text hello",
    "disk resize 4 1M",
    "usb detach 9",
    "usb detach 16",
    "battery capacity 101",
    "battery status asleep",
)


#: Nobody on this machine has them: other tests that run meanwhile see this VM, as everybody sees all VMs.
NAME = "relayed"
NUMBER = 126


@dataclass
class Place:
    """A relay, and a VM on its host."""

    relay: Relay
    vm: crosvm.Running

    def here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run cfctl on the relay's own host."""
        return self._run(words)

    def there(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run cfctl with the relay named."""
        return self._run(("--relay", f"unix:{self.relay.socket}", *words))

    @property
    def env(self) -> dict[str, str]:
        """The environment of commands on the relay's host."""
        root = self.relay.root
        places = {f"CFCTL_PATHS_{name.upper()}": str(root / name) for name in ("config", "state", "cache")}
        env = {"PATH": os.environ["PATH"], "HOME": str(root), "PYTHONPATH": str(REPO), **places}
        env["CFCTL_PATHS_RUNTIME"] = str(root / "run")
        return env

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cfctl", *words]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give a relay with a device of which the VM is the stand-in."""
    with running(web="127.0.0.1:0") as relay:
        home = relay.root / "state/devices" / NAME
        # Not in the test's own folder, whose name is too long for sockets.
        avd = relay.root / "avd"
        _write_device(home, relay.root)
        # The VM's process says whose it is, by its environment.
        monkeypatch.setenv(procs.MARK, str(home))
        monkeypatch.setenv(procs.INSTANCE, str(NUMBER))
        with crosvm.running(relay.root / "vm") as vm, socket.socket(socket.AF_UNIX) as launcher:
            avd.mkdir()
            (avd / Instance(NUMBER).id).symlink_to(vm.target.sockets)
            # Whoever looks sees that a launcher listens; nothing here asks it.
            launcher.bind(str(avd / Instance(NUMBER).id / "launcher_monitor.sock"))
            launcher.listen()
            yield Place(relay, vm)


def _write_device(home: Path, root: Path) -> None:
    home.mkdir(parents=True)
    record = {
        "name": NAME,
        "owner": people.by_uid(os.geteuid()).name,
        "created_at": "2026-01-01T00:00:00.000Z",
        "request": {"host_package": str(root)},
        "numbers": [NUMBER],
        "gpu_mode": "none",
        "gpu_reason": "",
        "booted_at": "2026-01-01T00:00:00.000Z",
    }
    (home / "device.json").write_text(json.dumps(record))
    config: dict[str, Any] = {"root_dir": str(home), "instances_uds_dir": str(root / "avd")}
    config |= {"vm_manager": "crosvm", "instances": {str(NUMBER): {}}}
    (home / ".cuttlefish_config.json").write_text(json.dumps(config))


def test_what_is_asked_from_elsewhere_is_answered_as_on_its_host(place: Place) -> None:
    asked = {spec.name for spec in TABLE.values() for words in SAME if words.startswith(" ".join(spec.words))}
    assert asked == {name for name, spec in TABLE.items() if spec.control and spec.relayed}
    for words in SAME:
        theirs, ours = (run("control", NAME, *words.split(), "--json") for run in (place.there, place.here))
        told = json.loads(theirs.stdout)
        assert (words, theirs.returncode, told) == (words, ours.returncode, json.loads(ours.stdout))
        conforms(told, "error" if theirs.returncode else "control")
    assert (place.vm.state["balloon"], place.vm.state["disk"]) == (3 << 20, 2 << 30)
    # What can be done once.
    detached = place.there("control", NAME, "usb", "detach", "3", "--json")
    assert (detached.returncode, json.loads(detached.stdout)["result"]) == (0, {"port": 3})
    assert place.there("control", NAME, "usb", "list").stdout == "no devices\n"
    before = place.vm.requests
    for words in ("usb attach /dev/bus/usb/001/001", "raw {}"):
        refused = place.there("control", NAME, *words.split())
        assert (refused.returncode, "reaches into the device's host" in refused.stderr) == (2, True)
    assert place.vm.requests == before


def test_a_watch_at_a_terminal_is_drawn_as_on_the_host(place: Place) -> None:
    """On a screen of its own, again and again: how long a device is up changes without any news of it."""
    keyboard, screen = pty.openpty()
    resize(screen, 24, 120)
    argv = [sys.executable, "-m", "cfctl", "--relay", f"unix:{place.relay.socket}", "ps", "--watch"]
    watching = subprocess.Popen(argv, stdin=screen, stdout=screen, stderr=screen, env=place.env)
    os.close(screen)
    said = b""
    try:
        while len(set(re.findall(rb"relayed +running .*?(\d+m?\d*s)", said))) < 3:
            assert select.select([keyboard], [], [], PATIENCE_S)[0], said
            said += os.read(keyboard, 1 << 16)
        watching.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while data := os.read(keyboard, 1 << 16):
                said += data
        assert watching.wait(PATIENCE_S) == 130
    finally:
        watching.kill()
        watching.wait()
    os.close(keyboard)
    assert said.startswith(b"\x1b[?1049h")
    assert b"\x1b[?1049l" in said
    assert said.count(b"\x1b[H") >= 3


def test_displays_from_elsewhere(place: Place) -> None:
    added = place.there("display", NAME, "add", "1280x800", "--json")
    assert added.returncode == 0, added.stdout
    assert json.loads(added.stdout) == json.loads(place.here("display", NAME, "--json").stdout)
    assert [one["width"] for one in json.loads(added.stdout)["displays"]] == [720, 1280]
    assert place.there("display", NAME, "remove", "1").returncode == 0
    theirs, ours = (run("display", NAME, "remove", "1", "--json") for run in (place.there, place.here))
    assert (theirs.returncode, json.loads(theirs.stdout)) == (ours.returncode, json.loads(ours.stdout))
    assert theirs.returncode == 2


def test_a_late_answer_is_waited_for_and_silence_is_not(place: Place) -> None:
    place.vm.fault("late 2")
    done = place.there("control", NAME, "balloon", "set", "2M")
    assert (done.returncode, place.vm.state["balloon"]) == (0, 2 << 20)
    for fault in ("silent", "late 4"):
        place.vm.fault(fault)
        timed = place.there("control", NAME, "balloon", "set", "1M", "--timeout", "3", "--json")
        assert (timed.returncode, json.loads(timed.stdout)["error"]["code"]) == (5, "timed-out")
        # The next request meets no answer but its own.
        place.vm.fault("")
        stats = json.loads(place.there("control", NAME, "balloon", "stats", "--json").stdout)
        assert stats["result"] == {"balloon_bytes": 1 << 20, "stats": {"free_memory": 11, "total_memory": 22}}


@pytest.mark.parametrize("fault", ["end", "garbage", "unknown", "long 100000"])
def test_answers_that_are_none(place: Place, fault: str) -> None:
    place.vm.fault(fault)
    theirs, ours = (run("control", NAME, "swap", "enable", "--json") for run in (place.there, place.here))
    told, here = (json.loads(done.stdout)["error"] for done in (theirs, ours))
    assert (theirs.returncode, told["code"], told["brief"]) == (ours.returncode, here["code"], here["brief"])
    assert theirs.returncode == 1


def test_an_operator_resizes_no_disk(place: Place) -> None:
    """The table says who may: it costs the host's disk, and what is cut off is lost."""
    from cfctl.v1 import control_pb2, control_pb2_grpc

    with place.relay.elsewhere() as channel:
        control = control_pb2_grpc.ControlStub(channel)
        request = control_pb2.ResizeDiskRequest(target=NAME, index=0, bytes=1 << 31)
        codes = []
        for level in ("viewer", "operator", "admin"):
            future: Any = control.ResizeDisk.future(
                request, metadata=bearer(place.relay.token(level)), timeout=PATIENCE_S
            )
            codes.append(future.code().name)
    assert codes == ["PERMISSION_DENIED", "PERMISSION_DENIED", "OK"]
    assert place.vm.state["disk"] == 1 << 31


def test_tunnels_are_written_down_when_they_begin_and_when_they_end(place: Place) -> None:
    context = Context("here", f"unix:{place.relay.socket}")

    async def run() -> list[list[dict[str, Any]]]:
        server = await asyncio.start_server(_answer, "127.0.0.1", Instance(NUMBER).adb_port)
        found: list[list[dict[str, Any]]] = []
        async with server, connected(context) as relay, asyncio.timeout(PATIENCE_S):
            for ended_by in ("the device", "the caller", "the VM"):
                tunnel = await Tunnel.open(relay.channel, NAME, ADB, context.address)
                opened = await asyncio.to_thread(wait, lambda: _tunnels(place.relay, len(found), 1), "the first line")
                await tunnel.write(b"hello")
                assert await tunnel.read() == b"hello!"
                if ended_by == "the device":
                    await tunnel.write(b"bye")
                    await tunnel.finish()
                    while await tunnel.read() is not None:
                        pass
                    await tunnel.closing()
                elif ended_by == "the caller":
                    tunnel.cancel()
                else:
                    place.vm.child.kill()
                    await tunnel.closing()
                both = await asyncio.to_thread(wait, lambda: _tunnels(place.relay, len(found), 2), "the last line")
                assert both[0] == opened[0]
                found.append(both)
        return found

    found = asyncio.run(run())
    for first, last in found:
        assert (first["result"], first["device"], first["service"]) == ("opened", NAME, "adb")
        assert (last["device"], last["service"], last["sent"]) == (NAME, "adb", 6)
        assert last["user"] == people.by_uid(os.geteuid()).name
    told = [(last["result"], last["received"], last["reason"]) for _, last in found]
    assert told[:2] == [("ok", 8, "both ends have finished"), ("cancelled", 5, "the caller has left")]
    assert told[2][:2] == ("ok", 5)
    assert told[2][2].startswith(f"{NAME} ")


def test_a_pages_adb_goes_to_the_devices_own_port(place: Place) -> None:
    """As the stock operator has it: a WebSocket, for operators; anything else leaves nothing open."""
    address = f"{place.relay.listeners['web']['address']}/devices/{NAME}/adb"
    connections = 0
    left = asyncio.Semaphore(0)

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await _answer(reader, writer)
        await writer.wait_closed()
        left.release()

    async def run() -> None:
        server = await asyncio.start_server(count, "127.0.0.1", Instance(NUMBER).adb_port)
        headers = {"Authorization": f"Bearer {place.relay.token('operator')}"}
        async with server, ClientSession() as session, asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                async with session.get(address, headers=headers) as answer:
                    assert answer.status == 400
            async with session.ws_connect(address, headers=headers) as line:
                await line.send_bytes(b"hello")
                assert (await line.receive_bytes()) == b"hello!"
            assert connections == 1
            async with session.ws_connect(address, headers=headers) as line:
                await line.send_bytes(b"hello")
                assert (await line.receive_bytes()) == b"hello!"
                place.vm.child.kill()
                assert (await line.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
            # The device is left alone both times.
            await left.acquire()
            await left.acquire()

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as streamer:
        streamer.settimeout(PATIENCE_S)
        streamer.connect(str(place.relay.root / "run/streamers.sock"))
        streamer.send(json.dumps({"message_type": "register", "device_id": Instance(NUMBER).id}).encode())
        assert json.loads(streamer.recv(1 << 16))["message_type"] == "config"
        asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(await reader.readexactly(5) + b"!")
        await reader.read()
    writer.close()


def _tunnels(relay: Relay, before: int, count: int) -> list[dict[str, Any]]:
    """Return the lines of the audit log about the tunnel that came after others, once there are so many."""
    lines = [line for line in relay.audit() if line["method"].endswith("Tunnel/Open")][2 * before :]
    return lines if len(lines) == count else []
