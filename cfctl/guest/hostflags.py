"""The flags of upstream's small tools (stop, status), which have a parser of their own (launcher.md section 2.1).

``-`` or ``--``, ``=`` or a space before the value, ``-`` and ``_`` are the same inside a name, and on/off flags
have a ``--no`` form. Whatever is unknown is an error, also a word that is no flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.guest.gflags import FlagError, HelpWanted, truth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HELP = ("help", "h", "helpxml")


def parse(defaults: Mapping[str, str | bool], argv: Sequence[str], *, program: str) -> dict[str, str | bool]:
    """Read a command line.

    :param defaults: name -> default; a flag whose default is a bool is an on/off flag.
    :raises FlagError: for anything unknown.
    :raises HelpWanted: if help was asked for.
    """
    values = dict(defaults)
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("-") or not name:
            raise FlagError(f"unknown argument: {word}")
        if name in _HELP:
            raise HelpWanted(_xml(defaults, program) if name == "helpxml" else _help(defaults, program))
        if name.startswith("no") and isinstance(defaults.get(name[2:]), bool) and not equals:
            values[name[2:]] = False
        elif name not in defaults:
            raise FlagError(f"unknown argument: {word}")
        elif isinstance(defaults[name], bool):
            values[name] = truth(name, value) if equals else True
        elif equals:
            values[name] = value
        elif words:
            values[name] = words.pop(0)
        else:
            raise FlagError(f"{word} needs a value")
    return values


def number(values: Mapping[str, str | bool], name: str) -> int:
    """Return a flag as a whole number.

    :raises FlagError: if it is none.
    """
    try:
        return int(values[name])
    except ValueError:
        raise FlagError(f"{name}: {values[name]!r} is not a whole number") from None


def _help(defaults: Mapping[str, str | bool], program: str) -> str:
    return "\n".join([f"{program}:", *(f"  --{name} (default: {value})" for name, value in defaults.items())])


def _xml(defaults: Mapping[str, str | bool], program: str) -> str:
    rows = []
    for name, default in defaults.items():
        value, kind = str(default).lower(), "bool" if isinstance(default, bool) else "string"
        rows.append(
            f"<flag><file>{program}</file><name>{name}</name><meaning></meaning><default>{value}</default>"
            f"<current>{value}</current><type>{kind}</type></flag>"
        )
    return "\n".join(['<?xml version="1.0"?>', "<AllFlags>", f"<program>{program}</program>", *rows, "</AllFlags>"])
