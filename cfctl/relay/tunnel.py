"""The Tunnel service: bytes to a device's adb port or console, and to nothing else.

Where a device is, and whether the caller may reach it, a :class:`Resolver` says; the rest of the relay is not known
here. A tunnel holds one piece in each direction, ends when its device does, and says why.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cfctl.errors import CfctlError, DeadlinePassed, FromElsewhere, UsageError
from cfctl.v1 import tunnel_pb2, tunnel_pb2_grpc
from cfctl.wire import errors, pump, stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

_Response = tunnel_pb2.TunnelResponse
_Service = tunnel_pb2.TunnelTarget.Service

#: What a tunnel may lead to: there is nothing else, and never will be (proto/cfctl/v1/tunnel.proto).
_WORDS = {_Service.SERVICE_ADB: "adb", _Service.SERVICE_CONSOLE: "console"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What tunnels may take.

    :param tunnels: open at the same time, all callers together.
    :param open_s: seconds until the caller has said what he wants.
    :param connect_s: seconds until the device's end is connected.
    :param stall_s: seconds that somebody may not read.
    :param linger_s: seconds that one end may be silent after the other has finished.
    :param why_s: seconds between a connection that has ended and the word that its device has too.
    :param close_s: seconds that the last message may wait for the caller to read it.
    """

    tunnels: int = 256
    open_s: float = 10.0
    connect_s: float = 15.0
    stall_s: float = stream.STALL_S
    linger_s: float = pump.LINGER_S
    why_s: float = 2.0
    close_s: float = 5.0


class Way(Protocol):
    """The way to one service of one device."""

    async def connect(self) -> socket.socket:
        """Return a connected stream socket, which the tunnel closes.

        :raises CfctlError: if the device cannot be reached.
        """

    async def gone(self) -> str:
        """Wait until the device is not up any more; return that as people are told it (``phone was stopped``)."""


class Resolver(Protocol):
    """Finds ways; what calls it runs in the task of the call, so that it may ask who calls."""

    async def __call__(self, target: str, service: _Service, /) -> Way:
        """Return the way to a device's service.

        :raises CfctlError: if there is no such device for the caller, it is not up, or he may not.
        """


class Journal:
    """Hears of tunnels in the task of the call: for whoever writes down what was done."""

    def opened(self, service: str) -> None:
        """Hear that a tunnel to ``adb`` or ``console`` is connected."""

    def closed(self, service: str, received: int, sent: int, reason: str | None) -> None:
        """Hear how many bytes it has carried, and why it has ended; None: the call was ended, which says why."""


