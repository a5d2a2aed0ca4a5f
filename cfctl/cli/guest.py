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
) -> common.Answer:
    """Write the embedded host package: launch_cvd and the like around a small Linux guest.

    It needs no cfctl where it is used, and may be copied to another place or server of this processor.

    \b
    Examples:
      cfctl guest build ./guest
      cfctl launch --host-package ./guest
    """
    from cfctl.guest import package

    made = package.build(directory)
    return common.Answer({"host_package": str(made)}, lambda: print(made))
