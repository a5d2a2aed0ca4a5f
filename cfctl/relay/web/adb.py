"""A WebSocket that is a device's adb: bytes either way, as the stock operator has it.

The way there is the one that tunnels take (:mod:`cfctl.relay.ways`): by the device's number and as its user, wherever
its record says that its adb is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from cfctl.errors import CfctlError, NotRunning
from cfctl.relay.web import passage
from cfctl.v1 import tunnel_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.relay.caller import Caller
    from cfctl.relay.tunnel import Resolver

_PING_S = 30.0
#: As long as a message of adb's may be.
_LONGEST_FRAME = 1 << 20


async def tunnel(
    request: web.Request, resolve: Resolver, caller: Caller, name: str, still: Callable[[], bool]
) -> web.StreamResponse:
    """Pass bytes until either side ends, the device does, or the token counts no more.

    :param name: ``NAME`` or ``NAME/2``.
    :raises CfctlError: if there is no way there.
    """
    way = await passage.way(resolve, caller, name, tunnel_pb2.TunnelTarget.SERVICE_ADB)
    try:
        async with asyncio.timeout(passage.CONNECT_S):
            end = await way.connect()
    except (OSError, TimeoutError) as exc:
        raise NotRunning(f"nobody answers at {name}'s adb", str(exc) or None) from exc
    with end:
        answer = web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=_LONGEST_FRAME, compress=False)
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError, CfctlError):
            await passage.until_its_end(end, way, answer, still, "the device")
        await answer.close()
    return answer
