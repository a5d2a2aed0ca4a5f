"""Man pages from the help texts: one for `cfctl`, and one for each of its verbs and groups of verbs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import typer.main

import cfctl
from cfctl.cli.app import app

#: What holds for every verb.
_EXIT_STATUSES = (
    ("0", "done"),
    ("1", "it failed"),
    ("2", "wrong usage"),
    ("3", "the state differs from what was asked for, or it is not running"),
    ("4", "the host lacks something; the message says what mends it"),
    ("5", "timed out"),
    ("130", "interrupted"),
)


def escape(text: str) -> str:
    """Return text as roff takes it literally (groff_man_style(7))."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace("`", "\\(ga").replace("'", "\\(aq")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def pages(epoch: int) -> Iterator[tuple[str, str]]:
    """Return the pages: file name, text.

    :param epoch: when cfctl was last changed, in seconds.
    """
    root = typer.main.get_command(app)
    day = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    commands = _children(root)
    yield "cfctl.1", _page("cfctl", root, day, [f"cfctl-{name}" for name, _ in commands])
    for name, command in commands:
        yield f"cfctl-{name}.1", _page(f"cfctl {name}", command, day, ["cfctl"])


def _children(command: click.Command) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return []
    return [(name, child) for name, child in sorted(command.commands.items()) if not child.hidden]


def _page(called: str, command: click.Command, day: str, see: list[str]) -> str:
    title = called.replace(" ", "-").upper()
    lines = [
        f'.TH "{escape(title)}" 1 "{day}" "cfctl {cfctl.__version__}" "cfctl"',
        ".SH NAME",
        f"{escape(called.replace(' ', '-'))} \\- {escape(_summary(command))}",
    ]
    lines += _verb(called, command, ".SH", top=True)
    if called == "cfctl":
        lines.append(".SH COMMANDS")
    for name, child in _children(command):
        if called == "cfctl":
            lines += [".TP", f".BR cfctl\\-{escape(name)} (1)", escape(_summary(child))]
        else:
            lines += [f'.SH "{escape(f"{called} {name}".upper())}"', escape(_summary(child))]
            lines += _verb(f"{called} {name}", child, ".SS", top=False)
    lines.append('.SH "EXIT STATUS"')
    for status, meaning in _EXIT_STATUSES:
        lines += [".TP", f".B {status}", escape(meaning)]
    lines.append('.SH "SEE ALSO"')
    lines.append(",\n".join(f".BR {escape(name)} (1)" for name in see).replace(",\n", " ,\n"))
    lines.append(f".PP\n{escape('/usr/share/doc/cfctl/')}")
    return "\n".join(lines) + "\n"


def _summary(command: click.Command) -> str:
    help_text = inspect.cleandoc(command.help or "")
    return " ".join(help_text.partition("\n\n")[0].split()).rstrip(".")


def _verb(called: str, command: click.Command, heading: str, *, top: bool) -> list[str]:
    context = click.Context(command, info_name=called.rpartition(" ")[2])
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"{heading} SYNOPSIS" if top else ".PP", f".B {escape(called)}", escape(usage)]
    prose, _, examples = inspect.cleandoc(command.help or "").replace("\b", "").partition("Examples:\n")
    paragraphs = [" ".join(part.split()) for part in prose.split("\n\n")]
    if top:
        lines.append(f"{heading} DESCRIPTION")
    for paragraph in paragraphs if top else paragraphs[1:]:
        if paragraph:
            lines += [".PP", escape(paragraph)]
    described = [record for param in command.get_params(context) if (record := _parameter(param, context))]
    if described:
        lines.append(f"{heading} OPTIONS" if top else ".PP\nOptions:")
        for names, text in described:
            lines += [".TP", f".B {escape(names)}", escape(" ".join(text.split()))]
    if examples.strip():
        lines.append(f"{heading} EXAMPLES" if top else ".PP\nExamples:")
        lines += [".PP", ".nf", ".RS 4", escape(inspect.cleandoc(examples)), ".RE", ".fi"]
    return lines


def _parameter(param: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    if isinstance(param, click.Argument):
        return param.make_metavar(context), getattr(param, "help", None) or ""
    return param.get_help_record(context)
