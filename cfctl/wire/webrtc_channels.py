"""What goes over the data channels of a session: input, control of the device, and what it tells.

A stock streamer aborts on some input that is malformed: what a viewer sends is read by these functions first, and
sent on only if it can be meant.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cfctl.wire.webrtc_messages import MalformedMessage, decode

CONTROL = "device-control"
INPUT = "input-channel"
ADB = "adb-channel"
BLUETOOTH = "bluetooth-channel"
CAMERA = "camera-data-channel"
SENSORS = "sensors-channel"
LIGHTS = "lights-channel"
LOCATION = "location-channel"
KML = "kml-locations-channel"
GPX = "gpx-locations-channel"

#: Everything that a stock streamer knows; it creates the first one, clients the others.
LABELS = (CONTROL, INPUT, ADB, BLUETOOTH, CAMERA, SENSORS, LIGHTS, LOCATION, KML, GPX)

#: The end of a photograph on the camera's channel.
PHOTO_END = b"EOF"

#: More fingers than any hand has; the kernel's virtual touch screens have ten slots.
_CONTACTS = 16

_Int = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Down = Literal[0, 1]
_Label = Annotated[str, Meta(pattern=r"^(display|touch)_[0-9]{1,3}$")]


# -- input -----------------------------------------------------------------------------------------------------


class MultiTouch(Struct, frozen=True, tag_field="type", tag="multi-touch"):
    """Fingers on a display or touch pad, in pixels of its picture; one message is all down, or all up."""

    id: Annotated[list[_Int], Meta(min_length=1, max_length=_CONTACTS)]
    x: list[_Int]
    y: list[_Int]
    down: _Down
    device_label: _Label

    def __post_init__(self) -> None:
        if not len(self.id) == len(self.x) == len(self.y):
            raise ValueError("a touch needs as many ids as places")


class MouseMove(Struct, frozen=True, tag_field="type", tag="mouseMove"):
    """How far a mouse was moved."""

    x: _Int
    y: _Int


class MouseButton(Struct, frozen=True, tag_field="type", tag="mouseButton"):
    """0 is left, 1 middle, 2 right, 3 back, 4 forward."""

    button: Annotated[int, Meta(ge=0, le=4)]
    down: _Down


class MouseWheel(Struct, frozen=True, tag_field="type", tag="mouseWheel"):
    """How far a mouse's wheel was turned."""

    pixels: _Int


class Wheel(Struct, frozen=True, tag_field="type", tag="wheel"):
    """How far a device's own wheel was turned (a watch's crown)."""

    pixels: _Int


class Keyboard(Struct, frozen=True, tag_field="type", tag="keyboard"):
    """A key by its place (KeyboardEvent.code); anything but ``keydown`` is up."""

    keycode: Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9]+$")]
    event_type: str

    @property
    def down(self) -> bool:
        """Whether it was pressed."""
        return self.event_type == "keydown"


class GamepadKey(Struct, frozen=True, tag_field="type", tag="gamepadKey"):
    """A button of a gamepad, as browsers count them."""

    id: Annotated[str, Meta(max_length=200)]
    button: Annotated[int, Meta(ge=0, le=16)]
    down: _Down


class GamepadMotion(Struct, frozen=True, tag_field="type", tag="gamepadMotion"):
    """A stick or trigger of a gamepad, by the number of its axis."""

    button: Annotated[int, Meta(ge=0, le=5)]
    value: _Int


Input = MultiTouch | MouseMove | MouseButton | MouseWheel | Wheel | Keyboard | GamepadKey | GamepadMotion


def read_input(text: bytes | str) -> Input:
    """Read a message of the input channel.

    :raises MalformedMessage: if it is none.
    """
    try:
        found: Input = decode(text, Input)
    except MalformedMessage:
        # To jsoncpp 1.0 is an integer, true is none.
        try:
            found = msgspec.convert(_whole(decode(text, Any)), Input)
        except (msgspec.ValidationError, RecursionError) as exc:
            raise MalformedMessage(str(exc)) from exc
    return found


