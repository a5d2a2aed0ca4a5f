"""What callers may do: roles, and the role that each call of the API needs."""

from __future__ import annotations

from dataclasses import dataclass

from cfctl.control.operations import TABLE, Role
from cfctl.errors import UsageError


def word(level: Role) -> str:
    """Return a role's name as people write it."""
    return level.name.lower()


def role(name: str) -> Role:
    """Return a role by its name.

    :raises UsageError: if there is none of that name.
    """
    for one in Role:
        if word(one) == name:
            return one
    raise UsageError(f"{name[:50]!r} is no role", f"Roles: {', '.join(map(word, Role))}.")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of the caller of one method.

    :param role: the least that he must be.
    :param recorded: each call is an action, and gets a line in the audit log; refusals always do.
    :param endless: it goes on until the caller ends it: a relay that leaves ends it at once.
    :param here: for callers on the relay's own host alone, whatever token is shown.
    """

    role: Role
    recorded: bool = False
    endless: bool = False
    here: bool = False


#: Which operation of the table each method of the service Control does; SetBattery does any of the battery's, and
#: SetSwap any that changes what is swapped.
OPERATIONS = {
    "Suspend": "suspend",
    "Resume": "resume",
    "PowerButton": "powerbtn",
    "SleepButton": "sleepbtn",
    "GetBalloon": "balloon.stats",
    "SetBalloon": "balloon.set",
    "GetWorkingSet": "balloon.working-set",
    "SetBattery": "battery.capacity",
    "ListDisplays": "display.list",
    "AddDisplay": "display.add",
    "RemoveDisplay": "display.remove",
    "Screenshot": "display.screenshot",
    "ListUsb": "usb.list",
    "DetachUsb": "usb.detach",
    "ResizeDisk": "disk.resize",
    "GetSwap": "swap.status",
    "SetSwap": "swap.enable",
    "ListVcpus": "vcpus",
    "PressKey": "key",
    "TypeText": "text",
}


def named(method: str) -> str:
    """Return what a method does, in the words of the command line."""
    last = method.rpartition("/")[2]
    words = {"Open": "adb and the console", **{key: value.replace(".", " ") for key, value in OPERATIONS.items()}}
    return words.get(last, last.lower())


def _operating(name: str) -> Rule:
    """Return the rule of an operation: its role stands in the table; more than a look is an action."""
    level = Role(TABLE[name].role)
    return Rule(level, recorded=level > Role.VIEWER or name == "display.screenshot")


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
    **{f"/cfctl.v1.Control/{method}": _operating(name) for method, name in OPERATIONS.items()},
    "/cfctl.v1.Tunnel/Open": Rule(Role.OPERATOR, recorded=True, endless=True),
    "/cfctl.v1.Relay/Status": Rule(Role.VIEWER, here=True),
    "/cfctl.v1.Relay/ListTokens": Rule(Role.VIEWER, here=True),
    "/cfctl.v1.Relay/CreateToken": Rule(Role.ADMIN, recorded=True, here=True),
    "/cfctl.v1.Relay/RevokeToken": Rule(Role.ADMIN, recorded=True, here=True),
    "/cfctl.v1.Relay/OpenScreen": Rule(Role.VIEWER, recorded=True, here=True),
    "/grpc.health.v1.Health/Check": _LOOK,
    "/grpc.health.v1.Health/Watch": _FOLLOW,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _FOLLOW,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _FOLLOW,
}
