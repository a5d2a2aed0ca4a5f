"""The pages that a device brings itself: fetched from its streamer's port on loopback, for whoever may see them."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

#: Bytes of a file, and seconds for it: those of host packages have some hundred kB.
_LONGEST = 32 << 20
_PATIENCE_S = 30

_ASKED = ("Accept", "Range", "If-None-Match")
_ANSWERED = ("Content-Type", "Content-Encoding", "ETag", "Content-Range")


class _TooLong(Exception):
    """A file that has more than may be held here."""


async def fetch(request: web.Request, port: int, path: str) -> web.Response:
    """Return a file of a device's pages; what cannot be had is answered as the stock operator answers then.

    :param port: where its streamer serves them, on loopback.
    :param path: as it was asked for; the query goes with it, and nothing that lets anybody in.
    """
    kept = {name: request.headers[name] for name in _ASKED if name in request.headers}
    address = f"http://127.0.0.1:{port}/{quote(path)}"
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_PATIENCE_S), auto_decompress=False) as session,
            session.get(address, params=request.query, headers=kept, allow_redirects=False) as found,
        ):
            answer = web.Response(status=found.status, body=await _all(found))
            for name in _ANSWERED:
                if name in found.headers:
                    answer.headers[name] = found.headers[name]
            return answer
    except (ClientError, TimeoutError, OSError, _TooLong):
        return missing()


def missing() -> web.Response:
    """Return the stock operator's answer about a device that does not answer."""
    return web.Response(status=502, headers={"X-Cutf-Proxy": "op-device"})


async def _all(found: ClientResponse) -> bytes:
    content = bytearray()
    async for piece in found.content.iter_any():
        content += piece
        if len(content) > _LONGEST:
            raise _TooLong
    return bytes(content)
