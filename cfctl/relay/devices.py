"""The service Devices: which there are, and their lives from launch to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

from cfctl.errors import NotAllowed
from cfctl.relay import allow, verbs
from cfctl.relay import caller as callers
from cfctl.v1 import device_pb2, devices_pb2, devices_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc.aio

    from cfctl.relay.lists import Document, Lists
    from cfctl.relay.people import User
    from cfctl.relay.worker import Worker

    Context = grpc.aio.ServicerContext[Any, Any]

#: For a stop: its ladder takes two minutes for a launcher that answers nothing.
_STOP_S = 300.0

_STATUS_S = 60.0

#: What changes all the time, and is no news by itself.
_NO_NEWS = ("uptime_s", "memory_mb")

#: What an event of `--events` is called in the API, and what of it is the message.
_KINDS = ("step", "progress", "phase")


def message(document: Document) -> device_pb2.Device:
    """Return a device as the API has it."""
    return ParseDict(document, device_pb2.Device(), ignore_unknown_fields=True)


def event(document: Document) -> devices_pb2.LifecycleEvent | None:
    """Return what ``--events`` has printed as the API has it; None for what the API does not know."""
    kind = document.get("event")
    if kind in _KINDS:
        return ParseDict({kind: document}, devices_pb2.LifecycleEvent(), ignore_unknown_fields=True)
    if kind == "note":
        return devices_pb2.LifecycleEvent(note=str(document["text"]))
    if kind == "device":
        return devices_pb2.LifecycleEvent(device=message(document["device"]))
    return None


class Devices(devices_pb2_grpc.DevicesServicer):
    """Answers the calls.

    :param phase: called with each boot phase: its name, and how long the one before it took.
    """

    def __init__(self, worker: Worker, lists: Lists, phase: Callable[[str, float], None]) -> None:
        self._worker = worker
        self._lists = lists
        self._phase = phase

    async def List(self, request: devices_pb2.ListRequest, context: Context) -> devices_pb2.ListResponse:
        """Return the caller's devices."""
        del request, context
        devices = await self._lists.visible(callers.current())
        return devices_pb2.ListResponse(devices=map(message, devices))

    async def Get(self, request: devices_pb2.GetRequest, context: Context) -> device_pb2.Device:
        """Return one device, or one instance of it, as its user sees it."""
        del context
        found = await self._lists.find(callers.current(), request.name)
        if found.container is not None:
            position = found.position
            instances = found.document["instances"]
            only = instances if position is None else instances[position - 1 : position]
            return message({**found.document, "instances": only})
        verb = ["status", found.target]
        return message(await self._worker.document(found.actor, verb, seconds=_STATUS_S, only=3))

    async def Watch(
        self, request: devices_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[devices_pb2.DeviceEvent]:
        """Yield every device, then what changes; a slow reader misses what is no longer true."""
        del request, context
        told: dict[str, Document] = {}
        async for devices in self._lists.follow(callers.current()):
            now = {device["name"]: device for device in devices}
            for name in [name for name in told if name not in now]:
                del told[name]
                yield devices_pb2.DeviceEvent(removed=name)
            for name, device in now.items():
                news = {key: value for key, value in device.items() if key not in _NO_NEWS}
                if told.get(name) != news:
                    told[name] = news
                    yield devices_pb2.DeviceEvent(changed=message(device))

    async def Launch(
        self, request: devices_pb2.LaunchRequest, context: Context
    ) -> AsyncIterator[devices_pb2.LifecycleEvent]:
        """Boot a device; a call that ends before the last event has it taken down again."""
        del context
        caller = callers.current()
        if caller.token is not None and caller.user.is_root:
            raise NotAllowed(
                "a launch from elsewhere never runs as root",
                "The token is root's.",
                "Have one made for another user, on the relay's host: "
                "cfctl relay token create --user NAME --role admin",
            )
        if caller.token is not None and caller.token.devices != "*" and not caller.sees(request.name):
            raise NotAllowed(
                f"the token is for devices called {caller.token.devices}",
                None if request.name else "A launch must give the device such a name.",
            )
        async for answer in self._lifecycle(caller.user, allow.launch(request)):
            yield answer

    async def Stop(
        self, request: devices_pb2.StopRequest, context: Context
    ) -> AsyncIterator[devices_pb2.LifecycleEvent]:
        """Stop a device; a caller who leaves does not keep it from being stopped."""
        del context
        found = await self._lists.find(callers.current(), request.name)
        told = False
        async for answer in self._lifecycle(found.actor, verbs.stop(found)):
            told = told or answer.HasField("device")
            yield answer
        if not told:
            # A container's device is stopped without a word about the device.
            now = await self._lists.find(callers.current(), found.document["name"])
            yield devices_pb2.LifecycleEvent(device=message(now.document))

    async def Restart(
        self, request: devices_pb2.RestartRequest, context: Context
    ) -> AsyncIterator[devices_pb2.LifecycleEvent]:
        """Boot a device again."""
        del context
        found = await self._lists.find(callers.current(), request.name)
        async for answer in self._lifecycle(found.actor, verbs.restart(found, request)):
            yield answer

    async def Logs(self, request: devices_pb2.LogsRequest, context: Context) -> AsyncIterator[devices_pb2.LogLine]:
        """Yield the lines of a log."""
        del context
        found = await self._lists.find(callers.current(), request.name)
        async for document in self._worker.lines(found.actor, verbs.logs(found, request)):
            yield devices_pb2.LogLine(line=document.get("line", ""))

    async def _lifecycle(self, user: User, argv: list[str]) -> AsyncIterator[devices_pb2.LifecycleEvent]:
        """Run a verb, and yield what it tells; the device at last."""
        try:
            async for document in self._worker.lines(user, argv):
                if document.get("event") == "phase" and "took" in document:
                    self._phase(document["phase"], document["took"])
                # Without `--events` a verb prints one document: the device, or several.
                plain = document.get("devices", [document] if "state" in document else [])
                documents = [{"event": "device", "device": device} for device in plain] or [document]
                for one in documents:
                    if (answer := event(one)) is not None:
                        yield answer
        finally:
            self._lists.forget(user)
