"""Messages of the API as the documents of ``--json``: the same keys as at the device's own host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from cfctl.v1 import device_pb2

#: Keys that a document has only when there is something to say.
_SELDOM = {"container", "engine", "failure", "source", "gpu_reason", "created_at", "restart"}


def document(message: Message) -> dict[str, Any]:
    """Return a message with every key that it may have: what is absent is null."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def device(message: device_pb2.Device) -> dict[str, Any]:
    """Return a device as docs/schema/device.json has it."""
    found = document(message)
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and field.name not in _SELDOM:
            found.setdefault(field.name, None)
    for instance in found["instances"]:
        for key in ("adb", "vm_pid"):
            instance.setdefault(key, None)
    return found
