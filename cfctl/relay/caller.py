"""Who calls: the user that a call is made for, and how far it may go."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cfctl.control.operations import Role

if TYPE_CHECKING:
    from cfctl.relay.connection import Connection
    from cfctl.relay.people import User
    from cfctl.relay.tokens import Token


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of one call.

    :param token: what he has shown; None over a unix socket, where the kernel says who he is.
    """

    user: User
    connection: Connection
    token: Token | None = None

    @property
    def role(self) -> Role:
        """How far he may go: with his own devices, a local user may do everything."""
        return self.token.level if self.token else Role.ADMIN

    def sees(self, name: str) -> bool:
        """Tell whether a device of this name exists for him."""
        return self.token is None or fnmatchcase(name, self.token.devices)


_current: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """Return who the call is made by that is being answered."""
    return _current.get()


def set_current(caller: Caller) -> None:
    """Say who the call is made by that is being answered, for the rest of its task."""
    _current.set(caller)
