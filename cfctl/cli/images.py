"""``cfctl images``: host packages and guests' images in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli import common

if TYPE_CHECKING:
    from cfctl.artifacts.store import Entry

app = typer.Typer(help="Host packages and images in the cache.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep host packages and images in the cache, unpacked once."""


@common.verb(app, "add")
def add(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="cvd-host_package.tar.gz, a zip of images, or a directory.")
    ],
    *,
    name: Annotated[
        str | None, typer.Option(help="What to call it; another that is called so loses the name.")
    ] = None,
) -> common.Answer:
    """Unpack an archive into the cache, or copy a directory.

    A launch does it by itself; this gives it a name, and shows what is in it.

    \b
    Examples:
      cfctl images add cvd-host_package.tar.gz --name nightly
      cfctl images add aosp_cf_x86_64_phone-img-123.zip --name nightly-images
      cfctl launch phone --host-package nightly --images nightly-images
    """
    from cfctl.artifacts import store

    entry = store.add(path.expanduser().absolute(), name=name)
    return common.Answer({"images": [entry.as_dict()]}, lambda: print(_table([entry])))


@common.verb(app, "list")
def list_() -> common.Answer:
    """List what is in the cache, the newest first.

    \b
    Examples:
      cfctl images list
      cfctl images list --json | jq -r '.images[].name'
    """
    from cfctl.artifacts import store

    entries = store.entries()
    empty = "The cache is empty. Add to it with: cfctl images add FILE --name NAME"
    return common.Answer(
        {"images": [entry.as_dict() for entry in entries]}, lambda: print(_table(entries) if entries else empty)
    )


@common.verb(app, "prune")
def prune(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show it; exit status 3.", show_default=False)
    ] = False,
) -> common.Answer:
    """Remove from the cache what nothing uses.

    No device was launched from it, and no container mounts it.

    Every engine on this machine is asked; if one does not answer, nothing is removed.

    \b
    Examples:
      cfctl images prune --dry-run
      cfctl images prune
    """
    from cfctl.artifacts import unpack
    from cfctl.docker import used
    from cfctl.launch import wares

    removed = wares.prune(besides=used.paths_of_containers(), dry_run=dry_run)
    room = unpack.gib(sum(entry.room for entry in removed))

    def show() -> None:
        if removed:
            print(_table(removed))
        print(f"{'Would free' if dry_run else 'Freed'} {room}.")

    document = {"removed": [entry.as_dict() for entry in removed], "dry_run": dry_run}
    return common.Answer(document, show, 3 if dry_run and removed else 0)


def _table(entries: list[Entry]) -> str:
    from cfctl.artifacts import unpack

    rows = [("NAME", "HASH", "KIND", "SIZE", "ON DISK", "ADDED", "FROM")]
    for entry in entries:
        added = entry.added_at[:16].replace("T", " ")
        sizes = unpack.gib(entry.size), unpack.gib(entry.room)
        rows.append((entry.name or "-", entry.short, "+".join(entry.kinds), *sizes, added, entry.source))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
