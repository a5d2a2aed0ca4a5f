"""Every message of the signalling and of the data channels: read, written, and what is none of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from cfctl.wire import webrtc_channels as channels
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_messages import MalformedMessage, decode, encode

STUN: dict[str, Any] = {"urls": ["stun:stun.example.org:3478"]}
TURN: dict[str, Any] = {"urls": ["turn:192.0.2.1:3478?transport=udp"], "username": "1:x", "credential": "s"}
INFO: dict[str, Any] = {
    "displays": [{"stream_id": "display_0", "x_res": 720, "y_res": 1280, "dpi": 160, "is_touch": True}],
    "touchpads": [{"x_res": 100, "y_res": 200, "label": "touch_0"}],
    "audio_streams": [{"stream_id": "audio-0"}],
    "hardware": {"CPUs": "2", "RAM": "2048 mb", "GPU Mode": "none"},
    "openwrt_device_id": "cvd-1",
    "openwrt_addr": "",
    "adb_port": 6520,
    "control_env_proxy_server_path": "/x/ControlEnvProxyServer.sock",
    "mouse_enabled": True,
    "gamepad_enabled": False,
    "custom_control_panel_buttons": [
        {"command": "a", "title": "A", "icon_name": "i", "shell_command": "true"},
        {"command": "b", "title": "B", "icon_name": "i", "device_states": [{"lid_switch_open": False}]},
    ],
}

#: As reference pages have them: what may come where, and one message of the kind.
MESSAGES: list[tuple[Any, dict[str, Any] | list[Any]]] = [
    (messages.Register, {"message_type": "register", "device_id": "cvd-1", "device_port": 4, "device_info": INFO}),
    (messages.ToStreamer, {"message_type": "config", "ice_servers": [STUN, TURN]}),
    (messages.ToStreamer, {"message_type": "config", "ice_servers": []}),
    (messages.ToStreamer, {"message_type": "client_msg", "client_id": 3, "payload": {"type": "answer", "sdp": "v"}}),
    (messages.ToStreamer, {"message_type": "client_msg", "client_id": 1, "payload": None}),
    (messages.ToStreamer, {"message_type": "client_disconnected", "client_id": 2147483647}),
    (messages.Forward, {"message_type": "forward", "client_id": 3, "payload": {"b": 1, "a": 9007199254740993}}),
    (messages.Refusal, {"error": "Device id already taken:  cvd-1\n"}),
    (messages.DeviceInfo, INFO),
    (
        messages.PreRegister,
        {
            "message_type": "pre-register",
            "group_name": "cvd_1",
            "owner": "alice",
            "devices": [{"id": "cvd_1-1-1", "name": "1", "adb_port": 6520}],
        },
    ),
    (
        list[messages.PreStatus],
        [
            {"id": "cvd_1-1-1", "status": "accepted", "message": ""},
            {"id": "x", "status": "failed", "message": "Device Id already registered"},
        ],
    ),
    (messages.PreStatus, {"id": "cvd_1-1-1", "status": "registered", "message": ""}),
    (
        list[messages.Listed],
        [
            {"device_id": "cvd_1-1-1", "group_name": "cvd_1", "owner": "alice", "name": "1", "adb_port": 6520},
            {"device_id": "cvd-9", "group_name": "", "adb_port": 0},
        ],
    ),
    (
        messages.Listed,
        {"device_id": "cvd-9", "group_name": "", "adb_port": 0, "registration_info": INFO},
    ),
    (messages.NewConnection, {"device_id": "cvd-1"}),
    (messages.PolledConnection, {"connection_id": "a" * 64, "device_info": INFO}),
    (messages.PolledForward, {"payload": {"type": "request-offer"}}),
    (list[messages.DeviceMsg], [{"message_type": "device_msg", "payload": {"type": "offer", "sdp": "v=0"}}]),
    (messages.Introduction, {"device_info": INFO}),
    (messages.FromClient, {"type": "request-offer"}),
    (messages.FromClient, {"type": "request-offer", "ice_servers": [STUN]}),
    (messages.FromClient, {"type": "offer", "sdp": "v=0\r\n"}),
    (messages.FromClient, {"type": "answer", "sdp": "v=0\r\n"}),
    (
        messages.FromClient,
        {
            "type": "ice-candidate",
            "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0},
        },
    ),
    (messages.FromClient, {"type": "error", "error": "no"}),
    (messages.FromDevice, {"type": "offer", "sdp": "v=0\r\n"}),
    (messages.FromDevice, {"type": "answer", "sdp": "v=0\r\n"}),
    (messages.FromDevice, {"type": "ice-candidate", "mid": "0", "mLineIndex": 0, "candidate": "candidate:1"}),
    (messages.FromDevice, {"type": "error", "error": "no"}),
]

INPUTS: list[dict[str, Any]] = [
    {"type": "multi-touch", "id": [1, 2], "x": [0, 5], "y": [7, 9], "down": 1, "device_label": "display_0"},
    {"type": "multi-touch", "id": [1], "x": [0], "y": [7], "down": 0, "device_label": "touch_1"},
    {"type": "mouseMove", "x": -3, "y": 4},
    {"type": "mouseButton", "button": 2, "down": 1},
    {"type": "mouseWheel", "pixels": -120},
    {"type": "wheel", "pixels": 3},
    {"type": "keyboard", "keycode": "KeyA", "event_type": "keydown"},
    {"type": "keyboard", "keycode": "ControlLeft", "event_type": "keyup"},
    {"type": "gamepadKey", "id": "pad", "button": 16, "down": 1},
    {"type": "gamepadMotion", "button": 5, "value": -32768},
]

COMMANDS: list[dict[str, Any]] = [
    *({"command": name, "button_state": "down"} for name in ("power", "back", "home", "menu", "volumedown")),
    {"command": "volumeup", "button_state": "up"},
    {"command": "a_custom_one", "button_state": "down"},
    {"command": "device_state", "lid_switch_open": True, "hinge_angle_value": 90},
    {"command": "device_state", "hinge_angle_value": 0},
    {"command": "display", "refresh_display": 0},
    {"command": "add-display", "width": 640, "height": 480, "dpi": 160, "refresh_rate_hz": 60},
    {"command": "remove-display", "display_id": "1"},
    {"command": "camera_settings", "width": 640, "height": 480, "frame_rate": 30.0, "facing": "front"},
]

EVENTS: list[dict[str, Any]] = [
    {"event": channels.BOOT_STARTED},
    {"event": channels.BOOT_COMPLETED},
    {"event": channels.SCREEN_CHANGED, "metadata": {"rotation": "90"}},
    {"event": channels.DISPLAY_POWER, "metadata": {"display": "0", "mode": "on"}},
    {"event": channels.START_CAMERA, "metadata": {"width": 1}},
    {"event": channels.STOP_CAMERA},
    {"event": channels.CAPTURE_IMAGE},
    {"event": channels.LIGHTS_UPDATE, "metadata": {"lights": [{"id": 1, "color": 2}]}},
]


def tabbed(document: object) -> str:
    """Lay a document out as jsoncpp does: several lines, tabs."""
    return json.dumps(document, indent="\t") + "\n"


@pytest.mark.parametrize(("kind", "document"), MESSAGES)
def test_every_message_comes_back_as_it_was(kind: Any, document: object) -> None:
    read = decode(tabbed(document), kind)
    assert json.loads(encode(read)) == document
    assert encode(decode(encode(read), kind)) == encode(read)


@pytest.mark.parametrize("document", INPUTS)
def test_every_input_comes_back_as_it_was(document: dict[str, Any]) -> None:
    read = channels.read_input(tabbed(document))
    assert json.loads(channels.write(read)) == document


@pytest.mark.parametrize("document", COMMANDS)
def test_every_command_comes_back_as_it_was(document: dict[str, Any]) -> None:
    assert json.loads(channels.write(channels.read_command(tabbed(document)))) == document


@pytest.mark.parametrize("document", EVENTS)
def test_every_event_comes_back_as_it_was(document: dict[str, Any]) -> None:
    assert json.loads(channels.write(channels.read_event(tabbed(document)))) == document


def test_what_is_passed_on_is_not_touched() -> None:
    payload = b'{"z":1.0,"a":12345678901234567890,"m":"\\u003c"}'
    told = decode(b'{"message_type":"forward","client_id":1,"payload":' + payload + b"}", messages.Forward)
    assert encode(messages.DeviceMsg(told.payload)) == b'{"message_type":"device_msg","payload":' + payload + b"}"


def test_a_registration_needs_no_type() -> None:
    assert decode(b'{"device_id":"cvd-1"}', messages.Register).device_info == {}


def test_what_a_number_is_to_jsoncpp_is_one_to_us() -> None:
    assert channels.read_input('{"type":"mouseMove","x":1.0,"y":-2.0}') == channels.MouseMove(1, -2)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (messages.Register, '{"message_type":"register"}'),
        (messages.Register, '{"message_type":"register","device_id":""}'),
        (messages.Register, '{"message_type":"register","device_id":7}'),
        (messages.Register, '{"message_type":"register","device_id":"a","device_info":[]}'),
        (messages.Register, '{"message_type":"register","device_id":"a","device_port":65536}'),
        (messages.Register, '{"message_type":"register","device_id":"../a"}'),
        (messages.Register, '{"message_type":"register","device_id":"a\\n"}'),
        (messages.Register, '{"message_type":"config","device_id":"a"}'),
        (messages.Register, '{"device_id":"a"}{"device_id":"b"}'),
        (messages.Forward, '{"message_type":"forward","payload":{}}'),
        (messages.Forward, '{"message_type":"forward","client_id":"1","payload":{}}'),
        (messages.Forward, '{"message_type":"forward","client_id":1}'),
        (messages.Forward, '{"message_type":"forward","client_id":true,"payload":1}'),
        (messages.ToStreamer, '{"error":"Client disconnected:  77\\n"}'),
        (messages.ToStreamer, '{"message_type":"registered"}'),
        (messages.ToStreamer, '{"message_type":"config","ice_servers":[{"urls":"stun:a"}]}'),
        (messages.FromClient, '{"type":"ice-candidate","candidate":null}'),
        (messages.FromClient, '{"type":"ice-candidate","candidate":{"candidate":"","sdpMid":"0","sdpMLineIndex":0}}'),
        (messages.FromClient, '{"type":"ice-candidate","candidate":{"candidate":"c","sdpMid":"0"}}'),
        (messages.FromClient, '{"type":"ice-candidate","candidate":"candidate:1","mid":"0","mLineIndex":0}'),
        (messages.FromClient, '{"type":"answer"}'),
        (messages.FromClient, '{"type":"answer","sdp":""}'),
        (messages.FromClient, '{"type":"is_connect"}'),
        (messages.FromDevice, '{"type":"request-offer"}'),
        (messages.FromClient, "[]"),
        (messages.FromClient, ""),
    ],
)
def test_what_is_no_message_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(MalformedMessage):
        decode(text, kind)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"multi-touch","id":[1],"x":[1],"y":[1],"down":true,"device_label":"display_0"}',
        '{"type":"multi-touch","id":[1],"x":[1],"y":[1],"down":2,"device_label":"display_0"}',
        '{"type":"multi-touch","id":[1,2],"x":[1],"y":[1],"down":1,"device_label":"display_0"}',
        '{"type":"multi-touch","id":["a"],"x":[1],"y":[1],"down":1,"device_label":"display_0"}',
        '{"type":"multi-touch","id":[],"x":[],"y":[],"down":1,"device_label":"display_0"}',
        '{"type":"multi-touch","id":[1],"x":[1.5],"y":[1],"down":1,"device_label":"display_0"}',
        '{"type":"multi-touch","id":[1],"x":[1],"y":[1],"down":1,"device_label":"../display_0"}',
        '{"type":"mouseButton","button":9,"down":1}',
        '{"type":"keyboard","keycode":"Key A","event_type":"keydown"}',
        '{"type":"touch","x":1,"y":1}',
        '{"x":1}',
        "[" * 100_000,
    ],
)
def test_what_is_no_input_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        channels.read_input(text)


@pytest.mark.parametrize(
    "text",
    ['{"command":"power"}', '{"command":"add-display","width":0,"height":1,"dpi":1,"refresh_rate_hz":1}', "{}"],
)
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        channels.read_command(text)


def test_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedMessage, match="262145 bytes"):
        decode(b" " * (messages.LONGEST_RECORD + 1), Raw)


def test_angles_places_and_readings() -> None:
    assert channels.read_angles("0 0 -90.5") == (0, 0, -90.5)
    assert channels.write_angles(0, 0, 90) == "0 0 90"
    assert channels.read_location(b"13.4,52.5,34") == (13.4, 52.5, 34)
    assert channels.write_location(13.4, 52.5, 34) == "13.4,52.5,34"
    readings = ((0.0, 9.81, 0.0), (0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (0.0, 0.0, 90.0))
    assert channels.write_sensors(readings) == b"0:9.81:0 0:0:0 1:2:3 0:0:90 "
    assert channels.read_sensors(channels.write_sensors(readings)) == readings


@pytest.mark.parametrize(
    "text", ["0 0", "0 0 x", "0  0 0", "0 0 0 0", "nan 0 0", "0 0 1e400", "", b"\xff 0 0", " 0 0 0"]
)
def test_angles_that_would_end_a_streamer_are_refused(text: str | bytes) -> None:
    with pytest.raises(MalformedMessage):
        channels.read_angles(text)


@pytest.mark.parametrize(
    "data", ["1:2:3", "1:2:3 1:2:3 1:2:3 1:2", "a:b:c 1:2:3 1:2:3 1:2:3 ", "nan:0:0 0:0:0 0:0:0 0:0:0"]
)
def test_readings_that_are_none_are_refused(data: str) -> None:
    with pytest.raises(MalformedMessage):
        channels.read_sensors(data)


def test_a_command_of_bluetooth() -> None:
    assert channels.write_bluetooth("add", ["beacon", "x"]) == b"\x03add\x02\x06beacon\x01x"
    assert channels.read_bluetooth(b"\x03add\x02\x06beacon\x01x") == ("add", ["beacon", "x"])
    with pytest.raises(MalformedMessage):
        channels.write_bluetooth("x" * 256, [])


def test_of_each_kind_the_last_event_counts() -> None:
    first, second = (channels.Event(channels.DISPLAY_POWER, {"display": number}) for number in "01")
    assert channels.kind_of(first) != channels.kind_of(second)
    assert channels.kind_of(channels.Event(channels.BOOT_STARTED)) == channels.BOOT_STARTED


@given(st.binary(max_size=200) | st.text(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "command", "message_type", "client_id", "payload", "id", "x", "y", "down", "sdp"])
        | st.text(max_size=5), inner, max_size=6),
    max_leaves=12,
).map(json.dumps))  # fmt: skip
@settings(deadline=None)
def test_anything_is_a_message_or_malformed(data: bytes | str) -> None:
    readers: list[Any] = [channels.read_input, channels.read_command, channels.read_event]
    readers += [channels.read_angles, channels.read_location, channels.read_sensors]
    kinds = (messages.Register, messages.ToStreamer, messages.Forward, messages.FromClient, messages.FromDevice)
    readers += [lambda data, kind=kind: decode(data, kind) for kind in kinds]
    if isinstance(data, bytes):
        readers.append(channels.read_bluetooth)
    for reader in readers:
        try:
            reader(data)
        except MalformedMessage:
            continue


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
@settings(deadline=None)
def test_any_command_of_bluetooth_comes_back(name: str, arguments: list[str]) -> None:
    assert channels.read_bluetooth(channels.write_bluetooth(name, arguments)) == (name, arguments)
