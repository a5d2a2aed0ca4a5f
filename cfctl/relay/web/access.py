"""Who looks at a page of the relay: tokens, one-time links, and the session that a browser has afterwards.

A secret never stands in an address that a browser sends: a link has its code behind the ``#``, and a page of ours
hands it over once. The session's cookie is of no use to other sites (SameSite), nor to scripts (HttpOnly); what
changes anything, and every WebSocket, must come from a page of this very origin.
"""

from __future__ import annotations

import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cfctl.control.operations import Role
from cfctl.errors import CfctlError, NotAllowed, TokenRefused, UsageError
from cfctl.relay import people
from cfctl.relay.caller import Caller
from cfctl.relay.connection import Connection, peer_of
from cfctl.relay.roles import role, word
from cfctl.relay.tokens import Store, Token
from cfctl.relay.web.cookies import Cookies, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.relay.people import User

log = logging.getLogger(__name__)

COOKIE = "cfctl_session"

#: How long a link waits for its one use.
LINK_S = 300.0

#: Said to whoever was let in once, or never.
_OVER = "The token or link counts no more. Open a link that is new: cfctl open NAME"

#: How long a browser stays let in by a link; a token's own time counts otherwise.
_SESSION = timedelta(hours=12)

#: Of one user: a new one takes the place of his oldest, and of nobody else's.
_MOST_LINKS = 100

#: Addresses of which it is remembered that they were wrong; an IPv6 network has any number of them.
_MOST_REFUSED = 10_000

#: Wrong secrets of one address within a minute, before it has to wait.
_REFUSALS = 20
_REFUSED_S = 60


