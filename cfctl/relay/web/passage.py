"""Bytes between a WebSocket and a service of a device, until either has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from cfctl.relay import caller as callers
from cfctl.wire import stream

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cfctl.relay.caller import Caller
    from cfctl.relay.tunnel import Resolver, Way
    from cfctl.v1 import tunnel_pb2

#: Until the device's side is connected.
CONNECT_S = 15.0

#: How often it is looked whether a token still counts.
_LOOK_S = 1.0

#: Between a device's side that has ended and the word that the device has too.
_WHY_S = 2.0


async def way(resolve: Resolver, caller: Caller, name: str, service: tunnel_pb2.TunnelTarget.Service) -> Way:
    """Return the way to a device's service, for a caller.

    :raises CfctlError: if there is no such device for him, or it is not up.
    """

    async def found() -> Way:
        callers.set_current(caller, callers.About())
        return await resolve(name, service)

    # In a task of its own: who calls is known to whatever the task does, and the next request is somebody else's.
    return await asyncio.create_task(found())


async def until_its_end(
    end: socket.socket, way: Way, answer: web.WebSocketResponse, still: Callable[[], bool], what: str
) -> str:
    """Carry bytes; return why it has ended, for people.

    :param what: the device's side, for people.
    """
    gone = asyncio.ensure_future(way.gone())
    carrying = asyncio.ensure_future(stream.carry(end, _Page(answer), names=(what, "the page")))
    looking = asyncio.ensure_future(_until_revoked(still))
    tasks = {gone, carrying, looking}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            return "the token counts no more"
        if not gone.done():
            # A device that is stopped closes its connections a moment before it is known to be.
            await asyncio.wait({gone}, timeout=0 if answer.closed else _WHY_S)
        if gone.done():
            return gone.result()
        broken = carrying.result().broken
        ended = broken is None or isinstance(broken, _Ended)
        return f"{what} has ended" if ended else f"{what} broke off: {broken}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_revoked(still: Callable[[], bool]) -> None:
    while still():
        await asyncio.sleep(_LOOK_S)


class _Ended(OSError):
    """The device's side has ended, by itself or because the page has left."""


class _Page:
    """The page's side: what is typed comes in frames, binary or text."""

    def __init__(self, answer: web.WebSocketResponse) -> None:
        self._answer = answer
        self._rest = b""

    async def read(self) -> bytes | None:
        """Return what was typed; None when the page has left."""
        while not self._rest:
            frame = await self._answer.receive()
            if frame.type == WSMsgType.BINARY:
                self._rest = bytes(frame.data)
            elif frame.type == WSMsgType.TEXT:
                self._rest = str(frame.data).encode()
            else:
                return None
        # A frame may be longer than a piece.
        piece, self._rest = self._rest[: stream.PIECE], self._rest[stream.PIECE :]
        return piece

    async def write(self, data: bytes) -> None:
        """Show what the device said."""
        await self._answer.send_bytes(data)

    async def finish(self) -> None:
        """Hear that the device says no more.

        :raises _Ended: so that nothing more is waited for from the page.
        """
        raise _Ended
