"""The screen of a real guest, from launch to stop: its picture moves, what is typed arrives, a touch as sent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import INSIDE, Sandbox

URL = "http://127.0.0.1:1080"
PYTHON = str(INSIDE / ".venv/bin/python")

#: Keeps what the guest's input devices tell.
LISTEN = "for d in /dev/input/event*; do cat $d >/tmp/${d##*/} 2>/dev/null </dev/null & done; sleep 1"


READ = "for f in /tmp/event*; do od -An -v -tx2 $f; done"


def events(words: str) -> set[tuple[int, int, int]]:
    """Return type, code and value of events (struct input_event of a 64-bit kernel: twelve words)."""
    found = [int(word, 16) for word in words.split()]
    return {(found[at + 8], found[at + 9], found[at + 10]) for at in range(0, len(found) - 11, 12)}


@pytest.fixture
def box(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Give a host on which an operator serves."""
    sandbox.run("mkdir", "/run/cuttlefish")
    operator = sandbox.start(
        *(PYTHON, "-m", "tests.screens.stock", "/run/cuttlefish/operator", "1080"), stdout=subprocess.PIPE
    )
    assert operator.stdout is not None
    with operator.stdout:
        assert operator.stdout.readline() == "1080\n"
        yield sandbox
        operator.kill()
        operator.wait()


class Looker:
    """The viewer, as a program inside."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def ask(self, do: str, **more: Any) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._child.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the viewer has ended"
        return json.loads(line)


@contextlib.contextmanager
def looking(box: Sandbox, device: str) -> Iterator[Looker]:
    child = box.start(
        *(PYTHON, "-m", "tests.screens.look", URL, device), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        looker = Looker(child)
        assert looker.hear() == "ready"
        yield looker


def typed(text: str) -> list[dict[str, Any]]:
    codes = {" ": "Space", "/": "Slash", "\n": "Enter", **{str(n): f"Digit{n}" for n in range(10)}}
    return [
        {"type": "keyboard", "keycode": codes.get(sign) or f"Key{sign.upper()}", "event_type": event}
        for sign in text
        for event in ("keydown", "keyup")
    ]


def see_it_typed(looker: Looker) -> None:
    """Type a command and see what it prints; again, for the guest may lose what comes as its shell begins a line."""
    before = looker.ask("picture")["stripes"][2:8]
    for _ in range(12):
        looker.ask("input", messages=typed("ls /\n"))
        again = time.monotonic() + 5
        while time.monotonic() < again:
            if looker.ask("picture")["stripes"][2:8] != before:
                return
            time.sleep(0.02)
    raise AssertionError("what was typed is not seen")


def test_the_guest_lives_and_can_be_typed_and_pointed_at(box: Sandbox, host_package: Path, tmp_path: Path) -> None:
    box.cfctl("host", "setup", "--instances", "1")
    box.cfctl("launch", "phone", "--host-package", str(host_package), "--gpu", "guest_swiftshader")
    with looking(box, "cvd-1") as looker:
        # -- the picture: the console, whose first line moves by itself
        first = looker.ask("picture")
        assert first["size"] == [720, 400]
        assert len(set(first["stripes"])) > 1, "a blank screen"
        looker.ask("changes", stripe=0)
        stats = looker.ask("stats")
        assert {"VIRTUAL_DEVICE_BOOT_STARTED", "VIRTUAL_DEVICE_BOOT_COMPLETED"} <= set(stats["events"])

        # -- the keyboard: what is typed is done by the guest's shell, and seen on the screen
        looker.ask("input", messages=typed("mkdir /tmp/typed42\n"))
        box.cfctl("adb", "phone", "shell", "until [ -d /tmp/typed42 ]; do sleep 0.1; done")
        see_it_typed(looker)

        # -- a finger: the tablet's place and its button, as sent; the wheel too
        box.cfctl("adb", "phone", "shell", f"({LISTEN}) >/dev/null 2>&1")
        finger = {"type": "multi-touch", "id": [3], "x": [719], "y": [0], "device_label": "display_0"}
        looker.ask("input", messages=[{**finger, "down": 1}, {**finger, "down": 0}, {"type": "wheel", "pixels": 1}])
        # linux/input-event-codes.h: ABS_X, BTN_LEFT down and up, REL_WHEEL.
        wanted = {(3, 0, 0x7FFF), (1, 0x110, 1), (1, 0x110, 0), (2, 8, 1)}
        deadline = time.monotonic() + 60
        while not wanted <= (felt := events(box.cfctl("adb", "phone", "shell", READ).stdout)):
            assert time.monotonic() < deadline, felt

        # -- a restart of the VM: who watches goes on
        before = looker.ask("stats")["frames"]
        box.cfctl("powerwash", "phone")
        looker.ask("changes", stripe=0)
        assert looker.ask("stats")["frames"] > before

        # -- the verb, while another looks
        found = box.json("screen", "phone", "--png", "/tmp/now.png")
        conforms(found, "screen")
        assert box.run("sh", "-c", "head -c 4 /tmp/now.png | tail -c 3").stdout == "PNG"
        film = box.json("screen", "phone", "--record", "/tmp/film.webm", "--seconds", "2")
        conforms(film, "screen")
        count = "import av; print(sum(1 for _ in av.open('/tmp/film.webm').decode(video=0)))"
        assert box.run(PYTHON, "-c", count).stdout == f"{film['frames']}\n"
        counted = box.json("screen", "phone", "--stats", "--seconds", "2")
        conforms(counted, "screen")
        assert counted["frames"] > 1

    # -- the monitor is free for others meanwhile, and stop leaves nothing
    assert any("webRTC" in args for args in box.processes().values())
    stopped = box.json("stop", "phone")
    assert not any(word in args for args in box.processes().values() for word in ("webRTC", "qemu", "run_cvd"))
    conforms(stopped, "devices" if "devices" in stopped else "device")


def test_a_relay_of_this_host_is_asked_without_a_word(sandbox: Sandbox, host_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    serve = sandbox.cfctl_argv("relay", "serve", "--web", "127.0.0.1:8443")
    relay = sandbox.start(*serve, stdout=subprocess.PIPE, env={"PYTHONUNBUFFERED": "1"})
    assert relay.stdout is not None
    with relay.stdout:
        # It says where it listens once it does.
        assert any(line.startswith("streamers") for line in relay.stdout)
        sandbox.cfctl("launch", "phone", "--host-package", str(host_package), "--gpu", "guest_swiftshader")
        found = sandbox.json("screen", "phone", "--png", "/tmp/now.png")
        assert (found["width"], found["height"]) == (720, 400)
        assert sandbox.json("screen", "phone", "--stats", "--seconds", "2")["frames"] > 1
        sandbox.cfctl("stop", "phone")
        relay.terminate()
        relay.wait()


def test_without_libraries_the_device_is_a_device_all_the_same(sandbox: Sandbox, host_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    env = {"HOME": "/root/d", "CFCTL_PYTHON": "/usr/bin/python3"}
    sandbox.run("sh", "-c", f"mkdir -p /home/d && HOME=/home/d {host_package}/bin/launch_cvd --daemon", env=env)
    log = "/home/d/cuttlefish_runtime/launcher.log"
    said = sandbox.run("cat", log).stdout
    assert "the streamer ended with status 4: /usr/bin/python3 lacks what a screen needs: aiortc, av, msgspec" in said
    assert "the device goes on without a screen for browsers" in said
    sandbox.run("sh", "-c", f"HOME=/home/d {host_package}/bin/stop_cvd")
    assert not any("qemu" in args or "webRTC" in args for args in sandbox.processes().values())
