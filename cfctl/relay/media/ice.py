"""STUN and TURN: what viewers, streamers and the relay itself are told of them.

Credentials of TURN are made for each viewer and count for some hours: the user's name with the time at which they
end, and its HMAC with the secret that the TURN server has too (coturn's ``use-auth-secret``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from cfctl.wire.webrtc_messages import Config, IceServer

#: How long credentials count: coturn lets nobody begin with older ones.
TURN_S = 6 * 3600


def credentials(user: str, secret: str, now: float, seconds: int = TURN_S) -> tuple[str, str]:
    """Return a name and a password for TURN (draft-uberti-behave-turn-rest-00)."""
    name = f"{int(now) + seconds}:{user}"
    digest = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()
    return name, base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Ice:
    """The servers of one relay.

    :param stun: addresses as ``stun:HOST:PORT``.
    :param turn: addresses as ``turn:HOST:PORT?transport=udp``.
    :param secret: what the TURN servers have too; read from a file, never told.
    :param relay_only: viewers try no way but TURN: where nothing else is open, waiting for it is lost time.
    """

    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    secret: str = ""
    relay_only: bool = False
    clock: Callable[[], float] = time.time

    def _turn(self, user: str) -> list[IceServer]:
        if not self.turn:
            return []
        if not self.secret:
            return [IceServer(list(self.turn))]
        name, password = credentials(user, self.secret, self.clock())
        return [IceServer(list(self.turn), username=name, credential=password)]

    def _stun(self) -> list[IceServer]:
        return [IceServer(list(self.stun))] if self.stun else []

    def for_viewer(self, user: str) -> Config:
        """Return what a viewer is told."""
        return Config(self._stun() + self._turn(user))

    def for_streamers(self) -> Config:
        """Return what streamers are told: their other side is the relay, or a viewer beyond TURN."""
        return Config(self._stun() + self._turn("streamer"))

    def own(self) -> list[IceServer]:
        """Return what the relay's own connections use: whoever looks from elsewhere has to find it."""
        return self._stun()
