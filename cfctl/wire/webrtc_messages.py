"""The messages of WebRTC signalling as data: a streamer's socket, the pre-registration socket, HTTP, and sessions.

Whoever registers devices (the relay), whoever is one (a streamer) and whoever looks at one speak by these. Payloads
that a relay only passes on stay the bytes that they are (:class:`msgspec.Raw`): nothing is reordered or rounded.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

#: One record of the sockets, and one message over HTTP; stock readers take as much as the kernel lets through.
LONGEST_RECORD = 256 << 10

#: jsoncpp's isInt: what a stock streamer takes as a client's number; 0 is nobody.
ClientId = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

#: Ids stand in paths and lists: short, and nothing that a terminal or a browser would act on.
DeviceId = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:@+-]+\Z")]

Port = Annotated[int, Meta(ge=0, le=65535)]

T = TypeVar("T")


class MalformedMessage(ValueError):
    """What was received is none of the messages that may come there; the text says where it differs."""


def decode(data: bytes | str, kind: Any) -> Any:
    """Read one message.

    :param kind: the class, or a union of classes, that it may be.
    :raises MalformedMessage: if it is too long, no JSON, or none of them.
    """
    if len(data) > LONGEST_RECORD:
        raise MalformedMessage(f"a message of {len(data)} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedMessage(str(exc)) from exc


def encode(message: Any) -> bytes:
    """Write one message, compact as the stock operator does."""
    return msgspec.json.encode(message)


# -- ICE servers -----------------------------------------------------------------------------------------------


class IceServer(Struct, frozen=True, omit_defaults=True):
    """Where a peer learns how it is seen from outside (STUN), or has its packets passed on (TURN)."""

    urls: list[str]
    username: str | UnsetType = UNSET
    credential: str | UnsetType = UNSET


class Config(Struct, frozen=True, tag_field="message_type", tag="config"):
    """The answer to a registration, and of ``GET /infra_config``; stock streamers die of malformed servers."""

    ice_servers: list[IceServer]


# -- what a streamer says of its device ------------------------------------------------------------------------


class Display(Struct, frozen=True):
    """A display as it was when the streamer registered; the tracks that it offers tell what is there now."""

    stream_id: str
    x_res: int
    y_res: int
    dpi: int = 160
    is_touch: bool = True


class Touchpad(Struct, frozen=True):
    """A touch device without a picture."""

    x_res: int
    y_res: int
    label: str


class AudioStream(Struct, frozen=True):
    """A sound that is offered."""

    stream_id: str = "audio-0"


class PanelButton(Struct, frozen=True, omit_defaults=True):
    """A button that the device's maker has added."""

    command: str
    title: str
    icon_name: str
    shell_command: str | UnsetType = UNSET
    device_states: list[dict[str, Any]] | UnsetType = UNSET


class DeviceInfo(Struct, frozen=True):
    """What a device is like. A streamer sends every key: pages of host packages rely on most of them."""

    displays: list[Display] = []
    touchpads: list[Touchpad] = []
    audio_streams: list[AudioStream] = []
    hardware: dict[str, str] = {}
    openwrt_device_id: str = ""
    openwrt_addr: str = ""
    adb_port: int = 0
    control_env_proxy_server_path: str = ""
    mouse_enabled: bool = False
    gamepad_enabled: bool = False
    custom_control_panel_buttons: list[PanelButton] = []


# -- the streamer's socket -------------------------------------------------------------------------------------


class Register(Struct, frozen=True, tag_field="message_type", tag="register"):
    """The first record of a streamer; where its type is missing, it is taken for one."""

    device_id: DeviceId
    device_port: Port = 0
    device_info: dict[str, Any] = {}


class ClientMsg(Struct, frozen=True, tag_field="message_type", tag="client_msg"):
    """To a streamer: what one of its clients says."""

    client_id: ClientId
    payload: Raw


class ClientDisconnected(Struct, frozen=True, tag_field="message_type", tag="client_disconnected"):
    """To a streamer: one of its clients is gone."""

    client_id: ClientId


class Forward(Struct, frozen=True, tag_field="message_type", tag="forward"):
    """From a streamer: what it says to one of its clients."""

    client_id: ClientId
    payload: Raw


