"""Clients of the signalling, over a WebSocket or by polling: each speaks to the hub or, direct, to a device."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiohttp import WSMsgType, web

from cfctl.control.operations import Role
from cfctl.errors import NoSuchDevice, RelayBusy
from cfctl.relay.streamers import TooMany
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_messages import MalformedMessage, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.relay.caller import Caller
    from cfctl.relay.screens import Screen, Screens
    from cfctl.relay.web.access import Access

#: Frames for a client that reads slowly, as the stock operator has it.
_WAITING = 256

#: The longest frame of a client, as the stock operator takes it.
LONGEST_FRAME = 64 << 10

_PING_S = 30.0

#: How often it is looked whether a token still counts.
_LOOK_S = 1.0

#: Of one user. A polled client that asks for nothing is gone after a while; stock clients ask once a minute at least.
_MOST_POLLED = 64
_POLLED_S = 150.0

#: Messages that are kept for a polled client, which asks for them by their number.
_KEPT = 2000

#: Bytes that wait for one client: a device may say much more than any client needs.
_MOST_BYTES = 1 << 20

_LETTERS = string.ascii_letters + string.digits


class Talk(Protocol):
    """One side of a conversation with a device."""

    def say(self, payload: bytes) -> None:
        """Send something to the device."""

    def leave(self) -> None:
        """End it."""


def talk(
    screens: Screens,
    screen: Screen,
    caller: Caller,
    *,
    direct: bool,
    told: Callable[[bytes], None],
    lost: Callable[[], None],
) -> Talk:
    """Begin to speak with a device.

    :param direct: to the streamer itself; otherwise the relay answers in its place.
    :raises RelayBusy: if there are too many who do.
    """
    if not direct:
        # The relay outlives the device's streamer: a viewer stays.
        return screens.hub(screen.streamer).watch(
            caller.user.name, may_control=caller.role >= Role.OPERATOR, told=told, lost=lost
        )
    try:
        return screen.streamer.enter(told, lost)
    except TooMany as exc:
        raise RelayBusy(str(exc), None, "Close some of its pages.") from exc


async def websocket(
    request: web.Request, screens: Screens, screen: Screen, caller: Caller, access: Access
) -> web.StreamResponse:
    """Serve one client over its WebSocket until it leaves, its token counts no more, or the device is gone."""
    answer = web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=LONGEST_FRAME, compress=False)
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
    size = 0

    def put(frame: bytes | None) -> None:
        nonlocal size
        size += len(frame or b"")
        if size <= _MOST_BYTES:
            with contextlib.suppress(asyncio.QueueFull):
                waiting.put_nowait(frame)
                return
        # He reads nothing: what he would be told is lost, and so he is.
        for task in tasks:
            task.cancel()

    def lost() -> None:
        put(encode(messages.Refusal("Device disconnected")))
        put(None)

    async def write() -> None:
        nonlocal size
        while (frame := await waiting.get()) is not None:
            await answer.send_str(frame.decode() + "\n")
            size -= len(frame)
        await answer.close()

    async def look() -> None:
        while access.still(caller):
            await asyncio.sleep(_LOOK_S)
        await answer.close(code=4401, message=b"the token counts no more")

    put(encode(messages.Introduction(screen.streamer.info)))
    # Before anything is promised: there may be too many already.
    talking = talk(
        screens,
        screen,
        caller,
        direct=direct(request, caller),
        told=lambda payload: put(encode(messages.DeviceMsg(msgspec.Raw(payload)))),
        lost=lost,
    )
    tasks: list[asyncio.Task[None]] = []
    try:
        await answer.prepare(request)
        tasks += [asyncio.create_task(write()), asyncio.create_task(look())]
        tasks[0].add_done_callback(lambda _: asyncio.ensure_future(answer.close()))
        async for frame in answer:
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            data = frame.data.encode() if isinstance(frame.data, str) else frame.data
            try:
                talking.say(data)
            except MalformedMessage as exc:
                put(encode(messages.DeviceMsg(msgspec.Raw(encode(messages.Failure(str(exc)[:300]))))))
    finally:
        talking.leave()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answer


def direct(request: web.Request, caller: Caller) -> bool:
    """Tell whether a client wants the device itself, and may: nobody keeps him from input then."""
    return request.query.get("direct") == "1" and caller.role >= Role.OPERATOR


class Polled:
    """One client that polls."""

    def __init__(self, name: str, caller: Caller, screen: Screen) -> None:
        self.name = name
        self.caller = caller
        self.screen = screen
        self.talking: Talk | None = None
        self.asked_at = time.monotonic()
        self._first = 0
        self._heard: deque[bytes] = deque()
        self._bytes = 0
        self.gone = False

    def told(self, payload: bytes) -> None:
        """Keep a message; what was asked for beyond is forgotten by and by."""
        self._heard.append(payload)
        self._bytes += len(payload)
        while len(self._heard) > _KEPT or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._heard.popleft())
            self._first += 1

    def messages(self, start: int, count: int | None) -> list[messages.DeviceMsg]:
        """Return messages by their numbers; beyond the last one there are none."""
        self.asked_at = time.monotonic()
        begin = max(0, start - self._first)
        kept = list(self._heard)[begin:]
        return [messages.DeviceMsg(msgspec.Raw(one)) for one in (kept if count is None else kept[:count])]


class PolledClients:
    """All clients that poll."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._known: dict[str, Polled] = {}

    def begin(self, caller: Caller, screen: Screen, *, direct: bool) -> Polled:
        """Return a new client.

        :raises RelayBusy: if its user has as many as may be.
        """
        self.forget_old()
        if sum(one.caller.user.uid == caller.user.uid for one in self._known.values()) >= _MOST_POLLED:
            raise RelayBusy(f"{caller.user.name} has {_MOST_POLLED} clients that poll", None, "End some.")
        name = "".join(secrets.choice(_LETTERS) for _ in range(64))
        polled = Polled(name, caller, screen)
        polled.talking = talk(
            self._screens, screen, caller, direct=direct, told=polled.told, lost=lambda: self._end(name)
        )
        self._known[name] = polled
        return polled

    def get(self, caller: Caller, name: str) -> Polled:
        """Return a client by its name, which is nobody else's.

        :raises NoSuchDevice: if there is none.
        """
        found = self._known.get(name)
        if found is None or found.caller.user.uid != caller.user.uid:
            raise NoSuchDevice(name[:64], [])
        found.asked_at = time.monotonic()
        return found

    def forget_old(self, still: Callable[[Caller], bool] = lambda _: True) -> None:
        """End those that have asked for nothing for long, or whose token counts no more."""
        now = time.monotonic()
        for name, polled in list(self._known.items()):
            if now - polled.asked_at > _POLLED_S or not still(polled.caller):
                self._end(name)

    def _end(self, name: str) -> None:
        polled = self._known.pop(name, None)
        if polled is not None and polled.talking is not None:
            with contextlib.suppress(ConnectionError):
                polled.talking.leave()
