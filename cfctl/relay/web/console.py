"""A WebSocket that is a device's serial console: bytes both ways, and words about it as text.

The way there is the one that tunnels take (:mod:`cfctl.relay.ways`), so a console has one reader at a time, belongs
to the device's user, and ends when its device does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cfctl.errors import CfctlError, DeadlinePassed, RelayBusy
from cfctl.relay.web import passage
from cfctl.v1 import tunnel_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.relay.caller import Caller
    from cfctl.relay.tunnel import Resolver

#: Each is a program of its own on this host, until its page leaves.
_MOST = 32

#: What a page may type or paste in one message.
_LONGEST_FRAME = 64 << 10

_PING_S = 30.0


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
        way = await passage.way(self._resolve, caller, name, tunnel_pb2.TunnelTarget.SERVICE_CONSOLE)
        try:
            async with asyncio.timeout(passage.CONNECT_S):
                end = await way.connect()
        except TimeoutError:
            raise DeadlinePassed(f"the console of {name} was not reached within {passage.CONNECT_S:g} s") from None
        with end, contextlib.suppress(ConnectionError):
            await _say(answer, opened=name)
            await _say(answer, closed=await passage.until_its_end(end, way, answer, still, "the console"))


async def _say(answer: web.WebSocketResponse, **what: Any) -> None:
    await answer.send_str(json.dumps(what))
