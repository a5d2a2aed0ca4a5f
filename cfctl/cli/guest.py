"""``cfctl guest``: the embedded guest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cfctl.cli import common

app = typer.Typer(help="The embedded Linux guest.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Work with the embedded Linux guest."""


@common.verb(app, "build")
def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it; a new directory.")],
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The guest's processor: x86_64 or aarch64 [default: this host's]. Another one is emulated, slowly.",
        ),
    ] = None,
) -> common.Answer:
    """Write the embedded host package: launch_cvd and the like around a small Linux guest.

    It needs no cfctl where it is used, and may be copied to another place or server.

    \b
    Examples:
      cfctl guest build ./guest
      cfctl launch --host-package ./guest
      cfctl guest build ./guest-arm --arch aarch64     boots here too, emulated
    """
    from cfctl import arch as arches
    from cfctl.errors import UsageError
    from cfctl.guest import package

    if arch is not None and arch not in arches.ARCHES:
        raise UsageError(f"there is no processor {arch!r}", f"Processors: {', '.join(arches.ARCHES)}.")
    made = package.build(directory, arches.ARCHES[arch] if arch else None)
    document = {"host_package": str(made), "arch": arch or arches.host().name}
    return common.Answer(document, lambda: print(made))
