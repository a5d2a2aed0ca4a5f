"""The sessions that browsers have, by the cookie that names each: kept in a file, so that they outlive the relay.

A relay is started again with every update of its package; who was let in before goes on then. A cookie has 256 random
bits, and only its SHA-256 is stored, as of tokens: who reads the file is let in nowhere.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from cfctl import disk
from cfctl.errors import CfctlError
from cfctl.relay.roles import role
from cfctl.relay.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

#: Of one user: a new one takes the place of his oldest, and of nobody else's.
_MOST = 500


@dataclass(frozen=True, slots=True)
class Session:
    """What one browser was let in for.

    :param stored: whether the token is one of the relay's file, where it may be revoked; a link's is nowhere else.
    """

    token: Token
    stored: bool


class Cookies:
    """All sessions of one relay.

    :param path: the file; only one relay has it. What cannot be read of it is taken for no sessions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._read()

    def get(self, name: str) -> Session | None:
        """Return the session of a cookie, which may count no more."""
        return self._known.get(_digest(name)) if name else None

    def add(self, session: Session) -> str:
        """Keep a new session; return its cookie, which nobody can tell again."""
        own = [digest for digest, one in self._known.items() if one.token.user == session.token.user]
        for digest in own[: len(own) - _MOST + 1]:
            del self._known[digest]
        name = secrets.token_urlsafe(32)
        # The digest of the token's own secret is of no use here.
        self._known[_digest(name)] = replace(session, token=replace(session.token, digest=""))
        self._write()
        return name

    def forget(self, name: str) -> None:
        """End the session of a cookie, if there is one."""
        if self._known.pop(_digest(name), None) is not None:
            self._write()

    def sweep(self, counts: Callable[[Session], bool]) -> None:
        """End those that count no more."""
        kept = {digest: one for digest, one in self._known.items() if counts(one)}
        if len(kept) != len(self._known):
            self._known = kept
            self._write()

    def _read(self) -> dict[str, Session]:
        try:
            entries = json.loads(self._path.read_text())["sessions"]
            return {one["digest"]: Session(_token(one["token"]), stored=one["stored"] is True) for one in entries}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CfctlError) as exc:
            log.warning("%s cannot be read, and browsers have to be let in anew: %s", self._path, exc)
            return {}

    def _write(self) -> None:
        """Write the file; where that cannot be, sessions last as long as the relay."""
        entries = [
            {"digest": digest, "stored": one.stored, "token": asdict(one.token)}
            for digest, one in self._known.items()
        ]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk.replace(self._path, json.dumps({"sessions": entries}, indent=1).encode(), mode=0o600)
        except OSError as exc:
            log.warning("%s", disk.error(self._path, exc))


def _token(fields: dict[str, str]) -> Token:
    """Return a token as it was written; one that says nothing is found here, and not when somebody comes with it."""
    token = Token(**fields)
    role(token.role)
    datetime.fromisoformat(token.expires_at)
    return token


def _digest(name: str) -> str:
    # What a browser sends may be anything.
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
