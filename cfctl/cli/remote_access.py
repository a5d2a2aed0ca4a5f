"""Looking into devices behind a relay: the twins of logs, adb, console and control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl import steps
from cfctl.cli import elsewhere, sitting
from cfctl.cli.common import Answer, print_json
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.remote.channel import Relay


def logs(*, target: str, which: str | None, follow: bool, lines: int | None, json_: bool) -> None:
    """Print a log of a device."""
    from cfctl.remote import calls

    async def show(relay: Relay) -> None:
        async for line in calls.logs(relay, target, which=which, follow=follow, lines=lines):
            if json_:
                print_json({"line": line})
            else:
                print(line, flush=follow)

    elsewhere.ask(show)


def adb(*, target: str, args: list[str] | None, json_: bool) -> Answer:
    """Run adb against a device, through a loopback port of this machine."""
    from cfctl.remote import adb as remote

    if json_:
        raise UsageError("adb is interactive and has no --json")

    async def run(relay: Relay) -> int:
        return await remote.run(relay, target, args or ["shell"], said=steps.note)

    # What there is to show, adb has shown.
    return Answer({}, lambda: None, elsewhere.ask(run))


def console(*, target: str, json_: bool) -> None:
    """Sit at the serial console of a device."""
    from cfctl.remote.console import Console

    sitting.require_terminal(target, json_=json_)
    elsewhere.ask(lambda relay: sitting.sit(target, Console(relay, target)))
    sitting.left(target)
