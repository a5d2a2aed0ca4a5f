"""Parts of the pages' listener without a relay around them: a device's adb, its own pages, and clients that poll."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
from aiohttp import ClientError, ClientSession, WSMsgType, web

from cfctl.errors import CfctlError, NotRunning
from cfctl.relay import caller as callers
from cfctl.relay.web import adb, brought
from cfctl.relay.web.sessions import Polled
from cfctl.wire import stream

PATIENCE_S = 60.0

CALLER = cast("Any", object())


@contextlib.asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """Answer everything with a handler for the block; give the port."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Way:
    """The way to a device that is one end of a pair of sockets."""

    def __init__(self) -> None:
        self.device, self.end = socket.socketpair()
        self.device.settimeout(0)
        self.end.settimeout(0)
        self.over = asyncio.Event()

    async def __call__(self, target: str, service: Any) -> Way:
        """Be the resolver: what is asked for is asked for in the name of whoever looks."""
        assert callers.current() is CALLER
        if target != "phone":
            raise NotRunning(f"{target} is stopped")
        return self

    async def connect(self) -> socket.socket:
        return self.end

    async def gone(self) -> str:
        await self.over.wait()
        return "phone was stopped"


async def _said(way: Way, size: int) -> bytes:
    said = b""
    while len(said) < size and (more := await asyncio.get_running_loop().sock_recv(way.device, 1 << 16)):
        said += more
    return said


@contextlib.contextmanager
def _way() -> Iterator[Way]:
    way = Way()
    with way.device, way.end:
        yield way


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), PATIENCE_S)

    asyncio.run(bounded())


def test_adb_goes_the_way_that_tunnels_take() -> None:
    async def work(way: Way) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await adb.tunnel(request, cast("Any", way), CALLER, "phone", lambda: True)

        async with serving(handler) as port, ClientSession() as session:
            async with session.ws_connect(f"http://127.0.0.1:{port}/") as line:
                # One that is longer than a tunnel's piece, as adb's packets may be.
                packet = os.urandom(3 * stream.PIECE + 5)
                await line.send_bytes(packet)
                await line.send_str("text")
                assert await _said(way, len(packet) + 4) == packet + b"text"
                await asyncio.get_running_loop().sock_sendall(way.device, b"CNXN")
                frame = await line.receive()
                assert (frame.type, frame.data) == (WSMsgType.BINARY, b"CNXN")
                way.over.set()
                assert (await line.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
            assert await _said(way, 1) == b""

    with _way() as way:
        run(lambda: work(way))


def test_adb_that_cannot_be_had_and_a_token_that_counts_no_more() -> None:
    async def work(way: Way) -> None:
        counts = True

        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                return await adb.tunnel(request, cast("Any", way), CALLER, request.path[1:], lambda: counts)
            except CfctlError as error:
                return web.Response(status=500, text=error.brief)

        async with serving(handler) as port, ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/other") as answer:
                assert await answer.text() == "other is stopped"
            async with session.ws_connect(f"http://127.0.0.1:{port}/phone") as line:
                counts = False
                assert (await line.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
            assert await _said(way, 1) == b""

    with _way() as way:
        run(lambda: work(way))


def test_a_file_without_end_is_passed_on_as_it_comes() -> None:
    async def work() -> None:
        told = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal told
            answer = web.StreamResponse(headers={"Content-Type": "video/mp4"})
            await answer.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await answer.write(bytes(1 << 20))
                    told += 1 << 20
            return answer

        async with serving(endless) as device:

            async def handler(request: web.Request) -> web.StreamResponse:
                return await brought.fetch(request, device, "film", {"X-Ours": "1"})

            async with (
                serving(handler) as port,
                ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/") as answer,
            ):
                assert (answer.status, answer.content_type, answer.headers["X-Ours"]) == (200, "video/mp4", "1")
                assert len(await answer.content.readexactly(40 << 20)) == 40 << 20
                # Who does not read holds up the device, once sockets hold what they can (tcp_rmem, tcp_wmem).
                before = -1
                while before != told:
                    before = told
                    await asyncio.sleep(0.5)

    run(work)


def test_a_file_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    async def work() -> None:
        async def broken(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Length": "100"})
            await answer.prepare(request)
            await answer.write(b"half")
            assert request.transport is not None
            request.transport.close()
            return answer

        async with serving(broken) as device:

            async def handler(request: web.Request) -> web.StreamResponse:
                return await brought.fetch(request, device, request.path[1:], {})

            async with serving(handler) as port, ClientSession() as session:
                with pytest.raises(ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/file") as answer:
                        await answer.read()

    run(work)


def test_nobody_there() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            nobody = listener.getsockname()[1]

        async def handler(request: web.Request) -> web.StreamResponse:
            return await brought.fetch(request, nobody, "file", {})

        async with (
            serving(handler) as port,
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/") as answer,
        ):
            assert (answer.status, answer.headers["X-Cutf-Proxy"]) == (502, "op-device")

    run(work)


def test_what_waits_for_a_client_that_polls_is_bounded_in_bytes() -> None:
    polled = Polled("name", CALLER, cast("Any", None))
    for _ in range(100):
        polled.told(json.dumps(secrets.token_hex(100_000)).encode())
    polled.told(b'"last"')
    kept = polled.messages(0, None)
    assert sum(len(bytes(one.payload)) for one in kept) <= 1 << 20
    assert bytes(kept[-1].payload) == b'"last"'
    # They have the numbers that they had.
    assert [bytes(one.payload) for one in polled.messages(100, None)] == [b'"last"']
