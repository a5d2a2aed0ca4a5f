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
    """Write the embedded host package into a directory.

    launch_cvd and the like, around a small Linux guest.

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

    known = {name: found for found in arches.ARCHES.values() for name in (found.name, found.debian)}
    if arch is not None and arch not in known:
        raise UsageError(f"there is no processor {arch!r}", f"Processors: {', '.join(known)}.")
    wanted = known[arch] if arch else arches.host()
    made = package.build(directory, wanted)
    document = {"host_package": str(made), "arch": wanted.name}
    return common.Answer(document, lambda: print(made))
