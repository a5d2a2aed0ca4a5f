"""The devices whose streamers have registered: who they are, and the clients that speak with them.

An id belongs to a user: what somebody else registers under the same id is another device. A streamer that returns
takes over from itself; clients' ids never come again, because a streamer keeps what it has for them even when the
relay is started anew.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_messages import MalformedMessage, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.relay.records import Records

#: Of one device at once; polled ones are never ended by the protocol. The relay's own find room beside those.
_MOST_CLIENTS = 128
_OWN_CLIENTS = 64


class TooMany(Exception):
    """A limit is reached."""


@dataclass(eq=False)
class Client:
    """Somebody who speaks to a streamer, by an id that is nobody else's ever.

    :param told: called with each payload that comes for it.
    :param lost: called once when the streamer is gone.
    """

    id: int
    streamer: Streamer
    told: Callable[[bytes], None]
    lost: Callable[[], None]
    #: Whether an offer was asked for: before that a stock streamer would end at anything else.
    begun: bool = False
    gone: bool = False

    def say(self, payload: bytes) -> None:
        """Send something to the device.

        :raises MalformedMessage: if it is nothing that a client may say there now.
        """
        found = decode(payload, messages.FromClient)
        if isinstance(found, messages.RequestOffer):
            self.begun = True
        elif not self.begun:
            raise MalformedMessage("the first thing that a client says is request-offer")
        if not self.gone:
            self.streamer.send(messages.ClientMsg(self.id, msgspec.Raw(payload)))

    def leave(self) -> None:
        """Be gone: the device is told, and nothing is passed on any more."""
        if self.gone:
            return
        self.gone = True
        self.streamer.clients.pop(self.id, None)
        if self.begun:
            self.streamer.send(messages.ClientDisconnected(self.id))


@dataclass(eq=False)
class Streamer:
    """A device that can be looked at.

    :param uid: the user that its streamer runs as, by the kernel's word.
    :param info: what it said of itself.
    :param expected: what the launcher said before.
    """

    device_id: str
    uid: int
    pid: int
    port: int
    info: dict[str, Any]
    records: Records
    next_id: Callable[[], int]
    expected: messages.Expected | None = None
    group: str = ""
    owner: str = ""
    clients: dict[int, Client] = field(default_factory=dict)
    gone: bool = False

    @property
    def key(self) -> tuple[int, str]:
        """What it is known by."""
        return self.uid, self.device_id

    def listed(self, *, whole: bool = False) -> messages.Listed:
        """Return it as stock clients list devices.

        :param whole: with what it said of itself.
        """
        expected = self.expected
        return messages.Listed(
            self.device_id,
            group_name=self.group,
            owner=self.owner,
            name=expected.name if expected else "",
            adb_port=expected.adb_port if expected else 0,
            registration_info=self.info if whole else msgspec.UNSET,
        )

    def send(self, message: messages.ToStreamer) -> None:
        """Send it a record."""
        if not self.gone:
            self.records.send(encode(message))

    def enter(self, told: Callable[[bytes], None], lost: Callable[[], None], *, own: bool = False) -> Client:
        """Return a new client of it.

        :param own: the relay's, on which everybody's looking depends.
        :raises TooMany: if there are as many as may be.
        """
        if len(self.clients) >= _MOST_CLIENTS + (_OWN_CLIENTS if own else 0):
            raise TooMany(f"{self.device_id} has {len(self.clients)} clients")
        client = Client(self.next_id(), self, told, lost)
        self.clients[client.id] = client
        return client

    def hear(self, record: bytes) -> None:
        """Pass on what the device says.

        :raises MalformedMessage: if it is nothing that a device may say.
        """
        found: messages.Forward = decode(record, messages.Forward)
        client = self.clients.get(found.client_id)
        # To one that is gone: an error would have a stock streamer register anew.
        if client is not None:
            client.told(bytes(found.payload))

    def end(self) -> None:
        """Tell all clients that it is gone."""
        self.gone = True
        clients, self.clients = list(self.clients.values()), {}
        for client in clients:
            client.gone = True
            client.lost()


class Streamers:
    """Those that there are.

    :param changed: called with a streamer that came or went.
    """

    def __init__(self, changed: Callable[[Streamer], None] = lambda _streamer: None) -> None:
        self._known: dict[tuple[int, str], Streamer] = {}
        self._changed = changed
        # Above any that an earlier relay is likely to have given out, and far from the end of 31 bits.
        self._last = secrets.randbelow(1 << 29)

    def all(self) -> list[Streamer]:
        """Return every streamer, in the order of the devices' ids."""
        return sorted(self._known.values(), key=lambda one: (one.device_id, one.uid))

    def get(self, key: tuple[int, str]) -> Streamer | None:
        """Return a streamer by its user and id."""
        return self._known.get(key)

    def next_id(self) -> int:
        """Return a client's id that was never given out."""
        self._last += 1
        return self._last

    def put(self, streamer: Streamer) -> None:
        """Know a streamer; the one that had its place is gone."""
        before = self._known.get(streamer.key)
        self._known[streamer.key] = streamer
        if before is not None:
            before.end()
            before.records.close()
        self._changed(streamer)

    def drop(self, streamer: Streamer) -> None:
        """Forget a streamer whose connection has ended."""
        if self._known.get(streamer.key) is streamer:
            del self._known[streamer.key]
            streamer.end()
            self._changed(streamer)
