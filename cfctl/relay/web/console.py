"""A WebSocket that is a device's serial console: bytes both ways, and words about it as text.

The way there is the one that tunnels take (:mod:`cfctl.relay.ways`), so a console has one reader at a time, belongs
to the device's user, and ends when its device does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from cfctl.errors import CfctlError, DeadlinePassed, RelayBusy
from cfctl.relay import caller as callers
from cfctl.v1 import tunnel_pb2
from cfctl.wire import stream

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cfctl.relay.caller import Caller
    from cfctl.relay.tunnel import Resolver, Way

#: Each is a program of its own on this host, until its page leaves.
_MOST = 32

#: What a page may type or paste in one message.
_LONGEST_FRAME = 64 << 10

_CONNECT_S = 15.0
_PING_S = 30.0

#: How often it is looked whether a token still counts.
_LOOK_S = 1.0

#: Between a console that has ended and the word that its device has too.
_WHY_S = 2.0


class Consoles:
    """All that are open in browsers.

    :param resolve: finds the way to a device's console, or says why there is none.
    """

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._open = 0

    async def serve(
        self, request: web.Request, caller: Caller, name: str, still: Callable[[], bool]
    ) -> web.StreamResponse:
        """Carry one console until the page leaves, the device ends, or the token counts no more.

        A browser does not show a page why its WebSocket was refused: what goes wrong is told in it, as text.

        :param name: ``NAME`` or ``NAME/2``.
        :param still: tells whether what the caller has shown still counts.
        """
        answer = web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=_LONGEST_FRAME, compress=False)
        await answer.prepare(request)
        try:
            if self._open >= _MOST:
                raise RelayBusy(f"{self._open} consoles are open in browsers", None, "Close one of them.")
            self._open += 1
            try:
                await self._sit(answer, caller, name, still)
            finally:
                self._open -= 1
        except CfctlError as error:
            with contextlib.suppress(ConnectionError):
                await _say(answer, error=error.as_dict())
        await answer.close()
        return answer

    async def _sit(self, answer: web.WebSocketResponse, caller: Caller, name: str, still: Callable[[], bool]) -> None:
        # In a task of its own: who calls is known to whatever the task does, and the next request is somebody else's.
        way = await asyncio.create_task(self._way(caller, name))
        try:
            async with asyncio.timeout(_CONNECT_S):
                end = await way.connect()
        except TimeoutError:
            raise DeadlinePassed(f"the console of {name} was not reached within {_CONNECT_S:g} s") from None
        with end, contextlib.suppress(ConnectionError):
            await _say(answer, opened=name)
            await _say(answer, closed=await _until_its_end(end, way, answer, still))

    async def _way(self, caller: Caller, name: str) -> Way:
        callers.set_current(caller, callers.About())
        return await self._resolve(name, tunnel_pb2.TunnelTarget.SERVICE_CONSOLE)


async def _until_its_end(
    end: socket.socket, way: Way, answer: web.WebSocketResponse, still: Callable[[], bool]
) -> str:
    """Carry bytes; return why it has ended, for people."""
    gone = asyncio.ensure_future(way.gone())
    carrying = asyncio.ensure_future(stream.carry(end, _Page(answer), names=("the console", "the page")))
    looking = asyncio.ensure_future(_until_revoked(still))
    tasks = {gone, carrying, looking}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            return "the token counts no more"
        if not gone.done():
            # A device that is stopped closes its console a moment before it is known to be.
            await asyncio.wait({gone}, timeout=0 if answer.closed else _WHY_S)
        if gone.done():
            return gone.result()
        broken = carrying.result().broken
        ended = broken is None or isinstance(broken, _Ended)
        return "the console has ended" if ended else f"the console broke off: {broken}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_revoked(still: Callable[[], bool]) -> None:
    while still():
        await asyncio.sleep(_LOOK_S)


async def _say(answer: web.WebSocketResponse, **what: Any) -> None:
    await answer.send_str(json.dumps(what))


class _Ended(OSError):
    """The console's program has ended, by itself or because the page has left."""


class _Page:
    """The page's side: what is typed comes in frames, binary or text."""

    def __init__(self, answer: web.WebSocketResponse) -> None:
        self._answer = answer

    async def read(self) -> bytes | None:
        """Return what was typed; None when the page has left."""
        async for frame in self._answer:
            if frame.type == WSMsgType.BINARY:
                return bytes(frame.data)
            if frame.type == WSMsgType.TEXT:
                return str(frame.data).encode()
        return None

    async def write(self, data: bytes) -> None:
        """Show what the guest wrote."""
        await self._answer.send_bytes(data)

    async def finish(self) -> None:
        """Hear that the guest says no more.

        :raises _Ended: so that nothing more is waited for from the page.
        """
        raise _Ended
