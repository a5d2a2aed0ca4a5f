"""Where Prometheus asks: one small answer over HTTP, with a deadline for whoever asks slowly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cfctl.errors import CfctlError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

#: For the handshake, the question and the answer, each.
_PATIENCE_S = 5.0

#: Who asks at once; others wait in the listener's queue.
_AT_ONCE = 8

_LONGEST_HEAD = 8192

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Scrape:
    """The listener for Prometheus.

    :param listener: a listening socket; it is ours from now on.
    :param tls: returns what connections are encrypted with; None on loopback.
    :param allowed: tells whether a token may see the metrics; None if none is needed.
    :param text: returns the metrics.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        tls: Callable[[], ssl.SSLContext] | None,
        allowed: Callable[[str], bool] | None,
        text: Callable[[], Awaitable[bytes]],
    ) -> None:
        listener.settimeout(0)
        self._listener = listener
        self._tls = tls
        self._allowed = allowed
        self._text = text
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer until cancelled; the listener is closed then."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._free.acquire()
                try:
                    sock, _ = await loop.sock_accept(self._listener)
                except OSError:
                    self._free.release()
                    await asyncio.sleep(1)
                    continue
                task = loop.create_task(self._one(sock))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        finally:
            self._listener.close()
            for task in self._tasks:
                task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()

    async def _one(self, sock: socket.socket) -> None:
        """Answer one question."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LONGEST_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=self._tls() if self._tls else None,
                ssl_handshake_timeout=_PATIENCE_S if self._tls else None,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                answer = await self._answer(head.decode("latin-1"))
                async with asyncio.timeout(_PATIENCE_S):
                    writer.write(answer)
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
            finally:
                transport.abort()

    async def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if self._allowed is not None:
            kind, _, secret = headers.get("authorization", "").partition(" ")
            try:
                allowed = kind.lower() == "bearer" and self._allowed(secret.strip())
            except CfctlError as error:
                # What is wrong with the file of tokens is for our own log, not for strangers.
                log.warning("%s", error)
                allowed = False
            if not allowed:
                return _response("401 Unauthorized", b"a token is needed\n", "WWW-Authenticate: Bearer\r\n")
        elif not _means_this_host(headers.get("host", "")):
            return _response("421 Misdirected Request", b"ask for an address of this host, or its name\n")
        if request.split(" ")[:2] != ["GET", "/metrics"]:
            return _response("404 Not Found", b"there is /metrics alone\n")
        try:
            return _response("200 OK", await self._text())
        except CfctlError as error:
            log.warning("no metrics: %s", error)
            return _response("503 Service Unavailable", b"the relay's log says why\n")


def _response(status: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _means_this_host(host: str) -> bool:
    """Tell whether a Host header is no stranger's name, by which a page in somebody's browser here would get in.

    A site may have its own name lead to 127.0.0.1, and a browser then takes what listens there for a part of it.
    """
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("", "localhost", socket.gethostname().lower()) or bool(ip_address(name))
    return False


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether nobody but this host can reach a listener."""
    host: str = listener.getsockname()[0]
    return ip_address(host.partition("%")[0]).is_loopback
