"""Where Prometheus asks: what cannot be had is said, without a word that is not for strangers."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from cfctl.errors import CfctlError
from cfctl.relay.scrape import Scrape

PATIENCE_S = 60.0


async def _asked(scrape: Scrape, where: tuple[str, int], more: str = "Authorization: Bearer secret\r\n") -> str:
    task = asyncio.create_task(scrape.serve())
    try:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(f"GET /metrics HTTP/1.1\r\n{more}\r\n".encode())
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said.decode()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _broken(_: str) -> bool:
    raise CfctlError("/var/lib/tokens.json cannot be read")


async def _none() -> bytes:
    raise CfctlError("/root/devices cannot be listed")


@pytest.mark.parametrize(
    ("tokens_broken", "status"), [(True, "401 Unauthorized"), (False, "503 Service Unavailable")]
)
def test_what_is_broken_here_is_for_our_own_log(*, tokens_broken: bool, status: str) -> None:
    async def run() -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        scrape = Scrape(listener, tls=None, allowed=_broken if tokens_broken else None, text=_none)
        return await asyncio.wait_for(_asked(scrape, listener.getsockname()), PATIENCE_S)

    said = asyncio.run(run())
    assert said.startswith(f"HTTP/1.1 {status}\r\n")
    assert "cannot be" not in said


async def _some() -> bytes:
    return b"cfctl_devices 2\n"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9107", "200 OK"),
        ("[::1]:9107", "200 OK"),
        ("localhost:9107", "200 OK"),
        (f"{socket.gethostname()}:9107", "200 OK"),
        # A site whose name leads here, in the browser of somebody who sits at this host.
        ("farm.example:9107", "421 Misdirected Request"),
        ("127.0.0.1.farm.example", "421 Misdirected Request"),
        ("[", "421 Misdirected Request"),
    ],
)
def test_a_strangers_name_is_not_answered_where_no_token_is_needed(host: str, status: str) -> None:
    async def run() -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        scrape = Scrape(listener, tls=None, allowed=None, text=_some)
        return await asyncio.wait_for(_asked(scrape, listener.getsockname(), f"Host: {host}\r\n"), PATIENCE_S)

    assert asyncio.run(run()).startswith(f"HTTP/1.1 {status}\r\n")