def _whole(value: Any) -> Any:
    """Return a value with its numbers that are whole as integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    return value


# -- control of the device -------------------------------------------------------------------------------------


class Press(Struct, frozen=True):
    """A button (power, back, home, menu, volumedown, volumeup), or an action that the device's maker has added."""

    command: Annotated[str, Meta(min_length=1, max_length=100)]
    button_state: Annotated[str, Meta(max_length=20)]


class DeviceState(Struct, frozen=True, tag_field="command", tag="device_state", omit_defaults=True):
    """How a foldable is folded."""

    lid_switch_open: bool | UnsetType = UNSET
    hinge_angle_value: Annotated[int, Meta(ge=0, le=360)] | UnsetType = UNSET


class RefreshDisplay(Struct, frozen=True, tag_field="command", tag="display"):
    """Have the last picture sent again."""

    refresh_display: Annotated[int, Meta(ge=0, le=15)]


_Pixels = Annotated[int, Meta(ge=1, le=16384)]


class AddDisplay(Struct, frozen=True, tag_field="command", tag="add-display"):
    """Plug in a display; what comes of it is another offer."""

    width: _Pixels
    height: _Pixels
    dpi: Annotated[int, Meta(ge=1, le=2000)]
    refresh_rate_hz: Annotated[int, Meta(ge=1, le=1000)]


class RemoveDisplay(Struct, frozen=True, tag_field="command", tag="remove-display"):
    """Unplug a display."""

    display_id: Annotated[str, Meta(pattern=r"^[0-9]{1,3}$")]


class CameraSettings(Struct, frozen=True, tag_field="command", tag="camera_settings"):
    """What the pictures of the client's camera will be like."""

    width: _Pixels
    height: _Pixels
    frame_rate: float = 30.0
    facing: str = "front"


Command = Press | DeviceState | RefreshDisplay | AddDisplay | RemoveDisplay | CameraSettings

_COMMANDS: dict[str, type] = {
    "device_state": DeviceState,
    "display": RefreshDisplay,
    "add-display": AddDisplay,
    "remove-display": RemoveDisplay,
    "camera_settings": CameraSettings,
}


class _Named(Struct):
    command: str


def read_command(text: bytes | str) -> Command:
    """Read what a client says on the control channel.

    :raises MalformedMessage: if it is no command.
    """
    named: _Named = decode(text, _Named)
    found: Command = decode(text, _COMMANDS.get(named.command, Press))
    return found


class Event(Struct, frozen=True, omit_defaults=True):
    """What a device says on the control channel."""

    event: Annotated[str, Meta(min_length=1, max_length=200)]
    metadata: dict[str, Any] | UnsetType = UNSET


BOOT_STARTED = "VIRTUAL_DEVICE_BOOT_STARTED"
BOOT_COMPLETED = "VIRTUAL_DEVICE_BOOT_COMPLETED"
SCREEN_CHANGED = "VIRTUAL_DEVICE_SCREEN_CHANGED"
DISPLAY_POWER = "VIRTUAL_DEVICE_DISPLAY_POWER_MODE_CHANGED"
START_CAMERA = "VIRTUAL_DEVICE_START_CAMERA_SESSION"
STOP_CAMERA = "VIRTUAL_DEVICE_STOP_CAMERA_SESSION"
CAPTURE_IMAGE = "VIRTUAL_DEVICE_CAPTURE_IMAGE"
LIGHTS_UPDATE = "VIRTUAL_DEVICE_LIGHTS_UPDATE"


def read_event(text: bytes | str) -> Event:
    """Read what a device says on the control or lights channel.

    :raises MalformedMessage: if it is no event.
    """
    found: Event = decode(text, Event)
    return found


