"""The relays that a user knows: where each is, the certificate that it was pinned to, and the token for it.

They lie in one file that only the user may read. It is written whole, under a lock, so that two verbs at once lose
nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cfctl import disk, locks, paths
from cfctl.errors import CfctlError, NoSuchContext, UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: What `--relay` and `context use` take for this machine itself, without a relay.
LOCAL = "local"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

#: sha256sum's and openssl's ways to write it.
_FINGERPRINT = re.compile(r"(?:sha-?256[:=]?)?([0-9a-f]{64})")

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Context:
    """One relay.

    :param name: what the user calls it.
    :param address: ``HOST:PORT`` or ``unix:PATH``.
    :param fingerprint: SHA-256 of its certificate, in hex; empty for a unix socket, where the kernel vouches.
    :param certificate: the certificate itself, PEM.
    :param server_name: a name that is in it, which TLS wants to find there.
    :param token: what is shown at each call; empty for a unix socket.
    """

    name: str
    address: str
    fingerprint: str = ""
    certificate: str = ""
    server_name: str = ""
    token: str = ""

    @property
    def is_local_socket(self) -> bool:
        """Whether it is a unix socket of this machine."""
        return self.address.startswith(_UNIX)

    def as_dict(self, *, current: bool) -> dict[str, Any]:
        """Return it as the ``--json`` contract shows it (docs/schema/contexts.json): never the token."""
        return {
            "name": self.name,
            "address": self.address,
            "fingerprint": self.fingerprint or None,
            "token": bool(self.token),
            "current": current,
        }


@dataclass(frozen=True, slots=True)
class Book:
    """All contexts of a user.

    :param current: the name of the one that verbs are for when none is named; empty is this machine itself.
    """

    contexts: tuple[Context, ...] = ()
    current: str = ""

    def get(self, name: str, *, make: bool = True) -> Context:
        """Return the context of a name.

        :param make: where there is none, making it may be what is wanted.
        :raises NoSuchContext: if there is none.
        """
        for context in self.contexts:
            if context.name == name:
                return context
        raise NoSuchContext(name, [context.name for context in self.contexts], make=make)


def address(text: str) -> str:
    """Return an address as it is written down.

    :raises UsageError: if it is none.
    """
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX).removeprefix("//")
        if not path.startswith("/"):
            raise UsageError(f"{text!r} is no address", "A socket's path is absolute: unix:/run/cfctl/relay.sock")
        return _UNIX + path
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    whole = colon and bare and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 1 << 16
    if not whole or (":" in bare) != (host != bare) or re.search(r"[\s/@]", host):
        raise UsageError(
            f"{text!r} is no address of a relay",
            "Write HOST:PORT, [IPV6]:PORT or unix:PATH.",
            "A relay prints its address when it starts: cfctl relay serve --grpc 0.0.0.0:7070",
        )
    return f"{host}:{int(port)}"


def parts(where: str) -> tuple[str, int]:
    """Return host and port of an address that is no socket's path."""
    host, _, port = where.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def fingerprint(text: str) -> str:
    """Return a fingerprint as it is compared: 64 hex digits.

    :raises UsageError: if it is none.
    """
    match = _FINGERPRINT.fullmatch(re.sub(r"[:\s]", "", text.strip().lower().removeprefix("sha256 fingerprint=")))
    if match is None:
        raise UsageError(
            "that is no SHA-256 fingerprint", "It has 64 hex digits.", "The relay shows its own: cfctl relay status"
        )
    return match[1]


def name(text: str) -> str:
    """Return a name that a context may have.

    :raises UsageError: for any other.
    """
    if not _NAME.fullmatch(text) or text == LOCAL:
        raise UsageError(
            f"a context cannot be called {text!r}",
            f"{LOCAL} is this machine itself." if text == LOCAL else "Letters, digits, _ . and -, 63 at most.",
        )
    return text


# -- the file ----------------------------------------------------------------------------------------------


def load() -> Book:
    """Read the contexts of this user.

    :raises CfctlError: if the file is not what cfctl writes.
    """
    path = paths.current().contexts
    try:
        raw = json.loads(path.read_text())
        known = {field.name for field in fields(Context)}
        rows = [{key: str(value) for key, value in row.items() if key in known} for row in raw["contexts"]]
        return Book(tuple(Context(**row) for row in rows), str(raw["current"]))
    except FileNotFoundError:
        return Book()
    except OSError as exc:
        raise CfctlError(f"{path} cannot be read: {exc.strerror}", None, f"Look at it: ls -l {path}") from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise CfctlError(
            f"{path} is damaged",
            f"{type(exc).__name__}: {exc}",
            f"Take it away, and add the contexts again: rm {path}",
        ) from exc


def add(context: Context) -> Book:
    """Keep a context; one of the same name is replaced."""
    with locks.exclusive(_lock()):
        book = load()
        others = tuple(one for one in book.contexts if one.name != context.name)
        return _save(replace(book, contexts=(*others, context)))


def remove(which: str) -> Book:
    """Forget a context, with its token.

    :raises NoSuchContext: if there is none of that name.
    """
    with locks.exclusive(_lock()):
        book = load()
        gone = book.get(which, make=False)
        left = tuple(one for one in book.contexts if one is not gone)
        return _save(Book(left, "" if book.current == which else book.current))


def use(which: str) -> Book:
    """Have verbs be for a context when none is named; ``local`` is this machine itself again.

    :raises NoSuchContext: if there is none of that name.
    """
    with locks.exclusive(_lock()):
        book = load()
        return _save(replace(book, current="" if which == LOCAL else book.get(which).name))


def _lock() -> Path:
    path = paths.current().contexts
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.with_name(".contexts.lock")


def _save(book: Book) -> Book:
    path = paths.current().contexts
    document = {"current": book.current, "contexts": [asdict(context) for context in book.contexts]}
    try:
        # Never readable for others, not even for a moment.
        disk.replace(path, json.dumps(document, indent=1).encode(), mode=0o600)
    except OSError as exc:
        raise disk.error(path, exc) from exc
    return book
