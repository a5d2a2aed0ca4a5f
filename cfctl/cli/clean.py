"""``cfctl clean``: remove what dead devices have left behind, after showing it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, show_error, verb
from cfctl.cli.complete import device_names
from cfctl.cli.elsewhere import MACHINE
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.launch.clean import Leftover


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb(app, "clean", remote=MACHINE)(clean)


def clean(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only what these devices have left [default: everything on this host].",
            metavar="[NAME...]",
            autocompletion=device_names,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show it only; the exit status is 3 if there is any.", show_default=False),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    json_: bool = False,
) -> Answer:
    """Remove what dead devices have left behind.

    Processes, instance numbers, sockets, half-made directories. They are shown first, and removed after a yes. What
    lives is not touched, nor what is another user's unless you are root, nor the disks and logs of a device: cfctl rm
    removes those. A device with --restart stays down after it.

    \b
    Examples:
      cfctl clean
      cfctl clean --dry-run --json
      cfctl clean phone --yes
    """
    from cfctl.launch import clean as leftovers

    found = leftovers.find(names or [])
    if not found:
        return Answer(_document(found, cleaned=False), lambda: print("There is nothing left over."))
    if dry_run:
        return Answer(_document(found, cleaned=False), lambda: print(_list(found)), 3)
    if not yes and not _confirmed(found, names or [], json_=json_):
        return Answer(_document(found, cleaned=False), lambda: print("Nothing was removed."))
    errors: list[CfctlError] = []
    for left in found:
        try:
            with steps.step(f"remove {left.object}"):
                said = leftovers.remove(left)
        except CfctlError as error:
            errors.append(error)
            continue
        for line in said:
            steps.note(line)

    def show() -> None:
        for error in errors:
            show_error(error, json_=False)

    document = _document(found, cleaned=not errors)
    if errors:
        document["errors"] = [error.as_dict() for error in errors]
    return Answer(document, show, errors[0].exit_code if errors else 0)


def _confirmed(found: Sequence[Leftover], names: Sequence[str], *, json_: bool) -> bool:
    """Show what is there, and ask.

    :raises UsageError: if nobody is there to ask.
    """
    if json_ or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{len(found)} thing(s) are left over, and nobody is there to ask whether they may go",
            f"{_list(found)}\nNothing was removed.",
            f"Remove them: {' '.join(['cfctl', 'clean', *names, '--yes'])}",
        )
    print(_list(found), file=sys.stderr)
    return typer.confirm("Remove all of it?", err=True)


def _list(found: Sequence[Leftover]) -> str:
    return "\n".join(f"{left.object}: {left.reason}" for left in found)


def _document(found: Sequence[Leftover], *, cleaned: bool) -> dict[str, Any]:
    return {"leftovers": [left.as_dict() for left in found], "cleaned": cleaned}
