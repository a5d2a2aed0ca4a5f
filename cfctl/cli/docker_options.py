"""Options and arguments that the verbs of ``cfctl docker`` share, and the engine that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.docker.engine import Engine

EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="A Docker context, or an address such as ssh://USER@MACHINE [default: what docker would take].",
        metavar="ENGINE",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The container.", metavar="NAME")]
Names = Annotated[list[str], typer.Argument(help="The containers.", metavar="NAME...", show_default=False)]
Tag = Annotated[str, typer.Option("--tag", help="What the image is called.", metavar="TAG")]
Timeout = Annotated[int | None, typer.Option(help="Seconds that it may take to boot [default: 600].", min=1)]
NumInstances = Annotated[int, typer.Option(help="How many instances the device has.")]


def connect(name: str | None) -> Engine:
    """Return the engine of that name; None is what docker itself would take."""
    from cfctl.docker import engine

    return engine.connect(name)


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` words.

    :raises UsageError: for anything else.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text} is not of the form NAME=VALUE")
        pairs[key] = value
    return pairs
