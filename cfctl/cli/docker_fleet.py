"""``cfctl docker up|down``: fleets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.docker_options import Timeout

if TYPE_CHECKING:
    from cfctl.docker.rollout import Rollout

FleetPath = Annotated[Path, typer.Argument(help="The fleet file.", metavar="FILE")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to the group."""
    verb(app, "up")(up)
    verb(app, "down")(down)


def up(
    *,
    file: FleetPath = Path("fleet.toml"),
    dry_run: DryRun = False,
    parallel: Annotated[
        int, typer.Option(help="How many containers are worked on at once; each boots before the next.", min=1)
    ] = 1,
    timeout: Timeout = None,
) -> Answer:
    """Make a fleet as its file says, by doing no more than is missing; the exit status of --dry-run is 3 if it is.

    At the first failure nothing new is begun. Disks of a container that is replaced are kept.

    \b
    Examples:
      cfctl docker up fleet.toml --dry-run
      cfctl docker up fleet.toml --parallel 4
    """
    from cfctl import config
    from cfctl.docker import fleet, rollout

    seconds = config.load(flags={"launch.timeout": timeout})["launch.timeout"]
    work = rollout.prepare(fleet.load(file))
    if not dry_run:
        rollout.carry_out(work, parallel=parallel, timeout=seconds)
    return _fleet_answer(work, dry_run=dry_run)


def down(*, file: FleetPath = Path("fleet.toml"), dry_run: DryRun = False) -> Answer:
    """Remove every container of a fleet, with its disks.

    \b
    Examples:
      cfctl docker down fleet.toml
    """
    from cfctl.docker import fleet, rollout

    work = rollout.prepare_down(fleet.load(file))
    if not dry_run:
        rollout.carry_out(work, parallel=1, timeout=0)
    return _fleet_answer(work, dry_run=dry_run)


def _fleet_answer(work: Rollout, *, dry_run: bool) -> Answer:
    def show() -> None:
        for change in work.changes:
            print(f"{change.action:<8} {change.name:<20} on {change.host}: {change.reason}")
        did = "to make" if dry_run else "made"
        print(f"fleet {work.fleet.name}: {len(work.changes)} changes {did}")

    return Answer(work.as_dict(), show, 3 if dry_run and work.changes else 0)
