"""The embedded guest's streamer against a real QEMU and a stand-in for the stock operator: the wire, bad input."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cfctl.control import qmp
from cfctl.guest.streamer import keys
from cfctl.viewer import signalling, stream
from cfctl.wire import vp8
from cfctl.wire import webrtc_channels as channels
from cfctl.wire import webrtc_messages as messages
from tests.screens import machine as machines
from tests.screens.machine import ID, ONE, Machine, eventually, until


def in_time(work: Coroutine[Any, Any, None]) -> None:
    """Run work that may wait for what never comes."""
    asyncio.run(asyncio.wait_for(work, 2 * machines.PATIENCE_S))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a VM without a guest; what a failed test needs to know is printed."""
    with machines.machine(tmp_path) as made:
        made.start_qemu()
        yield made
        print(made.log)


@pytest.fixture
def both(machine: Machine) -> Machine:
    """Give a VM of which the streamer is registered."""
    machine.start_operator()
    machine.start_streamer()
    asyncio.run(eventually("the registration", machine.registered))
    return machine


REGISTERED = {
    "message_type": "register",
    "device_id": ID,
    "device_port": 0,
    "device_info": {
        "displays": [{"stream_id": "display_0", "x_res": 720, "y_res": 400, "dpi": 160, "is_touch": True}],
        "touchpads": [],
        "audio_streams": [],
        "hardware": {"CPUs": "2", "RAM": "256 mb", "GPU Mode": "guest_swiftshader"},
        "openwrt_device_id": ID,
        "openwrt_addr": "",
        "adb_port": 1,
        "control_env_proxy_server_path": "",
        "mouse_enabled": True,
        "gamepad_enabled": False,
        "custom_control_panel_buttons": [],
    },
}


def test_it_registers_in_either_order_and_again(machine: Machine) -> None:
    # -- the streamer first: it looks for the operator until there is one, even after a stock streamer has given up
    machine.start_streamer()
    until("the first look", lambda: "No such file" in machine.log)
    until("the last look of a stock streamer", lambda: "looking for it every" in machine.log)
    operator = machine.start_operator()
    asyncio.run(eventually("the registration", machine.registered))
    (first,) = asyncio.run(machine.ask("/log"))
    # QEMU's firmware may not have drawn its first line yet.
    (display,) = first["device_info"]["displays"]
    assert (display["x_res"], display["y_res"]) in ((720, 400), (640, 480))
    display.update(x_res=720, y_res=400)
    assert first == REGISTERED

    # -- the operator closes the connection, or ends and comes back
    asyncio.run(machine.ask(f"/drop/{ID}", b""))
    asyncio.run(eventually("the second registration", machine.registered))
    operator.send_signal(signal.SIGKILL)
    operator.wait()
    machine.start_operator()
    asyncio.run(eventually("the third registration", machine.registered))
    assert machine.streamer is not None
    assert machine.streamer.poll() is None


def test_it_ends_with_its_supervisor_and_when_told(both: Machine) -> None:
    assert both.streamer is not None
    first = both.streamer
    os.close(both.events)
    assert first.wait(machines.PATIENCE_S) == 0
    second = both.start_streamer()
    asyncio.run(eventually("the registration", both.registered))

    async def watched() -> None:
        async with stream.watching(both.operator, ID) as viewer:
            async for _ in viewer.frames():
                second.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(second.wait, machines.PATIENCE_S) == 0
                break

    in_time(watched())