class Access:
    """Lets browsers and programs in.

    :param own: the user that the relay runs as; only root serves others.
    """

    def __init__(self, own: User, store: Store, cookies: Cookies) -> None:
        self._own = own
        self._store = store
        self._cookies = cookies
        self._links: dict[str, tuple[float, Token]] = {}
        self._refused: dict[str, list[float]] = {}

    # -- links ---------------------------------------------------------------------------------------------

    def link(self, user: User, level: Role, devices: str) -> str:
        """Return the code of a new link: it lets one browser in, once, for some hours."""
        now = datetime.now(UTC)
        token = Token(
            id=f"link-{secrets.token_hex(4)}",
            digest="",
            user=user.name,
            role=word(level),
            devices=devices,
            created_at=now.isoformat(timespec="seconds"),
            expires_at=(now + _SESSION).isoformat(timespec="seconds"),
        )
        self._forget_old()
        own = [code for code, (_, one) in self._links.items() if one.user == user.name]
        for code in own[: len(own) - _MOST_LINKS + 1]:
            del self._links[code]
        code = secrets.token_urlsafe(32)
        self._links[code] = time.monotonic() + LINK_S, token
        return code

    def _forget_old(self) -> None:
        now = time.monotonic()
        for code in [code for code, (until, _) in self._links.items() if until < now]:
            del self._links[code]
        self._cookies.sweep(lambda session: self._counts(session, unsure=True))

    # -- sessions ------------------------------------------------------------------------------------------

    def begin(self, peer: str, *, code: str = "", secret: str = "") -> tuple[str, Token]:
        """Return a new session's name, for whoever has a link's code or a token.

        :raises TokenRefused: if it is neither, is used up, or too many were wrong.
        """
        self._patience(peer)
        until, token = self._links.pop(code, (0.0, None)) if code else (0.0, None)
        if token is not None and until < time.monotonic():
            token = None
        stored = token is None
        if token is None and secret:
            token = self._recognized(secret)
        if token is None:
            self._wrong(peer)
            raise TokenRefused(
                "The link was used, or is too old."
                if code
                else "The relay does not know that token, or it has expired or was revoked."
            )
        self._forget_old()
        return self._cookies.add(Session(token, stored)), token

    def end(self, name: str) -> None:
        """Forget a session."""
        self._cookies.forget(name)

    def _counts(self, session: Session, *, unsure: bool = False) -> bool:
        return self._known(session.token.id, unsure=unsure) if session.stored else not session.token.expired

    def _known(self, id_: str, *, unsure: bool) -> bool:
        """Tell whether a token is there still.

        :param unsure: what is returned while nobody can tell: nobody is let in then, and nobody put out.
        """
        try:
            return self._store.get(id_) is not None
        except CfctlError as error:
            log.warning("%s", error)
            return unsure

    def _recognized(self, secret: str) -> Token | None:
        """Return the token of a secret; what is wrong with the file is for our own log, not for strangers."""
        try:
            return self._store.recognize(secret)
        except CfctlError as error:
            log.warning("%s", error)
            return None

    def _wrong(self, peer: str) -> None:
        """Remember that an address has shown something that does not count."""
        now = time.monotonic()
        if peer not in self._refused and len(self._refused) >= _MOST_REFUSED:
            self._refused = {one: at for one, at in self._refused.items() if now - at[-1] < _REFUSED_S}
            if len(self._refused) >= _MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
        self._refused.setdefault(peer, []).append(now)

    def _patience(self, peer: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._refused.get(peer, []) if now - at < _REFUSED_S]
        if recent:
            self._refused[peer] = recent
        else:
            self._refused.pop(peer, None)
        if len(recent) >= _REFUSALS:
            raise TokenRefused("Too many were wrong; try again in a minute.")

    # -- requests ------------------------------------------------------------------------------------------

    def admit(self, remote: str, cookie: str, authorization: str) -> Caller:
        """Return who asks.

        :raises TokenRefused: if he shows nothing that counts.
        """
        peer = _peer(remote)
        kind, _, secret = authorization.partition(" ")
        if kind.lower() == "bearer":
            self._patience(peer)
            token = self._recognized(secret.strip())
            if token is None:
                self._wrong(peer)
                raise TokenRefused
        else:
            session = self._cookies.get(cookie)
            if session is None or not self._counts(session):
                raise TokenRefused(_OVER)
            token = session.token
        return self.caller(remote, token)

    def caller(self, remote: str, token: Token) -> Caller:
        """Return whom a token makes of somebody.

        :raises TokenRefused: if its user is gone, or not served here.
        """
        try:
            user = people.by_name(token.user)
        except UsageError:
            raise TokenRefused from None
        if not self._own.is_root and user.uid != self._own.uid:
            raise TokenRefused
        return Caller(user, Connection(0, remote, _peer(remote), None), token)

    def still(self, caller: Caller) -> bool:
        """Tell whether what a caller has shown still counts."""
        token = caller.token
        if token is None:
            return False
        return not token.expired if token.id.startswith("link-") else self._known(token.id, unsure=True)


def require(caller: Caller, least: Role, what: str) -> None:
    """Let a caller do something, if his role goes that far.

    :raises NotAllowed: otherwise.
    """
    if caller.role < least:
        raise NotAllowed(
            f"the role {word(caller.role)} may not do that: {what}",
            f"It takes the role {word(least)}.",
            f"Have a link made with it: cfctl open NAME --role {word(least)}",
        )


def same_origin(headers: Mapping[str, str], *, bearer: bool) -> bool:
    """Tell whether a request comes from a page of this relay, or from a program that shows its token itself.

    :param bearer: whether it shows a token; a browser never adds one to what another site asks for.
    """
    origin = headers.get("Origin")
    if origin is None:
        return bearer
    host = headers.get("Host", "")
    found = urlsplit(origin)
    return found.scheme in ("http", "https") and bool(host) and found.netloc.lower() == host.lower()


def level(name: str, most: Role) -> Role:
    """Return the role that a link is to have.

    :raises UsageError: if there is none of that name.
    :raises NotAllowed: if it goes further than whoever has it made.
    """
    found = role(name or "operator")
    if found > most:
        raise NotAllowed(f"a link with the role {name} goes further than you may")
    return found


def _peer(remote: str) -> str:
    try:
        return peer_of(remote)
    except ValueError:
        return remote
