"""The service Control: typed operations on a running VM, each one of the table that the verbs have too.

How far a caller must be allowed to go stands in that table, and what reaches into the host is not relayed.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

from cfctl.control import operations
from cfctl.errors import CfctlError, UsageError
from cfctl.relay import caller as callers
from cfctl.relay import verbs
from cfctl.v1 import control_pb2, control_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    from cfctl.relay.lists import Lists
    from cfctl.relay.worker import Worker

    Context = grpc.aio.ServicerContext[Any, Any]

#: A verb starts, looks the device up, and may wait for another one, beside what the operation itself takes.
_BESIDE_S = 30.0

#: A picture of 4096x4096 that cannot be compressed has 64 MB; one of a screen a few. As text it is a third longer.
_PICTURE = 20 << 20

_MIB = 1 << 20

#: What the API calls the battery's properties, and the table.
_BATTERY = {
    **{name: name for name in ("status", "health", "present", "capacity", "fake", "cancel-fake")},
    "aconline": "ac",
}

_Swap = control_pb2.SetSwapRequest.Action

_SWAP = {
    _Swap.ACTION_ENABLE: "enable",
    _Swap.ACTION_TRIM: "trim",
    _Swap.ACTION_OUT: "out",
    _Swap.ACTION_DISABLE: "disable",
}

_DPI, _REFRESH_RATE_HZ = 320, 60


class Control(control_pb2_grpc.ControlServicer):
    """Answers the calls."""

    def __init__(self, worker: Worker, lists: Lists) -> None:
        self._worker = worker
        self._lists = lists

    async def Suspend(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.Done:
        """Stop the processors."""
        del context
        return await self._verb("suspend", request.target)

    async def Resume(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.Done:
        """Let the processors go on."""
        del context
        return await self._verb("resume", request.target)

    async def PowerButton(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.Done:
        """Press the power button."""
        del context
        return await self._verb("powerbtn", request.target)

    async def SleepButton(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.Done:
        """Press the sleep button."""
        del context
        return await self._done("sleepbtn", request.target)

    async def GetBalloon(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.Balloon:
        """Tell how much memory the guest goes without, and what it says itself."""
        del context
        found = await self._operate("balloon.stats", request.target)
        stats = {name: value for name, value in found.get("stats", {}).items() if value >= 0}
        taken = max(found["balloon_bytes"], 0)
        return control_pb2.Balloon(actual_mb=taken // _MIB, actual_bytes=taken, stats=stats)

    async def SetBalloon(self, request: control_pb2.SetBalloonRequest, context: Context) -> control_pb2.Done:
        """Take memory from the guest, or give it back."""
        del context
        if request.mb and request.bytes:
            raise UsageError("mb and bytes are the same in two measures", None, "Give one of them.")
        size = str(request.bytes) if request.bytes else f"{request.mb}M"
        return await self._done("balloon.set", request.target, size, _word(request.wait))

    async def GetWorkingSet(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.WorkingSet:
        """Tell which of its memory the guest has used lately."""
        del context
        found = await self._operate("balloon.working-set", request.target)
        return ParseDict(found, control_pb2.WorkingSet(), ignore_unknown_fields=True)

    async def SetBattery(self, request: control_pb2.SetBatteryRequest, context: Context) -> control_pb2.Done:
        """Have the guest believe something about its battery."""
        del context
        name = _BATTERY.get(request.property)
        if name is None:
            raise UsageError(f"a battery has no {request.property[:50]!r}", f"Properties: {', '.join(_BATTERY)}.")
        values = [request.value] if operations.TABLE[f"battery.{name}"].arguments else []
        if request.value and not values:
            raise UsageError(f"{request.property} takes no value")
        return await self._done(f"battery.{name}", request.target, *values)

    async def ListDisplays(
        self, request: control_pb2.TargetRequest, context: Context
    ) -> control_pb2.ListDisplaysResponse:
        """Return the displays."""
        del context
        document = await self._display(request.target, "list")
        return ParseDict(document, control_pb2.ListDisplaysResponse(), ignore_unknown_fields=True)

    async def AddDisplay(self, request: control_pb2.AddDisplayRequest, context: Context) -> control_pb2.Done:
        """Add a display."""
        del context
        values = {
            "width": request.width,
            "height": request.height,
            "dpi": request.dpi or _DPI,
            "refresh-rate": request.refresh_rate_hz or _REFRESH_RATE_HZ,
        }
        operations.operation("display.add", values)
        size = f"{request.width}x{request.height}"
        more = ["--dpi", str(values["dpi"]), "--refresh-rate", str(values["refresh-rate"])]
        await self._display(request.target, "add", size, *more)
        return control_pb2.Done()

    async def RemoveDisplay(self, request: control_pb2.RemoveDisplayRequest, context: Context) -> control_pb2.Done:
        """Remove a display."""
        del context
        operations.operation("display.remove", {"display": request.id})
        await self._display(request.target, "remove", str(request.id))
        return control_pb2.Done()

    async def Screenshot(self, request: control_pb2.ScreenshotRequest, context: Context) -> control_pb2.Picture:
        """Return a picture of what a display shows."""
        del context
        operations.operation("display.screenshot", {"display": request.id})
        document = await self._display(
            request.target, "screenshot", "-", "--display", str(request.id), longest=_PICTURE
        )
        return control_pb2.Picture(png=base64.b64decode(document["picture"]))

    async def ListUsb(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.ListUsbResponse:
        """Return the USB devices that the guest has."""
        del context
        found = await self._operate("usb.list", request.target)
        return ParseDict(found, control_pb2.ListUsbResponse(), ignore_unknown_fields=True)

    async def DetachUsb(self, request: control_pb2.DetachUsbRequest, context: Context) -> control_pb2.UsbPort:
        """Take a USB device from the guest."""
        del context
        found = await self._operate("usb.detach", request.target, str(request.port))
        return ParseDict(found, control_pb2.UsbPort(), ignore_unknown_fields=True)

    async def ResizeDisk(self, request: control_pb2.ResizeDiskRequest, context: Context) -> control_pb2.Done:
        """Make a disk larger or smaller."""
        del context
        return await self._done("disk.resize", request.target, str(request.index), str(request.bytes))

    async def GetSwap(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.SwapStatus:
        """Tell how much of the guest's memory is swapped out."""
        del context
        found = await self._operate("swap.status", request.target)
        return ParseDict(found, control_pb2.SwapStatus(), ignore_unknown_fields=True)

    async def SetSwap(self, request: control_pb2.SetSwapRequest, context: Context) -> control_pb2.Done:
        """Have the guest's memory swapped out, or in again."""
        del context
        name = _SWAP.get(request.action)
        if name is None:
            raise UsageError("there is no such action", f"Actions: {', '.join(_Swap.keys()[1:])}.")
        if request.slow_file_cleanup and name != "disable":
            raise UsageError("slow_file_cleanup is for ACTION_DISABLE alone")
        values = [_word(request.slow_file_cleanup)] if name == "disable" else []
        return await self._done(f"swap.{name}", request.target, *values)

    async def ListVcpus(self, request: control_pb2.TargetRequest, context: Context) -> control_pb2.ListVcpusResponse:
        """Return the host's threads that are the guest's processors."""
        del context
        found = await self._operate("vcpus", request.target)
        vcpus = [
            control_pb2.Vcpu(index=one["index"], thread_id=one["tid"], process_id=one["pid"])
            for one in found["vcpus"]
        ]
        return control_pb2.ListVcpusResponse(vcpus=vcpus)

    async def PressKey(self, request: control_pb2.PressKeyRequest, context: Context) -> control_pb2.Done:
        """Press keys together."""
        del context
        held = [str(request.hold_ms)] if request.hold_ms else []
        return await self._done("key", request.target, "-".join(request.keys), *held)

    async def TypeText(self, request: control_pb2.TypeTextRequest, context: Context) -> control_pb2.Typed:
        """Type a text."""
        del context
        spec = operations.TABLE["text"]
        operations.operation(spec.name, {"text": request.text})
        # Not as an argument: it may be a password, and everybody on the host reads the arguments of programs.
        document = await self._run("control", request.target, "text", "-", seconds=spec.seconds, fed=request.text)
        found = document["result"]
        return ParseDict(found, control_pb2.Typed(), ignore_unknown_fields=True)

    # -- the verbs -----------------------------------------------------------------------------------------

    async def _done(self, name: str, target: str, *values: str) -> control_pb2.Done:
        await self._operate(name, target, *values)
        return control_pb2.Done()

    async def _operate(self, name: str, target: str, *values: str) -> dict[str, Any]:
        """Do an operation of the table; return what came of it.

        :raises UsageError: for a value that is out of the table's limits; nothing was asked of the VM.
        """
        spec = operations.TABLE[name]
        # Named, so that no value is taken for anything else; checked here too, before a child is started for it.
        named = dict(zip((argument.name for argument in spec.arguments), values, strict=False))
        operations.operation(name, named)
        words = [*spec.words, *(f"{argument}={value}" for argument, value in named.items())]
        document = await self._run("control", target, *words, seconds=spec.seconds)
        result: dict[str, Any] = document["result"]
        return result

    async def _verb(self, name: str, target: str) -> control_pb2.Done:
        """Do what has a verb of its own."""
        document = await self._run(name, target, seconds=operations.TABLE[name].seconds)
        if document.get("errors"):
            raise CfctlError(document["errors"][0]["brief"])
        return control_pb2.Done()

    async def _display(self, target: str, *words: str, longest: int | None = None) -> dict[str, Any]:
        seconds = operations.TABLE["display.screenshot"].seconds
        return await self._run("display", target, *words, seconds=seconds, longest=longest)

    async def _run(
        self, verb: str, target: str, *words: str, seconds: float, longest: int | None = None, fed: str = ""
    ) -> dict[str, Any]:
        found = await self._lists.find(callers.current(), target)
        try:
            return await self._worker.document(
                found.actor,
                verbs.control(found, verb, words),
                seconds=seconds + _BESIDE_S,
                longest=longest,
                fed=fed.encode(),
            )
        finally:
            self._lists.forget(found.actor)


def _word(value: bool) -> str:  # noqa: FBT001 (it is what is written)
    return str(value).lower()
