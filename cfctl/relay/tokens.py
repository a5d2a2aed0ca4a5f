"""Tokens: who may call the relay over the network, as which user, and how far he may go.

A secret has 256 random bits, so its SHA-256 is as good as any slow hash, and all that is stored. It is shown once,
when it is made. The file is read again whenever it has changed: a revoked token ends at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cfctl import disk
from cfctl.control.operations import Role
from cfctl.errors import CfctlError, UsageError
from cfctl.relay.roles import role, word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Says what it is to whoever finds one, and to programs that look for secrets in repositories.
_PREFIX = "cfctl"
_SECRET = re.compile(rf"{_PREFIX}_(?P<id>[0-9a-f]{{8}})_(?P<random>[A-Za-z0-9_-]{{43}})")
_RANDOM_BYTES = 32

_TTL = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=366)

#: As long as no device's name may be, with room for brackets.
_LONGEST_PATTERN = 200


@dataclass(frozen=True, slots=True)
class Token:
    """What a token allows; the secret itself is nowhere.

    :param id: names it in lists and logs.
    :param digest: SHA-256 of the secret, in hex.
    :param user: whose devices it is for, and as whom it acts.
    :param devices: a pattern (fnmatch): devices of other names do not exist for it.
    :param created_at: RFC 3339, as ``expires_at``.
    """

    id: str
    digest: str
    user: str
    role: str
    devices: str
    created_at: str
    expires_at: str

    @property
    def level(self) -> Role:
        """Its role."""
        return role(self.role)

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return datetime.now(UTC) >= datetime.fromisoformat(self.expires_at)

    def as_dict(self) -> dict[str, Any]:
        """Return the token as lists show it: without what is stored of its secret."""
        document = asdict(self)
        del document["digest"]
        return document | {"expired": self.expired}


def lifetime(text: str) -> timedelta:
    """Read how long a token counts: ``90s``, ``30m``, ``8h``, ``7d``.

    :raises UsageError: for anything else, nothing at all, or more than a year.
    """
    match = _TTL.fullmatch(text)
    found = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < found <= _LONGEST:
        raise UsageError(
            f"{text!r} is no time that a token can count", "Write 90s, 30m, 8h or 7d; a year (366d) is the longest."
        )
    return found


def make(*, user: str, level: Role, devices: str, ttl: timedelta) -> tuple[Token, str]:
    """Return a new token, and its secret, which nobody can show again.

    :raises UsageError: for a pattern that no name can be compared with.
    """
    if not devices or len(devices) > _LONGEST_PATTERN or not devices.isprintable() or not devices.isascii():
        raise UsageError(f"{devices!r} is no pattern for names of devices", "Write *, phone, or farm-*.")
    id_ = secrets.token_hex(4)
    secret = f"{_PREFIX}_{id_}_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    now = datetime.now(UTC)
    token = Token(id_, _digest(secret), user, word(level), devices, _time(now), _time(now + ttl))
    return token, secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _time(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


class Store:
    """The tokens of one relay, in a file that is its user's alone.

    :param path: made when the first token is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._known: dict[str, Token] = {}

    def all(self) -> list[Token]:
        """Return every token, expired ones too, the newest last.

        :raises CfctlError: if the file cannot be read.
        """
        self._refresh()
        return sorted(self._known.values(), key=lambda token: (token.created_at, token.id))

    def get(self, id_: str) -> Token | None:
        """Return a token that is there and has not expired."""
        self._refresh()
        token = self._known.get(id_)
        return None if token is None or token.expired else token

    def recognize(self, secret: str) -> Token | None:
        """Return the token that a secret is of; None if there is none, or it has expired."""
        match = _SECRET.fullmatch(secret)
        token = self.get(match["id"]) if match else None
        # Compared in any case, so that nobody can measure which ids there are.
        same = hmac.compare_digest(_digest(secret[:200]), token.digest if token else "0" * 64)
        return token if same else None

    def add(self, token: Token) -> None:
        """Keep a token.

        :raises CfctlError: if the file cannot be written; it is as it was.
        """
        with self._changing() as known:
            known[token.id] = token

    def revoke(self, id_: str, *, user: str | None = None) -> Token:
        """Forget a token; calls that it was shown for end.

        :param user: only if it is this user's; None is anybody's.
        :raises UsageError: if there is none.
        """
        with self._changing() as known:
            token = known.get(id_)
            if token is None or (user is not None and token.user != user):
                raise UsageError(f"there is no token {id_!r}", None, "List them: cfctl relay token list")
            return known.pop(id_)

    def _refresh(self) -> None:
        try:
            about = self._path.stat()
        except FileNotFoundError:
            self._seen, self._known = (), {}
            return
        except OSError as exc:
            raise CfctlError(f"{self._path} cannot be read: {exc.strerror}") from exc
        seen = (about.st_ino, about.st_size, about.st_mtime_ns)
        if seen != self._seen:
            self._known = self._read()
            self._seen = seen

    def _read(self) -> dict[str, Token]:
        try:
            entries = json.loads(self._path.read_text())["tokens"]
            return {entry["id"]: Token(**entry) for entry in entries}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise CfctlError(
                f"{self._path} cannot be read",
                str(exc),
                f"Without it no token counts; take it away, and make new ones: mv {self._path} {self._path}.broken",
            ) from exc

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Hold the file for the block, and write what became of its tokens; expired ones go after a day."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise disk.error(self._path.parent, exc) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._read()
            yield known
            long_ago = _time(datetime.now(UTC) - timedelta(days=1))
            kept = [asdict(token) for token in known.values() if token.expires_at > long_ago]
            try:
                disk.replace(self._path, json.dumps({"tokens": kept}, indent=1).encode(), mode=0o600)
            except OSError as exc:
                raise disk.error(self._path, exc) from exc
        finally:
            os.close(lock)