class Tunnel(tunnel_pb2_grpc.TunnelServicer):
    """The servicer.

    :param heard: called with how much was carried: to ``adb`` or ``console``, ``received`` or ``sent``, bytes.
    :param drop: ends the connection that a call comes on, by gRPC's name for its peer. It is called for one who does
        not even read the last message: gRPC itself would wait for him as long as he stays connected.
    """

    def __init__(
        self,
        resolve: Resolver,
        limits: Limits | None = None,
        heard: Callable[[str, str, int], None] = lambda _service, _direction, _size: None,
        drop: Callable[[str], None] = lambda _peer: None,
        journal: Journal | None = None,
    ) -> None:
        self._resolve = resolve
        self._limits = limits or Limits()
        self._heard = heard
        self._drop = drop
        self._journal = journal or Journal()
        #: How many there are.
        self.open = 0

    async def Open(self, request_iterator: AsyncIterator[tunnel_pb2.TunnelRequest], context: Context) -> None:
        """Carry one connection from its beginning to its end."""
        try:
            if self.open >= self._limits.tunnels:
                raise FromElsewhere(
                    "the relay has no room for another tunnel",
                    f"It has {self.open} open, and no more than {self._limits.tunnels} may be.",
                    "Close one, and try again.",
                    code="number-taken",
                )
            self.open += 1
            try:
                await self._carry(request_iterator, context)
            finally:
                self.open -= 1
        except CfctlError as error:
            await errors.abort(context, error)

    async def _carry(self, requests: AsyncIterator[tunnel_pb2.TunnelRequest], context: Context) -> None:
        wanted = await self._wanted(requests)
        way = await self._resolve(wanted.target, wanted.service)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                end = await way.connect()
        except TimeoutError:
            raise DeadlinePassed(f"{wanted.target} was not reached within {self._limits.connect_s:g} s") from None
        except OSError as exc:
            raise CfctlError(f"{wanted.target} cannot be reached: {exc.strerror or exc}") from exc
        word = _WORDS[wanted.service]
        carried = Counter({"received": 0, "sent": 0})

        def heard(direction: str, size: int) -> None:
            carried[direction] += size
            self._heard(word, direction, size)

        with end:
            reason: str | None = None
            self._journal.opened(word)
            try:
                await context.write(_Response(opened=True))
                caller = _Caller(requests, context, heard)
                reason = await self._until_its_end(end, way, caller, wanted.target)
                try:
                    async with asyncio.timeout(self._limits.close_s):
                        await caller.close(reason)
                except TimeoutError:
                    self._drop(context.peer())
                    await caller.broken()
            finally:
                self._journal.closed(word, carried["received"], carried["sent"], reason)

    async def _wanted(self, requests: AsyncIterator[tunnel_pb2.TunnelRequest]) -> tunnel_pb2.TunnelTarget:
        try:
            async with asyncio.timeout(self._limits.open_s):
                first = await anext(requests, None)
        except TimeoutError:
            raise DeadlinePassed(f"nothing was asked for within {self._limits.open_s:g} s") from None
        if first is None or first.WhichOneof("message") != "open":
            raise UsageError("a tunnel begins with what it is to lead to")
        if first.open.service not in _WORDS:
            raise UsageError("a tunnel leads to the adb port or the console, and to nothing else")
        return first.open

    async def _until_its_end(self, end: socket.socket, way: Way, caller: _Caller, name: str) -> str:
        """Carry bytes; return why it has ended."""
        gone = asyncio.ensure_future(way.gone())
        names = (name, "the caller")
        carrying = asyncio.ensure_future(
            stream.carry(end, caller, names=names, linger=self._limits.linger_s, stall=self._limits.stall_s)
        )
        try:
            await asyncio.wait({gone, carrying}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                # A device that is stopped closes its connections a moment before it is known to be.
                await asyncio.wait({gone}, timeout=self._limits.why_s if caller.cut_off(carrying) else 0)
            if gone.done():
                return gone.result()
            carried = carrying.result()
            return f"the connection broke: {carried.broken}" if carried.broken else "both ends have finished"
        finally:
            for task in (gone, carrying):
                task.cancel()
            await asyncio.gather(gone, carrying, return_exceptions=True)


class _Caller(stream.Messages):
    """The caller's end of the stream."""

    def __init__(
        self,
        requests: AsyncIterator[tunnel_pb2.TunnelRequest],
        context: Context,
        heard: Callable[[str, int], None],
    ) -> None:
        self._requests = requests
        self._context = context
        self._heard = heard
        self._device_first: bool | None = None
        self._sending: asyncio.Future[None] | None = None

    async def read(self) -> bytes | None:
        """Return what the caller sends."""
        async for request in self._requests:
            kind = request.WhichOneof("message")
            if kind == "data":
                self._heard("received", len(request.data))
                return request.data
            if kind != "finished":
                raise stream.BadMessage("the caller asked for something that is not data")
            break
        if self._device_first is None:
            self._device_first = False
        return None

    async def write(self, data: bytes) -> None:
        """Send the caller what the device says."""
        await self._send(_Response(data=data))
        self._heard("sent", len(data))

    async def finish(self) -> None:
        """Tell the caller that the device says no more."""
        if self._device_first is None:
            self._device_first = True
        await self._send(_Response(finished=True))

    async def close(self, reason: str) -> None:
        """Say why the tunnel is closed."""
        await self._send(_Response(closed=tunnel_pb2.Closed(reason=reason)))

    async def _send(self, message: tunnel_pb2.TunnelResponse) -> None:
        """Send a message when the last one is gone: gRPC cannot take back one that is not."""
        if self._sending is not None:
            await asyncio.wait({self._sending})
        self._sending = asyncio.ensure_future(self._context.write(message))
        await asyncio.shield(self._sending)

    async def broken(self) -> None:
        """Wait until nothing is being sent any more, well or not."""
        if self._sending is not None:
            await asyncio.wait({self._sending})
            self._sending.exception()  # heard

    def cut_off(self, carrying: asyncio.Future[pump.Carried]) -> bool:
        """Tell whether the device ended it, and not the caller."""
        failed = carrying.exception() is not None or carrying.result().broken is not None
        return failed or self._device_first is True
