"""The device as its clients see it: what it registers as, what they may do to it, what has happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cfctl.wire import webrtc_channels as channels
from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfctl.guest.streamer.display import Display
    from cfctl.guest.streamer.gestures import Event
    from cfctl.guest.streamer.hands import Hands


class Device:
    """What the clients of a streamer share.

    :param label: the display's name.
    :param say: told what is worth a line in the log.
    """

    def __init__(
        self, display: Display, hands: Hands, *, adb_port: int, label: str, say: Callable[[str], None]
    ) -> None:
        self.display = display
        self.adb_port = adb_port
        self.label = label
        self.say = say
        self._hands = hands
        self._events: dict[str, channels.Event] = {}

    def feel(self, events: list[Event]) -> None:
        """Have the VM feel input."""
        self._hands.do(events)
        self.display.look()

    def happened(self, event: channels.Event) -> None:
        """Remember an event, in place of the last one of its kind."""
        kind = channels.kind_of(event)
        self._events.pop(kind, None)
        self._events[kind] = event

    def events(self) -> list[channels.Event]:
        """Return the last event of each kind, oldest first: what whoever comes later is told."""
        return list(self._events.values())


def info(part: Mapping[str, Any], size: tuple[int, int] | None, label: str) -> dict[str, Any]:
    """Return what the streamer says of its device.

    :param part: the instance's part of the config.
    :param size: of the picture; None if there is none yet.
    """
    described = messages.DeviceInfo(
        displays=[messages.Display(label, *size)] if size else [],
        hardware={
            "CPUs": str(part["cpus"]),
            "RAM": f"{part['memory_mb']} mb",
            "GPU Mode": str(part["gpu_mode"]),
        },
        openwrt_device_id=str(part["webrtc_device_id"]),
        adb_port=int(part["adb_host_port"]),
        mouse_enabled=True,
    )
    found: dict[str, Any] = msgspec.to_builtins(described)
    return found
