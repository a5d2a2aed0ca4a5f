"""QEMU's monitor: short sessions, events in between, and somebody who holds it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.control import keyboard, operations, perform, qemu, qmp
from cfctl.control.faults import VmRefused, VmSilent, VmUnreachable
from cfctl.control.operations import Manager
from cfctl.control.qmp import QmpFailed, QmpRefused
from cfctl.control.target import VmTarget
from cfctl.errors import UsageError

#: Far more than anything here takes.
PATIENCE_S = 20.0

#: As QEMU 7.2 says it (vm_control.md section 5).
GREETING = {
    "QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}
}
EVENT = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}

#: What the monitor says to a command, line by line.
Says = Callable[[str, dict[str, Any]], list[bytes]]


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\r\n"


def returns(value: Any) -> list[bytes]:
    return [line({"return": value})]


@contextlib.contextmanager
def monitor(directory: Path, says: Says, *, greeting: bytes = line(GREETING)) -> Iterator[tuple[VmTarget, list[str]]]:
    """Serve one client after the other, as QEMU does; give the VM, and the commands that came."""
    (directory / "internal").mkdir(exist_ok=True)
    target = VmTarget("phone", Manager.QEMU, directory)
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(target.socket))
        listener.listen(4)

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with contextlib.suppress(OSError, ValueError), client, client.makefile("rwb") as file:
                        file.write(greeting)
                        file.flush()
                        for raw in file:
                            request = json.loads(raw)
                            asked.append(request["execute"])
                            negotiates = request["execute"] == "qmp_capabilities"
                            said = (
                                returns({}) if negotiates else says(request["execute"], request.get("arguments", {}))
                            )
                            if not said:
                                break
                            file.writelines(said)
                            file.flush()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield target, asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            target.socket.unlink()


def do(target: VmTarget, words: str, *, seconds: float = PATIENCE_S) -> dict[str, Any]:
    return asyncio.run(perform.perform(target, operations.from_words(words.split(" ")), seconds=seconds))


def test_events_come_in_between(tmp_path: Path) -> None:
    with monitor(tmp_path, lambda *_: [line(EVENT), line(EVENT), *returns({"a": 1}), line(EVENT)]) as (target, asked):
        assert asyncio.run(qmp.execute(target.socket, "query-status")) == {"a": 1}
        assert asked == ["qmp_capabilities", "query-status"]


def test_a_refusal_has_its_own_words(tmp_path: Path) -> None:
    error = {"error": {"class": "DeviceNotActive", "desc": "No balloon device has been activated"}}
    with monitor(tmp_path, lambda *_: [line(error)]) as (target, _):
        with pytest.raises(QmpRefused) as caught:
            asyncio.run(qmp.execute(target.socket, "query-balloon"))
        assert (caught.value.kind, caught.value.said) == ("DeviceNotActive", "No balloon device has been activated")
        with pytest.raises(VmRefused) as refused:
            do(target, "balloon stats")
        assert refused.value.reply == {"class": "DeviceNotActive", "desc": "No balloon device has been activated"}
        assert refused.value.resolution == "The device must have been launched with a balloon."


@pytest.mark.parametrize("said", ["Parameter 'data' does not accept value 'nosuch'", "Invalid parameter 'nosuch'"])
def test_a_key_that_there_is_not_is_a_mistake_of_the_askers(tmp_path: Path, said: str) -> None:
    error = {"error": {"class": "GenericError", "desc": said}}
    with (
        monitor(tmp_path, lambda *_: [line(error)]) as (target, _),
        pytest.raises(UsageError, match="QEMU knows no key 'nosuch'"),
    ):
        do(target, "key ctrl-nosuch")


def test_a_long_answer(tmp_path: Path) -> None:
    with monitor(tmp_path, lambda *_: returns("x" * 300_000)) as (target, _):
        assert len(asyncio.run(qmp.execute(target.socket, "query-qmp-schema"))) == 300_000


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"hello\r\n", b""),
        (b"[]\r\n", b""),
        (b'{"no": "greeting"}\r\n', b""),
        (b"\xff\r\n", b""),
        (line(GREETING), b""),
        (line(GREETING), b"half a line"),
        (line(GREETING), b"not json\r\n"),
        (line(GREETING), b"7\r\n"),
    ],
)
def test_what_is_no_monitor(tmp_path: Path, greeting: bytes, answer: bytes) -> None:
    def says(_command: str, _arguments: dict[str, Any]) -> list[bytes]:
        return [answer] if answer else []

    with monitor(tmp_path, says, greeting=greeting) as (target, _), pytest.raises(QmpFailed):
        asyncio.run(_hasty(target.socket))


async def _hasty(path: Path) -> None:
    async with qmp.session(path, "query-status", patience=0.5) as talk:
        await talk.execute("query-status")


def test_somebody_who_holds_it_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with monitor(tmp_path, lambda *_: returns([])) as (target, asked):
        with socket.socket(socket.AF_UNIX) as holder:
            holder.connect(str(target.socket))
            assert b"QMP" in holder.recv(1000)
            with pytest.raises(VmSilent) as caught:
                do(target, "vcpus", seconds=0.3)
            assert caught.value.exit_code == 5
        # And now it is free.
        assert do(target, "vcpus") == {"vcpus": []}
        assert asked[-1] == "query-cpus-fast"


def test_the_peer_is_the_vm(tmp_path: Path) -> None:
    with monitor(tmp_path, lambda *_: returns([{"cpu-index": 0, "thread-id": 7}])) as (target, _):
        assert do(target, "vcpus") == {"vcpus": [{"index": 0, "pid": os.getpid(), "tid": 7}]}


def test_no_monitor(tmp_path: Path) -> None:
    (tmp_path / "internal").mkdir()
    with pytest.raises(VmUnreachable):
        do(VmTarget("phone", Manager.QEMU, tmp_path), "vcpus")


def test_a_disk_by_its_node_where_it_has_no_name(tmp_path: Path) -> None:
    # Upstream's disks are -blockdev; a drive without a medium, and one that can be taken out, are none.
    disks = [
        {"device": "cd", "removable": True, "inserted": {"node-name": "cd0"}},
        {"device": "", "removable": False, "inserted": {"node-name": "disk0"}},
        {"device": "empty", "removable": False},
        {"device": "second", "removable": False, "inserted": {"node-name": "disk1"}},
    ]
    resized = []

    def says(command: str, arguments: dict[str, Any]) -> list[bytes]:
        if command == "block_resize":
            resized.append(arguments)
        return returns(disks if command == "query-block" else {})

    with monitor(tmp_path, says) as (target, _):
        do(target, "disk resize 0 1M")
        do(target, "disk resize 1 2M")
        with pytest.raises(UsageError, match=r"has 2 disk"):
            do(target, "disk resize 2 2M")
    assert resized == [{"node-name": "disk0", "size": 1 << 20}, {"device": "second", "size": 2 << 20}]


def test_a_picture_is_left_nowhere(tmp_path: Path) -> None:
    def says(_command: str, arguments: dict[str, Any]) -> list[bytes]:
        Path(arguments["filename"]).write_bytes(b"P6\n2 1\n255\n\xff\0\0\0\xff\0")
        return returns({})

    with monitor(tmp_path, says) as (target, _):
        found = asyncio.run(perform.perform(target, operations.operation("display.screenshot")))
        assert base64.b64decode(found["picture"]).startswith(b"\x89PNG")
        listed = asyncio.run(perform.perform(target, operations.operation("display.list")))
        assert [(one["width"], one["height"]) for one in listed["displays"]] == [(2, 1)]
        assert [path.name for path in target.internal.iterdir()] == ["qemu_monitor.sock"]


def test_a_contained_vm_writes_where_it_sees_the_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").symlink_to("in")
    named: list[str] = []

    def says(_command: str, arguments: dict[str, Any]) -> list[bytes]:
        named.append(arguments["filename"])
        Path(arguments["filename"]).write_bytes(b"P6\n2 1\n255\n\xff\0\0\0\xff\0")
        return returns({})

    with monitor(tmp_path / "in", says):
        target = VmTarget("phone", Manager.QEMU, tmp_path / "out", inside=tmp_path / "in")
        asyncio.run(perform.perform(target, operations.operation("display.screenshot")))
    assert named[0].startswith(f"{tmp_path}/in/internal/cfctl-")


def test_run_cvd_is_asked_before_qemu(tmp_path: Path) -> None:
    """Upstream's run_cvd refuses to suspend a VM of QEMU's; then QEMU is asked."""
    for answer, expected in ((b"S", []), (b"E", ["qmp_capabilities", "stop"])):
        with monitor(tmp_path, lambda *_: returns({})) as (target, asked), socket.socket(socket.AF_UNIX) as run_cvd:
            run_cvd.bind(str(target.monitor))
            run_cvd.listen()
            run_cvd.settimeout(PATIENCE_S)
            got: list[bytes] = []

            def serve(answer: bytes = answer, got: list[bytes] = got, run_cvd: socket.socket = run_cvd) -> None:
                client, _ = run_cvd.accept()
                with client:
                    got.append(client.recv(100))
                    client.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            assert asyncio.run(perform.perform(target, operations.operation("suspend"), seconds=PATIENCE_S)) == {}
            thread.join()
            target.monitor.unlink()
            assert (got, asked) == ([bytes.fromhex("41020000002a00")], expected)


def test_an_answer_of_run_cvds_is_never_abandoned(tmp_path: Path) -> None:
    """A client that closes before its answer kills the VM of older launchers."""
    (tmp_path / "internal").mkdir()
    target = VmTarget("phone", Manager.QEMU, tmp_path)
    with socket.socket(socket.AF_UNIX) as run_cvd:
        run_cvd.bind(str(target.monitor))
        run_cvd.listen()
        run_cvd.setblocking(False)

        async def cancelled() -> bytes:
            loop = asyncio.get_running_loop()
            asking = asyncio.create_task(perform.perform(target, operations.operation("suspend"), seconds=PATIENCE_S))
            client, _ = await loop.sock_accept(run_cvd)
            with client:
                assert await loop.sock_recv(client, 100)
                asking.cancel()
                still_there = asyncio.create_task(loop.sock_recv(client, 100))
                await asyncio.wait({still_there}, timeout=0.2)
                assert not still_there.done(), "it closed the connection"
                await loop.sock_sendall(client, b"S")
                with pytest.raises(asyncio.CancelledError):
                    await asking
                return await still_there

        assert asyncio.run(cancelled()) == b""


def test_what_info_usb_prints() -> None:
    # Recorded from QEMU 7.2.
    text = (
        "  Device 0.1, Port 1, Speed 12 Mb/s, Product QEMU USB Tablet, ID: tablet\r\n"
        "  Device 0.2, Port 2.1, Speed 480 Mb/s, Product A, B and C\r\n"
    )
    assert qemu.usb_devices(text) == [
        {"port": 1, "product": "QEMU USB Tablet", "id": "tablet"},
        {"port": 2, "product": "A, B and C", "id": None},
    ]
    assert qemu.usb_devices("USB support not enabled\r\n") == []


@given(st.text(max_size=200))
def test_whatever_info_usb_prints(text: str) -> None:
    qemu.usb_devices(text)


def test_every_sign_that_can_be_typed_has_its_keys() -> None:
    text = "".join(map(chr, range(32, 127))) + "\t\n"
    strokes = keyboard.strokes(text)
    assert len(set(strokes)) == len(text), "no two signs are typed alike"
    assert all((0 < len(stroke) <= 2 and stroke[0] == "shift") or len(stroke) == 1 for stroke in strokes)
    assert (strokes[ord("a") - 32], strokes[ord("A") - 32]) == (("a",), ("shift", "a"))