def kind_of(event: Event) -> str:
    """Return what an event replaces: of each kind the last one is told to whoever comes later."""
    metadata = event.metadata
    if event.event == DISPLAY_POWER and metadata is not UNSET:
        return f"{event.event} {metadata.get('display')}"
    return event.event


def write(message: Input | Command | Event) -> str:
    """Write a message; channels with JSON carry text."""
    return msgspec.json.encode(message).decode()


# -- places and positions --------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{1,17})?")


def _numbers(text: bytes | str, separator: str) -> tuple[float, float, float]:
    try:
        whole = text.decode("ascii") if isinstance(text, bytes) else text
    except UnicodeDecodeError as exc:
        raise MalformedMessage("no text") from exc
    parts = whole.split(separator)
    if len(parts) != 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise MalformedMessage("it takes three numbers")
    x, y, z = map(float, parts)
    return x, y, z


def read_angles(text: bytes | str) -> tuple[float, float, float]:
    """Read how the device is held, in degrees; the third turns the screen.

    :raises MalformedMessage: if it is anything but three numbers; a stock streamer would abort.
    """
    return _numbers(text, " ")


def write_angles(x: float, y: float, z: float) -> str:
    """Write how the device is held."""
    return f"{_plain(x)} {_plain(y)} {_plain(z)}"


def read_sensors(data: bytes | str) -> tuple[tuple[float, float, float], ...]:
    """Read a streamer's readings: acceleration, gyroscope, magnetic field, rotation.

    :raises MalformedMessage: if it is anything else.
    """
    text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
    groups = text.strip().split(" ")
    try:
        found = tuple(tuple(float(part) for part in group.split(":")) for group in groups)
    except ValueError as exc:
        raise MalformedMessage(str(exc)) from exc
    if len(found) != 4 or any(len(group) != 3 or not all(map(math.isfinite, group)) for group in found):
        raise MalformedMessage("readings are four times three numbers")
    return tuple((group[0], group[1], group[2]) for group in found)


def write_sensors(readings: tuple[tuple[float, float, float], ...]) -> bytes:
    """Write readings as a streamer does: binary, with a space at the end."""
    return "".join(":".join(map(_plain, group)) + " " for group in readings).encode()


def read_location(text: bytes | str) -> tuple[float, float, float]:
    """Read longitude, latitude and altitude.

    :raises MalformedMessage: if it is anything but three numbers; a stock streamer would abort.
    """
    return _numbers(text, ",")


def write_location(longitude: float, latitude: float, altitude: float) -> str:
    """Write a place."""
    return ",".join(map(_plain, (longitude, latitude, altitude)))


def _plain(value: float) -> str:
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# -- Bluetooth -------------------------------------------------------------------------------------------------


def write_bluetooth(name: str, arguments: list[str]) -> bytes:
    """Write a command to the test port of the radio.

    :raises MalformedMessage: if a word has more than 255 bytes, or there are more of them.
    """
    words = [word.encode() for word in (name, *arguments)]
    if len(arguments) > 255 or any(len(word) > 255 for word in words):
        raise MalformedMessage("a command of Bluetooth has words of up to 255 bytes")
    first, *rest = (bytes([len(word)]) + word for word in words)
    return first + bytes([len(rest)]) + b"".join(rest)


def read_bluetooth(data: bytes) -> tuple[str, list[str]]:
    """Read a command to the test port of the radio.

    :raises MalformedMessage: if it ends early, or goes on.
    """
    words: list[str] = []
    try:
        place, count = 0, 1
        while len(words) < count:
            size = data[place]
            word = data[place + 1 : place + 1 + size]
            if len(word) < size:
                raise MalformedMessage("a command of Bluetooth that ends early")
            words.append(word.decode())
            place += 1 + size
            if len(words) == 1:
                count += data[place]
                place += 1
    except (IndexError, UnicodeDecodeError) as exc:
        raise MalformedMessage("a command of Bluetooth that ends early") from exc
    if place != len(data):
        raise MalformedMessage("a command of Bluetooth that goes on")
    return words[0], words[1:]
