"""A client of an operator or relay (HTTP, and a WebSocket or polling): what two peers say before they meet."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from msgspec import Raw

from cfctl.errors import CfctlError, DeadlinePassed
from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

#: As the stock page: what answers later than that will not.
_INTRODUCTION_S = 3.0
_ANSWER_S = 10.0

#: Between two looks of a client that must ask (the stock Go client's): from, to.
_POLL_S = (0.1, 2.0)


@dataclass(frozen=True, slots=True)
class Operator:
    """Where devices are registered: a stock operator, or a relay, which wants to know who asks.

    :param url: its address, such as ``http://127.0.0.1:1080``.
    :param token: for a relay.
    :param code: of a relay's link, which counts once.
    :param fingerprint: the SHA-256 of its certificate in hex; no other is accepted.
    :param elsewhere: its devices may be another host's: they are called what it calls them.
    """

    url: str
    token: str | None = None
    code: str | None = None
    fingerprint: str | None = None
    elsewhere: bool = False

    @property
    def tls(self) -> bool | aiohttp.Fingerprint:
        """How its certificate is checked: a stock operator's is its own, but then no secret is told to it."""
        if self.fingerprint:
            return aiohttp.Fingerprint(bytes.fromhex(self.fingerprint))
        return bool(self.token or self.code)


class NoOperator(CfctlError):
    """Nobody who knows the device could be asked."""

    code = "no-operator"


class Line:
    """A connection to a device by way of its operator; :func:`opened` makes one.

    :ivar device_info: what the streamer registered.
    :ivar servers: the operator's ICE servers.
    """

    def __init__(self, device_info: dict[str, Any], servers: list[messages.IceServer]) -> None:
        self.device_info = device_info
        self.servers = servers
        self._heard: asyncio.Queue[messages.FromDevice | None] = asyncio.Queue()

    async def say(self, message: messages.FromClient) -> None:
        """Send a message to the device."""
        raise NotImplementedError

    async def hear(self) -> messages.FromDevice:
        """Wait for what the device says next.

        :raises NoOperator: if the operator or the device has gone.
        """
        message = await self._heard.get()
        if message is None:
            raise NoOperator("the operator has closed the connection to the device", "The device may be gone.")
        return message

    async def follow(self, reading: Awaitable[None]) -> None:
        """Read until the end, however it comes; whoever hears is told."""
        try:
            with contextlib.suppress(aiohttp.ClientError, OSError, messages.MalformedMessage):
                await reading
        finally:
            self._heard.put_nowait(None)

    def _take(self, frame: bytes | str) -> None:
        with contextlib.suppress(messages.MalformedMessage):
            delivered = messages.decode(frame, messages.DeviceMsg)
            self._heard.put_nowait(messages.decode(bytes(delivered.payload), messages.FromDevice))


