"""Looking into a device: logs, adb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.common import print_json, verb
from cfctl.cli.complete import device_names, log_names
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Target = Annotated[
    str,
    typer.Argument(help="The device; NAME/2 is its second instance.", metavar="NAME", autocompletion=device_names),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verb(app, "logs", remote="cfctl.cli.remote_access:logs")(logs)
    verb(app, "adb", passes_flags=True, remote="cfctl.cli.remote_access:adb")(adb)


def logs(
    *,
    target: Target,
    which: Annotated[
        str | None,
        typer.Option(
            help="kernel, console (what cfctl console shows), launcher (run_cvd) or launch (launch_cvd) "
            "[default: the first that has something in it].",
            autocompletion=log_names,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.", show_default=False)] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", help="Only the last so many lines.", min=0)] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print each line as a JSON document.", show_default=False)
    ] = False,
) -> None:
    """Print a log of a device.

    \b
    Examples:
      cfctl logs phone
      cfctl logs phone/2 --which launcher -f
      cfctl logs phone -n 20
    """
    from cfctl.launch import boot, manage

    name, position = manage.target(target)
    source: Iterable[str]
    if follow:
        source = manage.follow(manage.existing_log(name, which, position=position), last=lines)
    else:
        source = manage.log_lines(name, which, last=lines, position=position)
    for line in map(boot.clean, source):
        if json_:
            print_json({"line": line})
        else:
            print(line, flush=follow)


def adb(
    *,
    target: Target,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]", help="What adb is to do [default: shell].", show_default=False),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    """Run adb against a device.

    Everything after the name is adb's.

    \b
    Examples:
      cfctl adb phone
      cfctl adb phone shell getprop ro.product.model
      cfctl adb phone/2 install app.apk
    """
    from cfctl.launch import manage

    if json_:
        raise UsageError("adb is interactive and has no --json")
    manage.run_adb(target, args or [])
