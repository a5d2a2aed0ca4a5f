"""What callers may do: roles, and the role that each call of the API needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cfctl.errors import UsageError


class Role(IntEnum):
    """How far a caller may go; each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """Its name as people write it."""
        return self.name.lower()


def role(word: str) -> Role:
    """Return a role by its name.

    :raises UsageError: if there is none of that name.
    """
    for one in Role:
        if one.word == word:
            return one
    raise UsageError(f"{word!r} is no role", f"Roles: {', '.join(one.word for one in Role)}.")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of the caller of one method.

    :param role: the least that he must be.
    :param recorded: each call is an action, and gets a line in the audit log; refusals always do.
    :param endless: it goes on until the caller ends it: a relay that leaves ends it at once.
    """

    role: Role
    recorded: bool = False
    endless: bool = False


_LOOK = Rule(Role.VIEWER)
_FOLLOW = Rule(Role.VIEWER, endless=True)
_OPERATE = Rule(Role.OPERATOR, recorded=True)

#: Every method that is answered at all; a service that is not here is refused, whoever calls.
RULES = {
    "/cfctl.v1.Devices/List": _LOOK,
    "/cfctl.v1.Devices/Get": _LOOK,
    "/cfctl.v1.Devices/Watch": _FOLLOW,
    "/cfctl.v1.Devices/Logs": Rule(Role.VIEWER, recorded=True, endless=True),
    "/cfctl.v1.Devices/Launch": Rule(Role.ADMIN, recorded=True),
    "/cfctl.v1.Devices/Stop": _OPERATE,
    "/cfctl.v1.Devices/Restart": _OPERATE,
    "/cfctl.v1.Host/Status": _LOOK,
    "/cfctl.v1.Host/Doctor": _LOOK,
    "/cfctl.v1.Control/ListDisplays": _LOOK,
    "/cfctl.v1.Control/GetBalloon": _LOOK,
    "/cfctl.v1.Control/ListUsb": _LOOK,
    "/cfctl.v1.Control/ListVcpus": _LOOK,
    "/cfctl.v1.Control/Screenshot": Rule(Role.VIEWER, recorded=True),
    **{
        f"/cfctl.v1.Control/{name}": _OPERATE
        for name in (
            *("Suspend", "Resume", "PowerButton", "SleepButton", "SetBalloon", "SetBattery"),
            *("AddDisplay", "RemoveDisplay", "PressKey", "TypeText"),
        )
    },
    "/cfctl.v1.Tunnel/Open": Rule(Role.OPERATOR, recorded=True, endless=True),
    "/grpc.health.v1.Health/Check": _LOOK,
    "/grpc.health.v1.Health/Watch": _FOLLOW,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _FOLLOW,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _FOLLOW,
}
