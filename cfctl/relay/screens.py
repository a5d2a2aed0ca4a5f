"""Which devices a caller may look at, and the one connection that there is to each of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError, NoSuchDevice, UsageError
from cfctl.relay import people
from cfctl.relay.media.hub import Hub
from cfctl.relay.streamers import Streamer, Streamers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.relay.caller import Caller
    from cfctl.relay.lists import Document, Lists
    from cfctl.relay.media.hands import Mode
    from cfctl.relay.media.upstream import Speaker
    from cfctl.wire.webrtc_messages import IceServer


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Screen:
    """A streamer, and the instance of a device that it belongs to.

    :param name: what the device is called, ``NAME`` or ``NAME/2``; the streamer's id where cfctl knows none.
    :param document: the device as ``cfctl ps`` shows it; None for one that cfctl does not know.
    """

    streamer: Streamer
    name: str
    document: Document | None


class Screens:
    """All of them.

    :param servers: STUN and TURN for the relay's own connections.
    """

    def __init__(
        self, streamers: Streamers, lists: Lists, servers: Callable[[], Iterable[IceServer]], mode: Mode
    ) -> None:
        self._streamers = streamers
        self._lists = lists
        self._servers = servers
        self._mode: Mode = mode
        self._hubs: dict[tuple[int, str], Hub] = {}

    def changed(self, streamer: Streamer) -> None:
        """Note that a streamer came or went: whoever looks at it goes on looking when it is there."""
        hub = self._hubs.get(streamer.key)
        if hub is not None and self._streamers.get(streamer.key) is not None:
            hub.returned()

    def hub(self, streamer: Streamer) -> Hub:
        """Return the connection to a device."""
        key = streamer.key
        if key not in self._hubs:

            def enter(told: Callable[[bytes], None], lost: Callable[[], None]) -> Speaker:
                there = self._streamers.get(key)
                if there is None:
                    raise LookupError(f"{key[1]} has no streamer now")
                return there.enter(told, lost, own=True)

            self._hubs[key] = Hub(enter, self._servers, self._mode)
        return self._hubs[key]

    async def close(self) -> None:
        """End every connection."""
        hubs, self._hubs = list(self._hubs.values()), {}
        await asyncio.gather(*(hub.close() for hub in hubs))

    async def devices(self, caller: Caller) -> list[tuple[Document, list[Screen]]]:
        """Return a caller's devices, each with its screens."""
        screens = await self.visible(caller)
        documents = [one for one in await self._documents(caller) or [] if caller.sees(one["name"])]
        return [
            (document, [one for one in screens if one.document and one.document["name"] == document["name"]])
            for document in documents
        ] + [(_unknown(one), [one]) for one in screens if one.document is None]

    async def visible(self, caller: Caller) -> list[Screen]:
        """Return the screens that there are for a caller."""
        documents = await self._documents(caller)
        known = {
            (document["owner"], instance["webrtc_device_id"]): (document, position, len(document["instances"]))
            for document in documents or []
            for position, instance in enumerate(document["instances"], 1)
        }
        found = []
        for streamer in self._streamers.all():
            if not caller.user.is_root and streamer.uid != caller.user.uid:
                continue
            document, position, count = known.get((_owner(streamer), streamer.device_id), (None, 1, 1))
            if document is not None:
                name = document["name"] if count == 1 else f"{document['name']}/{position}"
                if caller.sees(document["name"]):
                    found.append(Screen(streamer, name, document))
            elif _everything(caller) or (documents is not None and caller.sees(streamer.device_id)):
                # What it is called is not known where there is no list: a pattern lets nobody see it then.
                found.append(Screen(streamer, streamer.device_id, None))
        return found

    async def find(self, caller: Caller, wanted: str) -> Screen:
        """Return a screen by the streamer's id, or by the device's name.

        :raises NoSuchDevice: if there is none for the caller.
        """
        screens = await self.visible(caller)
        for matches in (
            lambda one: one.streamer.device_id == wanted and one.streamer.uid == caller.user.uid,
            lambda one: one.streamer.device_id == wanted,
            lambda one: wanted in (one.name, one.name.removesuffix("/1")),
        ):
            for one in screens:
                if matches(one):
                    return one
        raise NoSuchDevice(wanted[:100], [one.name for one in screens])

    async def _documents(self, caller: Caller) -> list[Document] | None:
        try:
            return await self._lists.of(caller.user)
        except CfctlError as error:
            log.warning("%s", error)
            return None


def _everything(caller: Caller) -> bool:
    return caller.token is None or caller.token.devices == "*"


def _unknown(screen: Screen) -> dict[str, Any]:
    return {"name": screen.name, "state": "running", "owner": _owner(screen.streamer), "instances": []}


def _owner(streamer: Streamer) -> str:
    try:
        return people.by_uid(streamer.uid).name
    except UsageError:
        return str(streamer.uid)
