"""Operations on a VM behind a relay: those of the one table that the API has a call for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cfctl.errors import UsageError
from cfctl.remote import documents
from cfctl.remote.channel import ASK_S
from cfctl.v1 import control_pb2 as api
from cfctl.v1 import control_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from cfctl.control.operations import Operation
    from cfctl.remote.channel import Relay

    Request = Callable[[str, Operation], Message]

#: Seconds that the relay takes beside what the operation itself does (relay/controls.py).
_BESIDE_S = 60.0


def _target(target: str, _operation: Operation) -> Message:
    return api.TargetRequest(target=target)


def _balloon(target: str, operation: Operation) -> Message:
    return api.SetBalloonRequest(target=target, bytes=operation["bytes"], wait=operation["wait"])


def _battery(name: str) -> Request:
    def request(target: str, operation: Operation) -> Message:
        value = next(iter(operation.values.values()), "")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return api.SetBatteryRequest(target=target, property=name, value=text)

    return request


def _swap(action: api.SetSwapRequest.Action) -> Request:
    def request(target: str, operation: Operation) -> Message:
        slow = operation.values.get("slow-file-cleanup", False)
        return api.SetSwapRequest(target=target, action=action, slow_file_cleanup=slow)

    return request


def _key(target: str, operation: Operation) -> Message:
    return api.PressKeyRequest(target=target, keys=operation["keys"].split("-"), hold_ms=operation["hold-ms"])


#: Operation of the table -> the call of the API, and how its request is made.
CALLS: Final[dict[str, tuple[str, Request]]] = {
    "suspend": ("Suspend", _target),
    "resume": ("Resume", _target),
    "powerbtn": ("PowerButton", _target),
    "sleepbtn": ("SleepButton", _target),
    "balloon.stats": ("GetBalloon", _target),
    "balloon.set": ("SetBalloon", _balloon),
    "balloon.working-set": ("GetWorkingSet", _target),
    **{
        f"battery.{ours}": ("SetBattery", _battery(theirs))
        for ours, theirs in {
            "status": "status",
            "health": "health",
            "present": "present",
            "capacity": "capacity",
            "ac": "aconline",
            "fake": "fake",
            "cancel-fake": "cancel-fake",
        }.items()
    },
    "usb.list": ("ListUsb", _target),
    "usb.detach": ("DetachUsb", lambda target, op: api.DetachUsbRequest(target=target, port=op["port"])),
    "disk.resize": (
        "ResizeDisk",
        lambda target, op: api.ResizeDiskRequest(target=target, index=op["index"], bytes=op["bytes"]),
    ),
    "swap.status": ("GetSwap", _target),
    "swap.enable": ("SetSwap", _swap(api.SetSwapRequest.ACTION_ENABLE)),
    "swap.trim": ("SetSwap", _swap(api.SetSwapRequest.ACTION_TRIM)),
    "swap.out": ("SetSwap", _swap(api.SetSwapRequest.ACTION_OUT)),
    "swap.disable": ("SetSwap", _swap(api.SetSwapRequest.ACTION_DISABLE)),
    "vcpus": ("ListVcpus", _target),
    "key": ("PressKey", _key),
    "text": ("TypeText", lambda target, op: api.TypeTextRequest(target=target, text=op["text"])),
    "display.list": ("ListDisplays", _target),
    "display.add": (
        "AddDisplay",
        lambda target, op: api.AddDisplayRequest(
            target=target,
            width=op["width"],
            height=op["height"],
            dpi=op["dpi"],
            refresh_rate_hz=op["refresh-rate"],
        ),
    ),
    "display.remove": ("RemoveDisplay", lambda target, op: api.RemoveDisplayRequest(target=target, id=op["display"])),
    "display.screenshot": ("Screenshot", lambda target, op: api.ScreenshotRequest(target=target, id=op["display"])),
}


async def perform(relay: Relay, target: str, operation: Operation, *, seconds: float | None = None) -> dict[str, Any]:
    """Have an operation done there; return its result, as at the device's own host.

    :param seconds: that it may take; None is as the table says, and what the relay itself needs.
    :raises UsageError: if no relay does it: it reaches into the host, or is of crosvm's own.
    """
    if operation.name not in CALLS:
        words = " ".join(operation.spec.words)
        raise UsageError(
            f"{words} is not done through a relay",
            "It reaches into the device's host.",
            f"On the relay's host: cfctl control {target} {words}",
        )
    method, request = CALLS[operation.name]
    call: Callable[..., Awaitable[Message]] = getattr(control_pb2_grpc.ControlStub(relay.channel), method)
    answer = await call(request(target, operation), timeout=seconds or ASK_S + _BESIDE_S)
    return _result(answer)


def _result(answer: Message) -> dict[str, Any]:
    """Return an answer with the keys that the verb has on the device's host."""
    if isinstance(answer, api.Balloon):
        return {"balloon_bytes": answer.actual_bytes, "stats": dict(answer.stats)}
    if isinstance(answer, api.ListUsbResponse):
        rows = documents.document(answer)["devices"]
        # QEMU's that came with the VM have none.
        return {"devices": [{**row, "id": row.get("id")} if "product" in row else row for row in rows]}
    if isinstance(answer, api.ListVcpusResponse):
        rows = [{"index": vcpu.index, "pid": vcpu.process_id, "tid": vcpu.thread_id} for vcpu in answer.vcpus]
        return {"vcpus": rows}
    if isinstance(answer, api.ListDisplaysResponse):
        # What the VM manager does not say is 0 in the API, and null in JSON.
        rows = documents.document(answer)["displays"]
        return {
            "displays": [{key: value if key == "id" else value or None for key, value in row.items()} for row in rows]
        }
    if isinstance(answer, api.Picture):
        return {"png": answer.png}
    # In JSON protobuf writes numbers of 64 bits as words.
    found: dict[str, Any] = _numbers(documents.document(answer))
    return found


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value