@pytest.mark.parametrize("polling", [False, True], ids=["websocket", "polling"])
def test_a_session(machine: Machine, polling: bool) -> None:
    talks: list[asyncio.Task[Any]] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        talks.append(talk)
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def session() -> None:
        adbd = await asyncio.start_server(echo, "127.0.0.1", 0)
        machine.adb_port = adbd.sockets[0].getsockname()[1]
        machine.start_operator(*(["--polling"] if polling else []))
        machine.start_streamer()
        machine.tell(channels.BOOT_STARTED)
        await eventually("the registration", machine.registered)
        async with stream.watching(machine.operator, ID) as viewer:
            offer = viewer.connection.remoteDescription.sdp
            assert re.findall(r"a=msid:(.*)", offer)[0].split() == ["display_0", "display_0"]
            assert re.findall(r"m=(\w+)", offer) == ["video", "application"]
            assert set(re.findall(r"a=rtpmap:\d+ (\w+)/", offer)) == {"VP8", "rtx"}
            assert "a=candidate:" in offer

            # -- frames: each viewer begins with a key frame; others come when asked for
            frames = viewer.frames()
            assert vp8.is_key(await anext(frames))
            assert (viewer.stats.width, viewer.stats.height) == (720, 400)
            await viewer.ready()
            before = viewer.stats.key_frames
            async for _ in frames:
                if viewer.stats.key_frames > before:
                    break
                await viewer._ask_for_key()

            # -- what has happened is told at the beginning, and what happens when it does
            control: list[Any] = viewer.heard

            async def knows(event: str) -> bool:
                return event in [one.event for one in control]

            await eventually("the first event", lambda: knows(channels.BOOT_STARTED))
            machine.tell(channels.BOOT_COMPLETED)
            await eventually("the second event", lambda: knows(channels.BOOT_COMPLETED))

            # -- adb: bytes there and back
            adb = viewer.connection.createDataChannel(channels.ADB)
            opened, got = asyncio.Event(), bytearray()
            adb.on("open", opened.set)
            adb.on("message", got.extend)
            await asyncio.wait_for(opened.wait(), machines.PATIENCE_S)
            sent = os.urandom(300_000)
            for start in range(0, len(sent), 50_000):
                adb.send(sent[start : start + 50_000])

            async def all_back() -> bool:
                return len(got) >= len(sent)

            await eventually("the echo", all_back)
            assert bytes(got) == sent
        adbd.close()
        # The bridge has closed its end.
        async with asyncio.timeout(machines.PATIENCE_S):
            await asyncio.gather(*talks)

    in_time(session())


GARBAGE = [
    b"no json",
    b"[]",
    b"{}",
    b'{"error":"Client disconnected:  77\\n"}',
    b'{"message_type":"registered"}',
    b'{"message_type":"config","ice_servers":[{"urls":"stun:x"}]}',
    b'{"message_type":"client_msg","client_id":"1","payload":{}}',
    b'{"message_type":"client_msg","client_id":900,"payload":null}',
    b'{"message_type":"client_msg","client_id":901,"payload":{"type":"answer","sdp":"v=0"}}',
    b'{"message_type":"client_msg","client_id":902,"payload":{"type":"ice-candidate","candidate":null}}',
    b'{"message_type":"client_disconnected","client_id":903}',
    b'{"message_type":"client_msg","client_id":904,"payload":{"type":"request-offer","ice_servers":"all"}}',
    b"\xff\xfe",
    b"[" * 100_000,
]

PAYLOADS: list[Any] = [
    {"type": "answer", "sdp": "v=0\r\nm=video"},
    {"type": "answer", "sdp": "nothing"},
    {"type": "offer", "sdp": "v=0\r\n"},
    {"type": "ice-candidate", "candidate": {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}},
    {"type": "ice-candidate", "candidate": {"candidate": "candidate:1 1 udp", "sdpMid": "0", "sdpMLineIndex": 0}},
    {
        "type": "ice-candidate",
        "candidate": {"candidate": "candidate:1 1 udp 1 10.0.0.1 9 typ host", "sdpMid": "9", "sdpMLineIndex": 9},
    },
    {"type": "unheard-of"},
    {"type": 7},
    {},
]

