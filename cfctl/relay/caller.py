"""Who calls: the user that a call is made for, and how far it may go."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

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

    @property
    def share(self) -> tuple[int, bool]:
        """Whose share of the calls this one is of: those from elsewhere must not keep the user himself out."""
        return self.user.uid, self.token is not None

    def sees(self, name: str) -> bool:
        """Tell whether a device of this name exists for him."""
        return self.token is None or fnmatchcase(name, self.token.devices)


@dataclass(slots=True)
class About:
    """What a call is about, for the log.

    :param device: its name; empty as long as it is not known.
    :param more: what else is to be written down at its end.
    """

    device: str = ""
    more: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[Caller] = ContextVar("caller")
_about: ContextVar[About] = ContextVar("about")


def current() -> Caller:
    """Return who the call is made by that is being answered."""
    return _current.get()


def about() -> About:
    """Return what the call is about that is being answered."""
    return _about.get()


def set_current(caller: Caller, about: About) -> None:
    """Say who the call is made by that is being answered, and what it is about, for the rest of its task."""
    _current.set(caller)
    _about.set(about)
