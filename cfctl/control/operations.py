"""What a running VM can be asked for: one table, which the command line and the relay both read.

A request that comes from outside becomes an :class:`Operation` only by way of this table, so nothing that is not in
it reaches a VM's sockets, and no value that is out of its limits does. What a VM manager cannot do is known here
too, and said before anything is sent (:func:`refusal`). Facts: vm_control.md sections 1.3 (crosvm) and 5 (QEMU).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final

from cfctl.control.faults import VmCannot
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Manager(StrEnum):
    """What runs the VM, as the launchers' configs call it (``vm_manager``)."""

    CROSVM = "crosvm"
    QEMU = "qemu_cli"

    @property
    def called(self) -> str:
        """Its name for people."""
        return {Manager.CROSVM: "crosvm", Manager.QEMU: "QEMU"}[self]


class Role(IntEnum):
    """Who may ask, over the relay; each may do what those before it may. Who owns the device may do everything."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


#: crosvm cuts numbers at 64 bits; a PiB is beyond any VM.
_MOST_BYTES = 1 << 50

#: crosvm's limits (vm_control.md sections 1.3 and 1.4).
USB_PORTS: Final = 16
SCANOUTS: Final = 16

#: For a raw request, as for any packet on crosvm's socket (vm_control.md section 7).
LONGEST_PACKET: Final = 64 << 10

#: More is a mistake, or better sent by adb.
_LONGEST_TEXT = 1000

REQUIRED: Final = object()

_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,18})([kmgt]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an operation.

    :param name: lower case, with dashes.
    :param help: what it is, for people.
    :param kind: of its value: ``int``, ``bool`` or ``str``.
    :param default: what it is when it is not given.
    :param least: of a number.
    :param most: of a number; of a text, how long it may be.
    :param size: a number of bytes, which people may write as ``512M``.
    :param choices: all values that there are.
    :param pattern: what a text must look like, whole.
    """

    name: str
    help: str
    kind: type[int] | type[bool] | type[str]
    default: Any = REQUIRED
    least: int = 0
    most: int = (1 << 32) - 1
    size: bool = False
    choices: tuple[str, ...] = ()
    pattern: str | None = None

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    def read(self, raw: object) -> Any:
        """Return the value of what was given: of this kind already, or as people write it.

        :raises UsageError: if it is none, or outside of its limits.
        """
        if self.kind is bool:
            value = raw if isinstance(raw, bool) else _TRUTHS.get(str(raw).lower())
            if value is None:
                raise self._wrong(raw, "true or false is needed")
            return value
        if self.kind is int:
            number = self._number(raw)
            if number is None:
                raise self._wrong(raw, "a size is needed, such as 512M" if self.size else "a whole number is needed")
            if not self.least <= number <= self.most:
                raise self._wrong(raw, f"it must be {self.least} to {self.most}")
            return number
        return self._text(raw)

    def _number(self, raw: object) -> int | None:
        if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        if not isinstance(raw, str) or not raw.isascii():
            return None
        if self.size:
            return int(match[1]) * _UNITS[match[2].lower()] if (match := _SIZE.fullmatch(raw)) else None
        return int(raw) if re.fullmatch(r"-?\d{1,18}", raw) else None

    def _text(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise self._wrong(raw, "a text is needed")
        if self.choices and raw not in self.choices:
            raise self._wrong(raw, f"one of these is needed: {', '.join(self.choices)}")
        if len(raw.encode(errors="surrogateescape")) > self.most:
            raise UsageError(f"{self.name} is longer than {self.most} bytes")
        if self.pattern and not re.fullmatch(self.pattern, raw):
            raise self._wrong(raw, self.help)
        return raw

    def _wrong(self, raw: object, why: str) -> UsageError:
        return UsageError(f"{self.name} {str(raw)[:100]!r}: {why}")


@dataclass(frozen=True, slots=True)
class Cannot:
    """Why a VM manager cannot do something, and what does it instead (NAME is the device)."""

    reason: str
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One operation of the table.

    :param name: words joined by dots: ``balloon.set`` is ``cfctl control NAME balloon set``.
    :param summary: for people, one line.
    :param role: who may ask for it over the relay.
    :param reaches_host: it gives the caller more of the host than the VM: never relayed.
    :param cannot: the VM managers that cannot do it.
    :param needs: what the device must have been launched with, by VM manager.
    :param control: a verb below ``cfctl control``; the others have verbs of their own.
    :param seconds: how long it may take, unless the caller says.
    """

    name: str
    summary: str
    role: Role
    arguments: tuple[Argument, ...] = ()
    reaches_host: bool = False
    cannot: Mapping[Manager, Cannot] = field(default_factory=dict)
    needs: Mapping[Manager, str] = field(default_factory=dict)
    control: bool = True
    seconds: float = 15.0

    @property
    def words(self) -> tuple[str, ...]:
        """As people write it."""
        return tuple(self.name.split("."))

    @property
    def relayed(self) -> bool:
        """Whether a relay does it for somebody elsewhere."""
        return not self.reaches_host

    def can(self, manager: Manager) -> bool:
        """Tell whether a VM manager can do it, if its version can."""
        return manager not in self.cannot


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that is asked for, with values that were checked; made by :func:`operation` only.

    :param values: one for each argument of the table, by name.
    """

    spec: Spec
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.spec.name

    def __getitem__(self, argument: str) -> Any:
        return self.values[argument]


# -- the table ---------------------------------------------------------------------------------------------

_NO_BATTERY = {
    Manager.QEMU: Cannot(
        "QEMU gives a guest no battery.",
        "Have Android pretend: cfctl adb NAME shell dumpsys battery set level 50",
    )
}
_NO_SWAP = {
    Manager.QEMU: Cannot(
        "Swapping a guest's memory out is crosvm's own.", "Take memory instead: cfctl control NAME balloon set 512M"
    )
}
_NO_HOTPLUG = {
    Manager.QEMU: Cannot(
        "The screens of QEMU are fixed when it starts.",
        "Give the displays at the launch: cfctl launch NAME -- --display0=width=1280,height=800",
    )
}
_NO_KEYS = Cannot(
    "crosvm's socket takes no input: keys come from the streamer.",
    "By Android: cfctl adb NAME shell input keyevent KEYCODE_HOME",
)
_GOLDFISH = {Manager.CROSVM: "a battery: crosvm run --battery, which Cuttlefish does not give today"}
_USB = {Manager.CROSVM: "--enable_usb=true", Manager.QEMU: "a controller named xhci"}
_BALLOON = {Manager.CROSVM: "--crosvm_use_balloon=true", Manager.QEMU: "a balloon"}
_SWAP = {Manager.CROSVM: "swapping: crosvm run --swap"}
_PORT = Argument("port", "of the device, as usb list says", int, least=1, most=USB_PORTS - 1)
_PERCENT = Argument("percent", "0 to 100", int, most=100)

#: Statuses and healths of a battery, and the words of crosvm's command line for them.
BATTERY_STATUS = {
    "unknown": "Unknown",
    "charging": "Charging",
    "discharging": "DisCharging",
    "notcharging": "NotCharging",
    "full": "Full",
}
BATTERY_HEALTH = {
    "unknown": "Unknown",
    "good": "Good",
    "overheat": "Overheat",
    "dead": "Dead",
    "overvoltage": "OverVoltage",
    "unexpectedfailure": "UnexpectedFailure",
    "cold": "Cold",
    "watchdogtimerexpire": "WatchdogTimerExpire",
    "safetytimerexpire": "SafetyTimerExpire",
    "overcurrent": "OverCurrent",
}


def _battery(name: str, summary: str, *arguments: Argument) -> Spec:
    return Spec(f"battery.{name}", summary, Role.OPERATOR, arguments, cannot=_NO_BATTERY, needs=_GOLDFISH)


def _swap(name: str, summary: str, *arguments: Argument, role: Role = Role.OPERATOR) -> Spec:
    return Spec(f"swap.{name}", summary, role, arguments, cannot=_NO_SWAP, needs=_SWAP)


TABLE: Final = {
    spec.name: spec
    for spec in (
        Spec("suspend", "stop the processors", Role.OPERATOR, control=False, seconds=60),
        Spec("resume", "let the processors go on", Role.OPERATOR, control=False, seconds=60),
        Spec("powerbtn", "press the power button", Role.OPERATOR, control=False),
        Spec(
            "sleepbtn",
            "press the sleep button",
            Role.OPERATOR,
            cannot={
                Manager.QEMU: Cannot("QEMU's machines have no sleep button.", "The key: cfctl control NAME key sleep")
            },
        ),
        Spec("balloon.stats", "how much memory the guest has and uses", Role.VIEWER, needs=_BALLOON),
        Spec(
            "balloon.set",
            "take memory from the guest, or give it back",
            Role.OPERATOR,
            (
                Argument("bytes", "how much is taken away; 0 gives all back", int, most=_MOST_BYTES, size=True),
                Argument("wait", "until the guest has done it", bool, default=False),
            ),
            needs=_BALLOON,
            seconds=60,
        ),
        Spec(
            "balloon.working-set",
            "which of its memory the guest has used lately",
            Role.VIEWER,
            cannot={Manager.QEMU: Cannot("QEMU's balloon does not tell.", "cfctl control NAME balloon stats")},
            needs=_BALLOON,
        ),
        _battery("status", "say what the battery does", Argument("status", "", str, choices=tuple(BATTERY_STATUS))),
        _battery("health", "say how the battery is", Argument("health", "", str, choices=tuple(BATTERY_HEALTH))),
        _battery("present", "say whether there is a battery", Argument("present", "true or false", bool)),
        _battery("capacity", "say how full the battery is", _PERCENT),
        _battery("ac", "say whether the charger is plugged in", Argument("online", "true or false", bool)),
        _battery("fake", "have a battery that stays as full as this", _PERCENT),
        _battery("cancel-fake", "have the battery of the host again"),
        Spec("usb.list", "USB devices of the host that the guest has", Role.VIEWER, needs=_USB),
        Spec(
            "usb.attach",
            "give the guest a USB device of the host",
            Role.ADMIN,
            (
                Argument(
                    "path", "the device's node: /dev/bus/usb/BUS/DEVICE", str, pattern=r"/dev/bus/usb/\d{3}/\d{3}"
                ),
            ),
            reaches_host=True,
            needs=_USB,
        ),
        Spec("usb.detach", "take a USB device from the guest", Role.OPERATOR, (_PORT,), needs=_USB),
        Spec(
            "disk.resize",
            "make a disk larger or smaller; what was beyond the new end is lost",
            Role.ADMIN,
            (
                Argument("index", "of the disk, the first is 0", int, most=25),
                Argument("bytes", "its new size", int, least=1, most=_MOST_BYTES, size=True),
            ),
        ),
        _swap("status", "how much of the guest's memory is swapped out", role=Role.VIEWER),
        _swap("enable", "be ready to swap the guest's memory out"),
        _swap("trim", "find memory that need not be swapped"),
        _swap("out", "swap the guest's memory out"),
        _swap(
            "disable",
            "swap the guest's memory in again",
            Argument("slow-file-cleanup", "give the file's blocks back slowly", bool, default=False),
        ),
        Spec("vcpus", "the host's threads that are the guest's processors", Role.VIEWER),
        Spec(
            "key",
            "press keys together and let them go",
            Role.OPERATOR,
            (
                Argument(
                    "keys",
                    "names of QEMU's keys with dashes between: ctrl-alt-delete",
                    str,
                    most=100,
                    pattern=r"[a-z0-9_]+(?:-[a-z0-9_]+){0,7}",
                ),
                Argument("hold-ms", "how long they are held", int, default=100, least=1, most=10_000),
            ),
            cannot={Manager.CROSVM: _NO_KEYS},
        ),
        Spec(
            "text",
            "type a text, key by key, on an American keyboard",
            Role.OPERATOR,
            (
                Argument(
                    "text", "printable ASCII, tabs and line ends", str, most=_LONGEST_TEXT, pattern=r"[\t\n -~]+"
                ),
            ),
            cannot={Manager.CROSVM: Cannot(_NO_KEYS.reason, "By Android: cfctl adb NAME shell input text hello")},
            seconds=60,
        ),
        Spec("display.list", "the displays", Role.VIEWER, control=False),
        Spec(
            "display.add",
            "add a display",
            Role.OPERATOR,
            (
                Argument("width", "in pixels", int, least=1, most=16384),
                Argument("height", "in pixels", int, least=1, most=16384),
                Argument("dpi", "dots per inch", int, default=320, least=1, most=10_000),
                Argument("refresh-rate", "pictures per second", int, default=60, least=1, most=1000),
            ),
            cannot=_NO_HOTPLUG,
            control=False,
        ),
        Spec(
            "display.remove",
            "remove a display",
            Role.OPERATOR,
            (Argument("display", "its number", int, most=SCANOUTS - 1),),
            cannot=_NO_HOTPLUG,
            control=False,
        ),
        Spec(
            "display.screenshot",
            "a picture of what a display shows",
            Role.VIEWER,
            (Argument("display", "its number", int, default=0, most=SCANOUTS - 1),),
            control=False,
            seconds=30,
        ),
        Spec(
            "raw",
            "one request in the VM manager's own words; what it does is not checked",
            Role.ADMIN,
            (Argument("request", "JSON", str, most=LONGEST_PACKET),),
            reaches_host=True,
        ),
    )
}


def operation(name: str, values: Mapping[str, object] | None = None) -> Operation:
    """Return an operation of the table with the values that were given.

    :raises UsageError: if there is none of that name, or a value is missing, too much or out of its limits.
    """
    spec = TABLE.get(name)
    if spec is None:
        raise UsageError(f"there is no operation {name[:100]!r}", f"Operations: {', '.join(TABLE)}.")
    given = dict(values or {})
    found = {}
    for argument in spec.arguments:
        if argument.name in given:
            found[argument.name] = argument.read(given.pop(argument.name))
        elif argument.required:
            raise UsageError(f"{' '.join(spec.words)} needs {argument.name}", argument.help or _choices(argument))
        else:
            found[argument.name] = argument.default
    if given:
        names = ", ".join(argument.name for argument in spec.arguments) or "none"
        raise UsageError(f"{' '.join(spec.words)} takes no {', '.join(given)}", f"Arguments: {names}.")
    return Operation(spec, found)


def _choices(argument: Argument) -> str | None:
    return f"One of: {', '.join(argument.choices)}." if argument.choices else None


def from_words(words: Sequence[str]) -> Operation:
    """Return the operation that people have written: its name's words, then its values in the table's order.

    A value may have its name in front: ``wait=true``; a switch's name alone is true.

    :raises UsageError: as :func:`operation`.
    """
    specs = [spec for spec in TABLE.values() if tuple(words[: len(spec.words)]) == spec.words]
    if not specs:
        raise _unknown(words)
    spec = max(specs, key=lambda spec: len(spec.words))
    values: dict[str, object] = {}
    free = list(spec.arguments)
    for word in words[len(spec.words) :]:
        name, equals, value = word.partition("=")
        named = next((argument for argument in spec.arguments if argument.name == name), None)
        if named and (equals or named.kind is bool) and named in free:
            values[named.name] = value if equals else True
            free.remove(named)
        elif free:
            values[free.pop(0).name] = word
        else:
            raise UsageError(f"{' '.join(spec.words)} takes no {word!r}", usage(spec))
    return operation(spec.name, values)


def _unknown(words: Sequence[str]) -> UsageError:
    known = [spec for spec in TABLE.values() if spec.control]
    below = [usage(spec) for spec in known if words and spec.words[0] == words[0]]
    if below:
        return UsageError(f"{' '.join(words)!r} is not whole", "\n".join(below))
    names = ", ".join(dict.fromkeys(spec.words[0] for spec in known))
    return UsageError(
        f"{' '.join(words)!r} is no operation" if words else "no operation is named", f"There are: {names}."
    )


def completions(words: Sequence[str]) -> list[str]:
    """Return what can follow some words of people's."""
    specs = [spec for spec in TABLE.values() if spec.control]
    longer = [spec for spec in specs if len(spec.words) > len(words) and _begins(spec, words)]
    following = {spec.words[len(words)]: None for spec in longer}
    for spec in specs:
        position = len(words) - len(spec.words)
        if position >= 0 and tuple(words[: len(spec.words)]) == spec.words and position < len(spec.arguments):
            argument = spec.arguments[position]
            following |= dict.fromkeys(argument.choices or (("true", "false") if argument.kind is bool else ()))
    return list(following)


def _begins(spec: Spec, words: Sequence[str]) -> bool:
    return spec.words[: len(words)] == tuple(words)


def usage(spec: Spec) -> str:
    """Return how an operation is written below ``cfctl control NAME``."""
    return " ".join((*spec.words, *map(_placeholder, spec.arguments)))


def _placeholder(argument: Argument) -> str:
    if argument.required:
        return argument.name.upper()
    return f"[{argument.name}]" if argument.kind is bool else f"[{argument.name}={argument.default}]"


def refusal(spec: Spec, manager: Manager, name: str) -> VmCannot | None:
    """Return the error for what a VM manager cannot do; None if it can.

    :param name: the device, for people.
    """
    found = spec.cannot.get(manager)
    if found is None:
        return None
    instead = found.instead.replace("NAME", name) if found.instead else None
    return VmCannot(
        f"the VM manager of {name} ({manager.called}) cannot do {' '.join(spec.words)}",
        f"{found.reason} Nothing was changed.",
        instead,
    )
