"""The pages that a device brings itself: fetched from its streamer's port on loopback, for whoever may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds for the connection, and for each piece that comes: a file may be any size, and whoever reads it slow.
_PATIENCE = ClientTimeout(sock_connect=5, sock_read=30)

_PIECE = 64 << 10

_ASKED = ("Accept", "Range", "If-None-Match")
_ANSWERED = ("Content-Type", "Content-Length", "Content-Encoding", "ETag", "Content-Range")


async def fetch(request: web.Request, port: int, path: str, headers: Mapping[str, str]) -> web.StreamResponse:
    """Pass on a file of a device's pages; what cannot be had is answered as the stock operator answers then.

    No more of it is held than a piece: a streamer may serve what never ends, to many at once.

    :param port: where its streamer serves them, on loopback.
    :param path: as it was asked for; the query goes with it, and nothing that lets anybody in.
    :param headers: go with the answer.
    """
    kept = {name: request.headers[name] for name in _ASKED if name in request.headers}
    address = f"http://127.0.0.1:{port}/{quote(path)}"
    answer: web.StreamResponse | None = None
    try:
        async with (
            ClientSession(timeout=_PATIENCE, auto_decompress=False) as session,
            session.get(address, params=request.query, headers=kept, allow_redirects=False) as found,
        ):
            answer = _answer(found, headers)
            await answer.prepare(request)
            if request.method != "HEAD":
                async for piece in found.content.iter_chunked(_PIECE):
                    await answer.write(piece)
            await answer.write_eof()
    except (ClientError, TimeoutError, OSError):
        if answer is None or not answer.prepared:
            return missing()
        # Half a file must not be taken for a whole one.
        if request.transport is not None:
            request.transport.abort()
    return answer


def _answer(found: ClientResponse, headers: Mapping[str, str]) -> web.StreamResponse:
    given = {name: found.headers[name] for name in _ANSWERED if name in found.headers}
    return web.StreamResponse(status=found.status, headers={**headers, **given})


def missing() -> web.Response:
    """Return the stock operator's answer about a device that does not answer."""
    return web.Response(status=502, headers={"X-Cutf-Proxy": "op-device"})