class Refusal(Struct, frozen=True):
    """To a streamer or a client, before the connection is closed; a stock streamer takes it for a reason to retry."""

    error: str


#: What a streamer may be told.
ToStreamer = Config | ClientMsg | ClientDisconnected


# -- pre-registration ------------------------------------------------------------------------------------------


class Expected(Struct, frozen=True):
    """A device that will register later."""

    id: DeviceId
    name: str = ""
    adb_port: Port = 0


class PreRegister(Struct, frozen=True, tag_field="message_type", tag="pre-register"):
    """From the launcher: whose devices will register, and what they are called."""

    group_name: str = ""
    owner: str = ""
    devices: list[Expected] = []


class PreStatus(Struct, frozen=True):
    """To the launcher: what becomes of a device; it relies on the message being there."""

    id: str
    #: ``accepted``, ``failed`` or ``registered``.
    status: str
    message: str = ""


# -- HTTP and WebSocket ----------------------------------------------------------------------------------------


class Listed(Struct, frozen=True, omit_defaults=True):
    """A device in the list, or by itself (then with what it registered)."""

    device_id: str
    group_name: str | UnsetType = UNSET
    owner: str = ""
    name: str = ""
    adb_port: int | UnsetType = UNSET
    registration_info: dict[str, Any] | UnsetType = UNSET


class NewConnection(Struct, frozen=True):
    """``POST /polled_connections``: a client wants to speak to a device."""

    device_id: str


class PolledConnection(Struct, frozen=True):
    """The answer: what the client names from now on, and what the device is like."""

    connection_id: str
    device_info: dict[str, Any]


class PolledForward(Struct, frozen=True):
    """``POST /polled_connections/ID/:forward``; over a WebSocket the payload comes bare."""

    payload: Raw


class DeviceMsg(Struct, frozen=True, tag_field="message_type", tag="device_msg"):
    """To a client: what the device says."""

    payload: Raw


class Introduction(Struct, frozen=True):
    """The first frame of a client's WebSocket."""

    device_info: dict[str, Any]


# -- the session between a streamer and a client -----------------------------------------------------------------


class RequestOffer(Struct, frozen=True, tag_field="type", tag="request-offer", omit_defaults=True):
    """A client wants an offer; the first thing it may say, and again to begin anew."""

    ice_servers: list[IceServer] | UnsetType = UNSET


#: In one description: a device has up to 16 displays, and each that was there once keeps its place. Whoever reads one
#: makes a thread and sockets for each medium.
MOST_MEDIA = 64


def _bounded(sdp: str) -> None:
    if sdp.count("\nm=") > MOST_MEDIA:
        raise ValueError(f"a description of more than {MOST_MEDIA} media")


class Offer(Struct, frozen=True, tag_field="type", tag="offer"):
    """A session description: the device's, or a client's that adds a microphone or camera."""

    sdp: Annotated[str, Meta(min_length=1)]

    def __post_init__(self) -> None:
        _bounded(self.sdp)


class Answer(Struct, frozen=True, tag_field="type", tag="answer"):
    """The other side's description."""

    sdp: Annotated[str, Meta(min_length=1)]

    def __post_init__(self) -> None:
        _bounded(self.sdp)


class DeviceCandidate(
    Struct, frozen=True, tag_field="type", tag="ice-candidate", rename={"mline_index": "mLineIndex"}
):
    """An address of the device's: flat."""

    mid: str
    mline_index: int
    candidate: str


class Candidate(Struct, frozen=True, rename={"sdp_mid": "sdpMid", "sdp_mline_index": "sdpMLineIndex"}):
    """What browsers call RTCIceCandidateInit; an empty one would end a stock session."""

    candidate: Annotated[str, Meta(min_length=1)]
    sdp_mid: str
    sdp_mline_index: int


class ClientCandidate(Struct, frozen=True, tag_field="type", tag="ice-candidate"):
    """An address of a client's: nested."""

    candidate: Candidate


class Failure(Struct, frozen=True, tag_field="type", tag="error"):
    """Either side has had enough; the device forgets the client."""

    error: str


#: What a client may say to a device, and a device to a client.
FromClient = RequestOffer | Offer | Answer | ClientCandidate | Failure
FromDevice = Offer | Answer | DeviceCandidate | Failure
