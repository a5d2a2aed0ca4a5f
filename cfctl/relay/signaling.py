"""The sockets that streamers register at, and where launchers say beforehand which will; as the stock operator's."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from cfctl.relay.records import Records
from cfctl.relay.streamers import Streamer, Streamers
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_messages import MalformedMessage, decode, encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

#: For the first record.
_INTRODUCE_S = 10.0

#: How long a registration waits for another one of the same id to end.
_YIELD_S = 3.0

#: Connections at once of one user; a host has 128 instances.
_PER_USER = 256


class TakenIds:
    """Answers of the stock operator, word for word: launchers and streamers log them."""

    REGISTERED = "Device Id already registered"
    EXPECTED = "Device Id already pre-registered"

    @staticmethod
    def taken(device_id: str) -> str:
        """Return the answer to a registration of an id that is taken."""
        return f"Device id already taken:  {device_id}\n"


@dataclass(eq=False)
class Announcement:
    """What one launcher has said of the devices that it starts."""

    records: Records
    request: messages.PreRegister
    waiting: dict[str, messages.Expected] = field(default_factory=dict)


class Signaling:
    """Takes registrations.

    :param streamers: where those that registered are kept.
    :param config: returns what streamers are told of STUN and TURN, made anew for each.
    """

    def __init__(self, streamers: Streamers, config: Callable[[], messages.Config]) -> None:
        self._streamers = streamers
        self._config = config
        self._announced: dict[tuple[int, str], Announcement] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[int, int] = {}

    def listen(self, registrations: socket.socket, announcements: socket.socket) -> None:
        """Take connections from two listening sockets, which are this one's from now on."""
        self._start(self._accept(registrations, self._register))
        self._start(self._accept(announcements, self._announce))

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- connections ---------------------------------------------------------------------------------------

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, serve: Callable[[Records], Awaitable[None]]) -> None:
        listener.settimeout(0)
        with listener:
            while True:
                try:
                    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as exc:
                    log.warning("a streamer's connection: %s", exc)
                    await asyncio.sleep(1)
                    continue
                self._start(self._served(Records(sock), serve))

    async def _served(self, records: Records, serve: Callable[[Records], Awaitable[None]]) -> None:
        count = self._connections.get(records.uid, 0)
        self._connections[records.uid] = count + 1
        try:
            if count < _PER_USER:
                await serve(records)
        except (MalformedMessage, TimeoutError) as exc:
            log.info("pid %d (uid %d): %s", records.pid, records.uid, exc or "said nothing")
        finally:
            self._connections[records.uid] -= 1
            if not self._connections[records.uid]:
                del self._connections[records.uid]
            await records.finish()

    async def _first(self, records: Records) -> bytes | None:
        async with asyncio.timeout(_INTRODUCE_S):
            return await records.read()

    # -- registrations -------------------------------------------------------------------------------------

    async def _register(self, records: Records) -> None:
        """Serve one streamer until it is gone."""
        first = await self._first(records)
        if first is None:
            return
        asked: messages.Register = decode(first, messages.Register)
        key = records.uid, asked.device_id
        if not await self._free(key, records.pid):
            records.send(encode(messages.Refusal(TakenIds.taken(asked.device_id))))
            return
        streamer = Streamer(
            device_id=asked.device_id,
            uid=records.uid,
            pid=records.pid,
            port=asked.device_port,
            info=asked.device_info,
            records=records,
            next_id=self._streamers.next_id,
        )
        self._meet(streamer)
        # The answer first: whoever finds the streamer may speak to it at once.
        streamer.send(self._config())
        self._streamers.put(streamer)
        log.info("%s registered (pid %d, uid %d)", streamer.device_id, streamer.pid, streamer.uid)
        try:
            while (record := await records.read()) is not None:
                streamer.hear(record)
        finally:
            self._streamers.drop(streamer)
            log.info("%s is gone", streamer.device_id)

    async def _free(self, key: tuple[int, str], pid: int) -> bool:
        """Tell whether an id can be had: from itself at once, from another process when that ends in time."""
        deadline = asyncio.get_running_loop().time() + _YIELD_S
        while True:
            there = self._streamers.get(key)
            if there is None or there.pid == pid:
                return True
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.05)

    def _meet(self, streamer: Streamer) -> None:
        """Give a streamer what its launcher said of it, and tell the launcher."""
        announcement = self._announced.pop(streamer.key, None)
        if announcement is None:
            return
        streamer.expected = announcement.waiting.pop(streamer.device_id)
        streamer.group = announcement.request.group_name
        streamer.owner = announcement.request.owner
        announcement.records.send(encode(messages.PreStatus(streamer.device_id, "registered")))

    # -- announcements -------------------------------------------------------------------------------------

    async def _announce(self, records: Records) -> None:
        """Serve one launcher; what has not registered when it leaves is expected no more."""
        first = await self._first(records)
        if first is None:
            return
        announcement = Announcement(records, decode(first, messages.PreRegister))
        answers = [self._expect(announcement, one) for one in announcement.request.devices]
        records.send(msgspec.json.encode(answers))
        try:
            while await records.read() is not None:
                pass
        finally:
            for id_ in announcement.waiting:
                del self._announced[records.uid, id_]

    def _expect(self, announcement: Announcement, one: messages.Expected) -> messages.PreStatus:
        key = announcement.records.uid, one.id
        if self._streamers.get(key) is not None:
            return messages.PreStatus(one.id, "failed", TakenIds.REGISTERED)
        if key in self._announced:
            return messages.PreStatus(one.id, "failed", TakenIds.EXPECTED)
        self._announced[key] = announcement
        announcement.waiting[one.id] = one
        return messages.PreStatus(one.id, "accepted")
