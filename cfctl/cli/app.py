"""The ``cfctl`` command: its groups of verbs, and what becomes of a wrong call."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import click
import typer

import cfctl
from cfctl import signals
from cfctl.cli import (
    access,
    clean,
    common,
    complete,
    context,
    control,
    demo,
    device,
    display,
    docker,
    elsewhere,
    gpu,
    guest,
    host,
    images,
    lifecycle,
    link,
    relay,
    screen,
)
from cfctl.errors import UsageError

app = typer.Typer(
    name="cfctl",
    help="Run Android Cuttlefish virtual devices on ordinary Linux servers.",
    # Markup and pretty tracebacks cost half of the start-up time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    # click does it already.
    suggest_commands=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if value:
        print(f"cfctl {cfctl.__version__}")
        raise typer.Exit


@app.callback()
def cfctl_(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", show_default=False),
    ] = False,
    relay: Annotated[
        str | None,
        typer.Option(
            help="Through the relay of another server: a context, HOST:PORT, unix:PATH, or local "
            "[default: the context in use].",
            metavar="CONTEXT",
            envvar="CFCTL_RELAY",
            show_envvar=False,
            autocompletion=complete.context_names,
        ),
    ] = None,
) -> None:
    """Run Android Cuttlefish virtual devices on ordinary Linux servers."""
    elsewhere.name(relay)


device.register(app)
lifecycle.register(app)
display.register(app)
screen.register(app)
access.register(app)
link.register(app)
control.register(app)
clean.register(app)
demo.register(app)
app.add_typer(context.app, name="context")
app.add_typer(docker.app, name="docker")
app.add_typer(gpu.app, name="gpu")
app.add_typer(guest.app, name="guest")
app.add_typer(host.app, name="host")
app.add_typer(images.app, name="images")
app.add_typer(relay.app, name="relay")


def _misplaced(argv: list[str]) -> UsageError:
    """Return what to say to somebody who names a relay after the verb, where most programs take all their options."""
    place = next(index for index, word in enumerate(argv) if word.split("=")[0] == "--relay")
    until = place + (1 if "=" in argv[place] else 2)
    named = argv[place:until] if until <= len(argv) else ["--relay", "CONTEXT"]
    said = [*named, *argv[:place], *argv[until:]]
    return UsageError("--relay stands before the verb", None, f"Write it so: {shlex.join(['cfctl', *said])}")


def run(argv: list[str]) -> int:
    """Run one command line; return its exit status (DESIGN: 0 done, 1 failed, 2 usage, 3, 4, 5, 130)."""
    try:
        # `kill`, `systemctl stop` and a closed terminal are to undo half-done work as Ctrl-C does; nohup stays nohup.
        with signals.first_counts():
            status = app(argv, prog_name="cfctl", standalone_mode=False)
    except click.UsageError as error:
        if isinstance(error, click.NoSuchOption) and error.option_name == "--relay":
            common.show_error(_misplaced(argv), json_="--json" in argv)
        elif "--json" in argv:
            common.show_error(UsageError(error.format_message()), json_=True)
        else:
            error.show(sys.stderr)
        return UsageError.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return common.interrupted(json_="--json" in argv)
    return status if isinstance(status, int) else 0