INPUT: list[str | bytes] = [
    b"binary",
    "no json",
    '{"type":"multi-touch","id":[0],"x":["a"],"y":[1],"down":1,"device_label":"display_0"}',
    '{"type":"multi-touch","id":[0],"x":[1],"y":[1],"down":true,"device_label":"display_0"}',
    '{"type":"multi-touch","id":[0,1],"x":[1],"y":[1],"down":1,"device_label":"display_0"}',
    '{"type":"keyboard","keycode":"NoSuchKey","event_type":"keydown"}',
    '{"type":"gamepadKey","id":"1","button":1,"down":1}',
    "[" * 50_000,
]


def test_malformed_messages_end_nobodys_session(both: Machine) -> None:
    async def play() -> None:
        async with stream.watching(both.operator, ID) as viewer:
            frames = viewer.frames()
            await anext(frames)
            await viewer.ready()
            for record in GARBAGE:
                await both.ask(f"/raw/{ID}", record)
            for said in INPUT:
                viewer.input.send(said)
            adb = viewer.connection.createDataChannel(channels.ADB)
            lost = viewer.connection.createDataChannel("no-such-channel")
            adb.on("open", lambda: adb.send("text"))
            lost.on("open", lambda: lost.send("lost"))

            # -- another client, which says only wrong things once it has its offer; then one that asks twice
            async with signalling.opened(both.operator, ID) as line:
                await line.say(messages.RequestOffer())
                assert isinstance(await line.hear(), messages.Offer)
                assert isinstance(line, signalling._Socket)
                for payload in PAYLOADS:
                    await line._socket.send_str(json.dumps(payload))
                await line.say(messages.RequestOffer())
                assert isinstance(await line.hear(), messages.Offer)

            # -- the first viewer still has its picture and its keyboard, and a third one gets both
            before = viewer.stats.frames
            async for _ in frames:
                if viewer.stats.frames > before + 3:
                    break
            await viewer.send(channels.Keyboard("ShiftLeft", "keydown"))
            async with stream.watching(both.operator, ID) as third:
                await anext(third.frames())
            assert viewer.connection.connectionState == "connected"

    in_time(play())
    assert both.streamer is not None
    assert both.streamer.poll() is None
    log = both.log
    assert log.count("registered as") == 1
    assert "says what is not understood" in log
    assert "before it has asked for an offer" in log
    assert "adb is bytes" in log
    assert "'no-such-channel' leads nowhere" in log
    assert "fault of the streamer's" not in log
    assert "was not understood" not in log
    assert "Traceback" not in log


def test_qemu_knows_every_key(machine: Machine) -> None:
    async def press() -> None:
        async with qmp.session(machine.places.input(ONE), "input-send-event") as talk:
            for code in sorted({*keys.CODES.values(), *keys.BUTTONS.values()}):
                for down in (True, False):
                    event = {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": code}}}
                    await talk.execute("input-send-event", events=[event])

    asyncio.run(press())


def test_the_machine_may_go_and_come_back(both: Machine) -> None:
    """A restart ends QEMU and starts another: who watches goes on watching."""

    async def watch() -> None:
        async with stream.watching(both.operator, ID) as viewer:
            frames = viewer.frames()
            await anext(frames)
            both.stop_qemu()
            until("the loss of the picture", lambda: "no picture" in both.log)
            both.start_qemu()
            before = viewer.stats.frames
            # Frames that were on their way are two at most.
            async for _ in frames:
                if viewer.stats.frames > before + 4:
                    break

    in_time(watch())


def test_nobody_there(tmp_path: Path) -> None:
    async def ask() -> None:
        with pytest.raises(signalling.NoOperator, match="nobody at") as caught:
            async with signalling.opened(signalling.Operator("http://127.0.0.1:1"), "x"):
                pass
        assert "--operator" in str(caught.value.resolution)

    asyncio.run(ask())
    with machines.machine(tmp_path) as made:
        made.start_operator()

        async def unknown() -> None:
            with pytest.raises(signalling.NoOperator, match="is not registered"):
                async with signalling.opened(made.operator, "stranger"):
                    pass
            async with aiohttp.ClientSession() as http, http.get(f"{made.url}/devices/stranger/connect") as answer:
                assert answer.status == 404

        asyncio.run(unknown())
