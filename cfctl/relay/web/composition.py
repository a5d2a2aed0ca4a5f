"""The screens' part of a relay, put together: streamers register, the hub passes on, pages show."""

from __future__ import annotations

import logging
from glob import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from cfctl.errors import NoSuchDevice
from cfctl.relay.media import rtc
from cfctl.relay.media.ice import Ice
from cfctl.relay.roles import word
from cfctl.relay.screens import Screens
from cfctl.relay.signaling import Signaling
from cfctl.relay.streamers import Streamer, Streamers
from cfctl.relay.web.access import LINK_S, Access, level
from cfctl.relay.web.console import Consoles
from cfctl.relay.web.cookies import Cookies
from cfctl.relay.web.server import Web
from cfctl.v1 import relay_pb2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from cfctl.relay.audit import Audit
    from cfctl.relay.caller import Caller
    from cfctl.relay.connection import Connection
    from cfctl.relay.lists import Lists
    from cfctl.relay.media.hands import Mode
    from cfctl.relay.people import User
    from cfctl.relay.tokens import Store
    from cfctl.relay.tunnel import Resolver
    from cfctl.wire.webrtc_messages import Config

log = logging.getLogger(__name__)


class WebSide:
    """All of it.

    :param connection: returns a connection of the front's by its name.
    :param own: the user that the relay runs as.
    :param sessions: the file that keeps browsers' sessions.
    :param ways: finds the way to a device's console, and to its adb.
    :param url: where a browser finds it.
    :param mode: whether one viewer controls a device at a time, or all that may.
    """

    def __init__(
        self,
        *,
        connection: Callable[[str], Connection | None],
        own: User,
        tokens: Store,
        sessions: Path,
        lists: Lists,
        ways: Resolver,
        audit: Audit,
        ice: Ice,
        mode: Mode,
        url: str,
        secure: bool,
    ) -> None:
        rtc.install()
        # It tells of every candidate and packet that could not be sent.
        for name in ("aioice", "aiortc"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.url = url
        self._ice = ice
        self._lists = lists
        self.access = Access(own, tokens, Cookies(sessions))
        self._streamers = Streamers(self._changed)
        self._screens = Screens(self._streamers, lists, ice.own, mode)
        self._signaling = Signaling(self._streamers, ice.for_streamers)
        self._web = Web(
            connection=connection,
            access=self.access,
            screens=self._screens,
            consoles=Consoles(ways),
            ways=ways,
            config=self._config,
            audit=audit,
            secure=secure,
        )

    def _changed(self, streamer: Streamer) -> None:
        self._screens.changed(streamer)

    def _config(self, caller: Caller) -> tuple[Config, bool]:
        return self._ice.for_viewer(caller.user.name), self._ice.relay_only

    async def link(self, caller: Caller, name: str, role: str) -> relay_pb2.Link:
        """Return a link that lets one browser in: to one device, or to all that the caller has.

        :raises NoSuchDevice: if there is no such device for him.
        :raises UsageError: for a role that there is not.
        """
        device = ""
        if name:
            try:
                device = (await self._screens.find(caller, name)).name
            except NoSuchDevice:
                # One that shows no screen now may show one when the link is opened.
                found = await self._lists.find(caller, name)
                device = name if found.position else found.document["name"]
        found_role = level(role, caller.role)
        pattern = escape(device.partition("/")[0]) if device else "*"
        code = self.access.link(caller.user, found_role, pattern)
        return relay_pb2.Link(
            url=f"{self.url}/enter#" + urlencode({"code": code, "device": device}),
            device=device,
            role=word(found_role),
            seconds=int(LINK_S),
        )

    async def serve(
        self,
        inside: Path,
        registrations: socket.socket,
        announcements: socket.socket,
    ) -> None:
        """Begin to answer, and to take registrations.

        :param inside: the unix socket that pages and endpoints are asked for on; browsers come by the front.
        :param registrations: this one's from now on, as the next one.
        """
        self._signaling.listen(registrations, announcements)
        await self._web.serve(inside)

    async def close(self) -> None:
        """End everything: viewers first, so that nothing is held down on any device."""
        await self._screens.close()
        await self._web.close()
        await self._signaling.close()
