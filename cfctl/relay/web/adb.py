"""A WebSocket that is a device's adb: bytes either way, as the stock operator has it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from cfctl.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.relay.screens import Screen

_CHUNK = 64 << 10
_CONNECT_S = 5.0
_LOOK_S = 1.0
_PING_S = 30.0


def address(screen: Screen) -> tuple[str, int]:
    """Return where a device's adb listens: as cfctl knows it, never as a streamer says.

    :raises NotRunning: if it is not known.
    """
    for instance in (screen.document or {}).get("instances", []):
        if instance.get("webrtc_device_id") == screen.streamer.device_id and instance.get("adb"):
            host, _, port = instance["adb"].rpartition(":")
            return host, int(port)
    raise NotRunning(f"{screen.name} has no adb that is known here")


async def tunnel(request: web.Request, screen: Screen, still: Callable[[], bool]) -> web.StreamResponse:
    """Pass bytes until either side ends, or the token counts no more.

    :raises NotRunning: if nobody listens there.
    """
    host, port = address(screen)
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as exc:
        raise NotRunning(f"nobody answers at {screen.name}'s adb", str(exc)) from exc
    # A browser whose host has gone says nothing, and would have the device's adb for ever.
    answer = web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=1 << 20, compress=False)

    async def out() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await answer.send_bytes(data)
        await answer.close()

    async def look() -> None:
        while still():
            await asyncio.sleep(_LOOK_S)
        await answer.close()

    await answer.prepare(request)
    tasks = [asyncio.create_task(out()), asyncio.create_task(look())]
    try:
        async for frame in answer:
            if frame.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                writer.write(frame.data.encode() if isinstance(frame.data, str) else frame.data)
                await writer.drain()
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
    return answer
