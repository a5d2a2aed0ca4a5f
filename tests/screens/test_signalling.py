"""What a viewer without a window hears of its operator's end."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from cfctl.viewer import signalling

PATIENCE_S = 60.0


def test_an_operator_that_breaks_off_is_noticed() -> None:
    """One that polls waits for nothing that cannot come."""

    async def config(_: web.Request) -> web.Response:
        return web.json_response({"message_type": "config", "ice_servers": []})

    async def begin(_: web.Request) -> web.Response:
        return web.json_response({"connection_id": "one", "device_info": {}})

    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def look() -> None:
        application = web.Application()
        application.router.add_get("/infra_config", config)
        application.router.add_post("/polled_connections", begin)
        application.router.add_get("/polled_connections/one/messages", break_off)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            async with signalling.opened(signalling.Operator(f"http://{host}:{port}"), "cvd-1") as line:
                with pytest.raises(signalling.NoOperator, match="closed the connection"):
                    await line.hear()
        finally:
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(look(), PATIENCE_S))