class _Socket(Line):
    """By a WebSocket; frames to the device are bare."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *known: Any) -> None:
        super().__init__(*known)
        self._socket = socket

    async def say(self, message: messages.FromClient) -> None:
        await self._socket.send_str(messages.encode(message).decode())

    async def read(self) -> None:
        async for frame in self._socket:
            if frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._take(frame.data)


class _Polled(Line):
    """By asking again and again: older operators have no WebSocket, and some proxies let none through."""

    def __init__(self, http: aiohttp.ClientSession, connection: str, *known: Any) -> None:
        super().__init__(*known)
        self._http = http
        self._path = f"/polled_connections/{connection}"

    async def say(self, message: messages.FromClient) -> None:
        wrapped = messages.encode(messages.PolledForward(Raw(messages.encode(message))))
        async with self._http.post(f"{self._path}/:forward", data=wrapped) as answer:
            answer.raise_for_status()

    async def read(self) -> None:
        start, pause = 0, _POLL_S[0]
        while True:
            async with self._http.get(f"{self._path}/messages", params={"start": str(start)}) as answer:
                if answer.status != 200:
                    break
                found = messages.decode(await answer.read(), list[Raw])
            for frame in found:
                self._take(bytes(frame))
            start += len(found)
            pause = _POLL_S[0] if found else min(2 * pause, _POLL_S[1])
            await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def opened(operator: Operator, device: str) -> AsyncIterator[Line]:
    """Be connected to a device for the block.

    :param device: the id that the streamer registered.
    :raises NoOperator: if nobody answers there, or the device is not registered.
    """
    headers = {"Origin": operator.url, **({"Authorization": f"Bearer {operator.token}"} if operator.token else {})}
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_ANSWER_S):
                http = await stack.enter_async_context(
                    aiohttp.ClientSession(
                        operator.url,
                        headers=headers,
                        connector=aiohttp.TCPConnector(ssl=operator.tls),
                        # Its cookie is for an address too, not only for a name.
                        cookie_jar=aiohttp.CookieJar(unsafe=True),
                    )
                )
                if operator.code:
                    async with http.post("/session", json={"code": operator.code}) as answer:
                        answer.raise_for_status()
                async with http.get("/infra_config") as answer:
                    answer.raise_for_status()
                    config = messages.decode(await answer.read(), messages.Config)
                if operator.elsewhere:
                    device = await _called(http, device)
                line, reading = await _connected(http, stack, device, config)
        except TimeoutError as exc:
            raise DeadlinePassed(f"{operator.url} did not answer within {_ANSWER_S:g} s") from exc
        except (aiohttp.ClientError, OSError, messages.MalformedMessage) as exc:
            raise _refused(operator, device, exc) from exc
        reader = asyncio.ensure_future(line.follow(reading))
        try:
            yield line
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


def _refused(operator: Operator, device: str, exc: Exception) -> NoOperator:
    """Return what to say of an operator that does not answer as one: what mends it depends on why."""
    match exc:
        case aiohttp.ServerFingerprintMismatch():
            return NoOperator(
                f"{operator.url} shows another certificate than it should",
                f"Its SHA-256 is {exc.got.hex()}\nIt should be   {exc.expected.hex()}\nNothing was sent.",
                "If it has a new one, name that: --operator-cert FILE",
            )
        case aiohttp.ClientConnectorCertificateError():
            return NoOperator(
                f"nobody vouches for the certificate of {operator.url}",
                f"{exc.certificate_error}\nNothing was sent.",
                "Name the one that it should have: --operator-cert FILE\n"
                "A relay's own is certificate.pem, in /var/lib/cfctl/relay of its host.",
            )
        case aiohttp.ClientResponseError(status=401 | 403):
            return NoOperator(
                f"{operator.url} lets nobody in without a valid token",
                "It does not know the one that was shown, or that has expired or was revoked."
                if operator.token
                else "None was shown.",
                "Have one made on its host (cfctl relay token create), and show it: export CFCTL_SCREEN_TOKEN=...",
            )
    why = exc.os_error.strerror if isinstance(exc, aiohttp.ClientConnectorError) else str(exc)
    return NoOperator(
        f"nobody at {operator.url} leads to {device}",
        f"{why or type(exc).__name__}",
        "Where no relay shows screens yet, start one: cfctl relay serve --web 127.0.0.1:8443\n"
        "and then boot the device again: cfctl restart NAME\n"
        "Or name the operator or relay that it is registered at: --operator http://HOST:PORT",
    )


async def _called(http: aiohttp.ClientSession, device: str) -> str:
    """Return the id of a device that is meant by its id, or by group and name as a stock operator lists them."""
    async with http.get("/devices") as answer:
        answer.raise_for_status()
        listed: list[messages.Listed] = messages.decode(await answer.read(), list[messages.Listed])
    if any(one.device_id == device for one in listed):
        return device
    return next((one.device_id for one in listed if f"{one.group_name}/{one.name}" == device), device)


async def _connected(
    http: aiohttp.ClientSession, stack: contextlib.AsyncExitStack, device: str, config: messages.Config
) -> tuple[Line, Any]:
    """Return the connection, and what reads it."""
    with contextlib.suppress(aiohttp.WSServerHandshakeError, TimeoutError):
        socket = await stack.enter_async_context(
            http.ws_connect(f"/devices/{quote(device)}/connect", max_msg_size=messages.LONGEST_RECORD)
        )
        first = messages.decode(await socket.receive_str(timeout=_INTRODUCTION_S), messages.Introduction)
        by_socket = _Socket(socket, first.device_info, config.ice_servers)
        return by_socket, by_socket.read()
    async with http.post("/polled_connections", data=messages.encode(messages.NewConnection(device))) as answer:
        if answer.status == 404:
            raise NoOperator(
                f"{device} is not registered at {str(http._base_url).rstrip('/')}",
                "It was launched before that served, or registers elsewhere.",
                "Boot it again: cfctl restart NAME\nIf that does not help, see what it says: cfctl logs NAME",
            )
        answer.raise_for_status()
        connection = messages.decode(await answer.read(), messages.PolledConnection)
    polled = _Polled(http, connection.connection_id, connection.device_info, config.ice_servers)
    return polled, polled.read()
