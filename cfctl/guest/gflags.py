"""Command line flags as gflags reads them: the launcher's own dialect (launcher.md section 2.1).

``-f``, ``--f``, ``--f=v`` and ``--f v``; real booleans also ``--nof``; anything that is no flag is ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

_TRUE = frozenset({"1", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "n", "no"})


class Kind(StrEnum):
    """What a flag's value is.

    A switch is a string for gflags, but the launcher makes ``--daemon`` and ``--nodaemon`` of it what people expect
    before gflags sees it. Not all on/off flags are switches: ``--enable_wifi --daemon`` eats ``--daemon``, as in
    the original.
    """

    BOOL = "bool"
    INT32 = "int32"
    STRING = "string"
    SWITCH = "switch"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    :param used: whether it has an effect on the embedded guest; others are accepted.
    """

    name: str
    kind: Kind
    default: str
    used: bool


class FlagError(Exception):
    """The command line is wrong; the text is gflags' own, and the exit status 1."""


class HelpWanted(Exception):
    """``--help`` or ``--helpxml`` was given; both exit with status 1, ``--version`` with 0.

    :param text: what to print on standard output.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


@dataclass(slots=True)
class Values:
    """The flags with their values.

    :param given: only those that the caller named.
    """

    flags: Mapping[str, Flag]
    given: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.given.get(name, self.flags[name].default)

    def number(self, name: str) -> int:
        """Return a whole number; ``name`` is an int32 flag."""
        return int(self[name], 0)

    def on(self, name: str) -> bool:
        """Return whether a bool or switch is on.

        :raises FlagError: for a switch with another value than a truth value.
        """
        return truth(name, self[name])


def truth(name: str, value: str) -> bool:
    """Return what a truth value says.

    :raises FlagError: if it is none.
    """
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise FlagError(f"illegal value '{value}' specified for bool flag '{name}'")


def table(names: Sequence[str] | None = None) -> dict[str, Flag]:
    """Return the launcher's flags.

    :param names: only these.
    """
    flags = {}
    for line in Path(__file__).with_name("flags.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, kind, default, effect = line.split("\t")
            flags[name] = Flag(
                name, Kind(kind), default.replace("$HOME", os.environ.get("HOME", "")), effect == "used"
            )
    return flags if names is None else {name: flags[name] for name in names}


def parse(
    flags: Mapping[str, Flag],
    argv: Sequence[str],
    *,
    program: str,
    environ: Mapping[str, str] = os.environ,
) -> Values:
    """Read a command line.

    :param argv: without the program.
    :raises FlagError: for an unknown flag that ``--undefok`` does not name, a missing or a wrong value.
    :raises HelpWanted: if help was asked for.
    """
    values = Values(flags)
    unknown: list[str] = []
    undefok: set[str] = set()
    _read(values, list(argv), unknown, undefok, environ, program)
    left = [name for name in unknown if name not in undefok and name.removeprefix("no") not in undefok]
    if left:
        raise FlagError("\n".join(f"unknown command line flag '{name}'" for name in left))
    return values


#: gflags' own, with a value; ``tab_completion_*`` only so that they are known.
_BUILT_IN_VALUES = frozenset(
    {
        "flagfile",
        "fromenv",
        "tryfromenv",
        "undefok",
        "helpmatch",
        "helpon",
        "tab_completion_word",
        "tab_completion_columns",
    }
)
_BUILT_IN_HELP = frozenset({"help", "helpfull", "helpshort", "helppackage"})


def _read(
    values: Values,
    words: list[str],
    unknown: list[str],
    undefok: set[str],
    environ: Mapping[str, str],
    program: str,
) -> None:
    while words:
        word = words.pop(0)
        if word == "--":
            return
        if not re.match(r"--?[^-]", word):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in _BUILT_IN_HELP or (name == "helpxml" and value.lower() not in _FALSE):
            raise HelpWanted(
                helpxml(values.flags, program) if name == "helpxml" else help_text(values.flags, program)
            )
        if name == "version":
            raise HelpWanted(program, 0)
        if name in _BUILT_IN_VALUES:
            if not equals:
                value = _following(name, words)
            if name == "undefok":
                undefok |= set(value.split(","))
            elif name == "flagfile":
                _read(values, _flag_file(value), unknown, undefok, environ, program)
            elif name in ("fromenv", "tryfromenv"):
                _from_environment(values, value, environ, required=name == "fromenv")
        elif name in values.flags:
            _assign(values, values.flags[name], value if equals else None, words)
        elif name.startswith("no") and _has_no_form(values.flags.get(name[2:])) and not equals:
            values.given[name[2:]] = "false"
        elif name.startswith("no") and name[2:] in values.flags:
            raise FlagError(f"boolean value ({name}) specified for {values.flags[name[2:]].kind} command line flag")
        else:
            unknown.append(name)


def _has_no_form(flag: Flag | None) -> bool:
    return flag is not None and flag.kind in (Kind.BOOL, Kind.SWITCH)


def _assign(values: Values, flag: Flag, value: str | None, words: list[str]) -> None:
    if flag.kind in (Kind.BOOL, Kind.SWITCH):
        value = "true" if value is None else value
        if flag.kind is Kind.BOOL:
            truth(flag.name, value)
    elif flag.kind is Kind.LIST:
        if value is None:
            raise FlagError(f"flag '{flag.name}' needs its value after '='")
        values.lists.setdefault(flag.name, []).append(value)
    elif value is None:
        value = _following(flag.name, words)
    if flag.kind is Kind.INT32:
        _check_int32(flag.name, value)
    values.given[flag.name] = value


def _following(name: str, words: list[str]) -> str:
    if not words:
        raise FlagError(f"flag '{name}' is missing its argument")
    return words.pop(0)


def _check_int32(name: str, value: str) -> None:
    try:
        number = int(value, 0)
    except ValueError:
        number = 1 << 31
    if not -(1 << 31) <= number < 1 << 31:
        raise FlagError(f"illegal value '{value}' specified for int32 flag '{name}'")


def _flag_file(name: str) -> list[str]:
    try:
        lines = Path(name).read_text().splitlines()
    except OSError as exc:
        raise FlagError(f"cannot read flagfile '{name}': {exc.strerror}") from exc
    return [line.strip() for line in lines if line.strip().startswith("-")]


def _from_environment(values: Values, names: str, environ: Mapping[str, str], *, required: bool) -> None:
    for name in filter(None, names.split(",")):
        value = environ.get(f"FLAGS_{name}")
        if name not in values.flags:
            raise FlagError(f"unknown command line flag '{name}' (via --fromenv or --tryfromenv)")
        if value is not None:
            _assign(values, values.flags[name], value, [])
        elif required:
            raise FlagError(f"FLAGS_{name} not found in environment")


def help_text(flags: Mapping[str, Flag], program: str) -> str:
    """Return what ``--help`` prints."""
    lines = [f"{program}: boots cfctl's embedded Linux guest with the flags of Cuttlefish's launcher.", ""]
    for flag in flags.values():
        kind = "string" if flag.kind in (Kind.SWITCH, Kind.LIST) else flag.kind
        effect = "" if flag.used else " (no effect on this guest)"
        lines.append(f"    -{flag.name}{effect} type: {kind} default: {flag.default!r}")
    return "\n".join(lines)


def helpxml(flags: Mapping[str, Flag], program: str) -> str:
    """Return what ``--helpxml`` prints: tools of upstream ask for it to learn the flags."""
    rows = []
    for flag in flags.values():
        kind = "string" if flag.kind in (Kind.SWITCH, Kind.LIST) else flag.kind
        # xml.sax would do it, and costs 20 ms at each start.
        default = flag.default.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        rows.append(
            f"<flag><file>{program}</file><name>{flag.name}</name><meaning>{flag.name.replace('_', ' ')}</meaning>"
            f"<default>{default}</default><current>{default}</current><type>{kind}</type></flag>"
        )
    return "\n".join(
        [
            '<?xml version="1.0"?>',
            "<AllFlags>",
            f"<program>{program}</program>",
            "<usage></usage>",
            *rows,
            "</AllFlags>",
        ]
    )
