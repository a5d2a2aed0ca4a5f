"""What the verbs ask a relay: one function per call of the API, with the documents of ``--json`` as answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.errors import CfctlError, FromElsewhere, RelayUnreachable
from cfctl.remote import documents
from cfctl.remote.channel import ASK_S, Relay, connected
from cfctl.v1 import devices_pb2, devices_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import grpc.aio

    from cfctl.remote.contexts import Context

    Lifecycle = grpc.aio.UnaryStreamCall[Any, devices_pb2.LifecycleEvent]

#: Seconds without news after which what is known is shown.
_TOGETHER_S = 0.1


@dataclass(frozen=True, slots=True)
class Census:
    """The devices of several servers.

    :param devices: each with the ``context`` that it was found by.
    :param unreachable: the contexts that did not answer, and why.
    """

    devices: list[dict[str, Any]]
    unreachable: list[tuple[str, CfctlError]]


async def devices(relay: Relay) -> list[dict[str, Any]]:
    """Return the devices that the caller may see."""
    listed = await _stub(relay).List(devices_pb2.ListRequest(), timeout=ASK_S)
    return [documents.device(device) for device in listed.devices]


async def device(relay: Relay, name: str) -> dict[str, Any]:
    """Return one device, or one instance of it (``NAME/2``)."""
    return documents.device(await _stub(relay).Get(devices_pb2.GetRequest(name=name), timeout=ASK_S))


async def watch(relay: Relay, show: Callable[[list[dict[str, Any]]], None], *, again_s: float | None = None) -> None:
    """Call ``show`` with all devices whenever one has changed, until the caller cancels.

    :param again_s: call it also when nothing has changed for so long: they are older then.
    """
    known: dict[str, dict[str, Any]] = {}
    heard: dict[str, float] = {}
    call = _stub(relay).Watch(devices_pb2.WatchRequest())
    waiting: asyncio.Future[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(call.read())
            # The first devices come in one go: they are shown together.
            done, _ = await asyncio.wait({waiting}, timeout=_TOGETHER_S)
            if not done:
                now = time.monotonic()
                show([_older(known[name], now - heard[name]) for name in sorted(known)])
                done, _ = await asyncio.wait({waiting}, timeout=again_s)
            if not done:
                continue
            event, waiting = waiting.result(), None
            if not isinstance(event, devices_pb2.DeviceEvent):
                raise RelayUnreachable(relay.address, "The relay has ended it.")
            if event.HasField("changed"):
                known[event.changed.name] = documents.device(event.changed)
                heard[event.changed.name] = time.monotonic()
            else:
                known.pop(event.removed, None)
    finally:
        call.cancel()
        if waiting is not None:
            await asyncio.gather(waiting, return_exceptions=True)


def _older(device: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return a device of which nothing was heard for so long: nobody is told that it is up still."""
    up = device["uptime_s"]
    return device if up is None else {**device, "uptime_s": up + seconds}


async def launch(relay: Relay, request: devices_pb2.LaunchRequest) -> dict[str, Any]:
    """Boot a device; its phases are told as they come. Cancelled, it is taken down again there."""
    return await _last(relay, _stub(relay).Launch(request))


async def restart(relay: Relay, request: devices_pb2.RestartRequest) -> dict[str, Any]:
    """Stop a device if it is up, and boot it again."""
    return await _last(relay, _stub(relay).Restart(request))


async def stop(relay: Relay, name: str) -> dict[str, Any]:
    """Stop a device."""
    return await _last(relay, _stub(relay).Stop(devices_pb2.StopRequest(name=name)))


async def logs(relay: Relay, name: str, *, which: str | None, follow: bool, lines: int | None) -> AsyncIterator[str]:
    """Yield the lines of a log; with ``follow`` also those that come, until the caller leaves."""
    request = devices_pb2.LogsRequest(name=name, which=which or "", follow=follow, lines=lines)
    call = _stub(relay).Logs(request)
    try:
        async for line in call:
            yield line.line
    finally:
        call.cancel()


async def everywhere(contexts: Sequence[Context], seconds: float) -> Census:
    """Ask several relays at once for their devices.

    :param seconds: how long each may take.
    """

    async def ask(context: Context) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(seconds), connected(context) as relay:
                found = await devices(relay)
        except TimeoutError:
            raise RelayUnreachable(context.address, f"It did not answer within {seconds:g} s.") from None
        return [{**device, "context": context.name} for device in found]

    answers = await asyncio.gather(*map(ask, contexts), return_exceptions=True)
    census = Census([], [])
    for context, answer in zip(contexts, answers, strict=True):
        if isinstance(answer, CfctlError):
            census.unreachable.append((context.name, answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            census.devices.extend(answer)
    return census


def _stub(relay: Relay) -> devices_pb2_grpc.DevicesStub:
    return devices_pb2_grpc.DevicesStub(relay.channel)


async def _last(relay: Relay, call: Lifecycle) -> dict[str, Any]:
    """Tell what goes on, and return the device at its end."""
    found: dict[str, Any] | None = None
    try:
        async for event in call:
            match event.WhichOneof("event"):
                case "step":
                    steps.finished(event.step.title, event.step.seconds, ok=event.step.ok)
                case "note":
                    steps.note(event.note)
                case "progress":
                    steps.progress(event.progress.done, event.progress.total)
                case "phase":
                    steps.phase(
                        event.phase.phase,
                        event.phase.detail,
                        event.phase.seconds,
                        took=event.phase.took,
                        typical=event.phase.typical if event.phase.HasField("typical") else None,
                    )
                case "device":
                    found = documents.device(event.device)
    finally:
        call.cancel()
    if found is None:
        raise FromElsewhere(f"the relay at {relay.address} did not say what became of the device")
    return found


async def asked(context: Context, question: Callable[[Relay], Awaitable[Any]]) -> Any:
    """Connect, ask one question, and return its answer."""
    async with connected(context) as relay:
        return await question(relay)
