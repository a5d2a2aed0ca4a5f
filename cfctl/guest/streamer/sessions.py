"""All clients of the streamer. What a session needs (aiortc, libvpx) is loaded when the first one begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cfctl.guest.streamer import device as devices
from cfctl.guest.streamer.hands import Hands
from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from cfctl.guest.streamer.peer import Peer
    from cfctl.wire.webrtc_channels import Event

#: More than any page or relay has; each costs a socket per network of the host.
MOST_PEERS = 64


#: Words of one client that wait while a connection is made; a page says some dozens.
_MOST_WORDS = 256


async def _nowhere(_client: int, _payload: bytes) -> None:
    """Send to nobody: there is no registration yet."""


class Sessions:
    """The clients by their numbers.

    :param vnc: QEMU's VNC server.
    :param monitor: QEMU's monitor for input.
    :param part: the instance's part of the config.
    :param label: the display's name.
    :ivar size: of the picture, as far as known.
    :ivar forward: sends a payload to a client.
    """

    def __init__(
        self, vnc: Path, monitor: Path, part: Mapping[str, Any], label: str, say: Callable[[str], None]
    ) -> None:
        self.size: tuple[int, int] | None = None
        self.forward: Callable[[int, bytes], Awaitable[None]] = _nowhere
        self._vnc = vnc
        self._monitor = monitor
        self._part = part
        self._label = label
        self._say = say
        self._servers: list[messages.IceServer] = []
        self._peers: dict[int, Peer] = {}
        self._device: devices.Device | None = None
        self._events: list[Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # What one client says is done in its order, and no client waits for another.
        self._orders: dict[int, asyncio.Queue[bytes | None]] = {}

    def info(self) -> dict[str, Any]:
        """Return what the device registers as."""
        return devices.info(self._part, self.size, self._label)

    def happened(self, event: Event) -> None:
        """Tell the clients what has happened to the device, and those to come."""
        self._events.append(event)
        if self._device is not None:
            self._device.happened(event)
        for peer in self._peers.values():
            peer.tell(event)

    async def hear(self, message: messages.ToStreamer) -> None:
        """Take what the operator says; nothing of it is waited for."""
        match message:
            case messages.Config(ice_servers=servers):
                self._servers = servers
            case messages.ClientMsg(client_id=client, payload=payload):
                if client not in self._orders:
                    if len(self._orders) >= MOST_PEERS:
                        await self._refuse(client, "there are too many clients")
                        return
                    self._orders[client] = asyncio.Queue()
                    self._begin(self._serve(client, self._orders[client]))
                if self._orders[client].qsize() >= _MOST_WORDS:
                    self._say(f"client {client} says too much at once")
                    return
                self._orders[client].put_nowait(bytes(payload))
            case messages.ClientDisconnected(client_id=client):
                if client in self._orders:
                    self._orders[client].put_nowait(None)

    async def close(self) -> None:
        """End all sessions."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(peer.close() for peer in tuple(self._peers.values())), return_exceptions=True)

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(f"a session ended by a fault of the streamer's: {error!r}")

    async def _serve(self, client: int, said: asyncio.Queue[bytes | None]) -> None:
        """Do what a client says, until it is gone.

        An empty word has it looked whether there is still a connection; one that ended may be asked for anew.
        """
        try:
            while (payload := await said.get()) is not None:
                try:
                    if payload:
                        await self._do(client, messages.decode(payload, messages.FromClient))
                except ValueError as error:
                    # Malformed messages are values too. A stock streamer would end the session, or itself.
                    self._say(f"client {client}: {str(error)[:300]}")
                if client not in self._peers and said.empty():
                    break
        finally:
            del self._orders[client]
            if peer := self._peers.pop(client, None):
                await peer.close()

    async def _do(self, client: int, message: messages.FromClient) -> None:
        if isinstance(message, messages.RequestOffer):
            await self._offer(client, message)
        elif peer := self._peers.get(client):
            await peer.hear(message)
        else:
            raise ValueError(f"{type(message).__name__} before it has asked for an offer")

    async def _offer(self, client: int, request: messages.RequestOffer) -> None:
        # Its import takes most of a second: other clients are heard meanwhile.
        await asyncio.to_thread(__import__, "cfctl.guest.streamer.peer")
        from cfctl.guest.streamer.peer import Peer

        if old := self._peers.pop(client, None):
            await old.close()
        servers = [*self._servers, *(request.ice_servers or ())]

        async def send(payload: Any) -> None:
            await self.forward(client, messages.encode(payload))

        def closed(peer: Peer) -> None:
            if self._peers.get(client) is peer:
                del self._peers[client]
                self._orders[client].put_nowait(b"")

        self._peers[client] = peer = Peer(self._looked_at(), servers, send, closed)
        await peer.offer()

    async def _refuse(self, client: int, why: str) -> None:
        await self.forward(client, messages.encode(messages.Failure(why)))

    def _looked_at(self) -> devices.Device:
        """Return the device, from now on looked at."""
        if self._device is None:
            from cfctl.guest.streamer.display import Display

            hands = Hands(self._monitor, self._say)
            display = Display(self._vnc, self.size or (640, 480), self._say)
            self._device = devices.Device(
                display, hands, adb_port=int(self._part["adb_host_port"]), label=self._label, say=self._say
            )
            for event in self._events:
                self._device.happened(event)
            self._begin(hands.run())
            self._begin(display.run())
        return self._device
