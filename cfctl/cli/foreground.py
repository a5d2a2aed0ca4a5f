"""Launch and restart in the foreground: the verb lasts as long as the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl import steps
from cfctl.cli.common import Answer
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.launch.observe import Device

Foreground = Annotated[
    bool,
    typer.Option("--foreground", help="Stay until it ends; Ctrl-C stops it.", show_default=False),
]


def check(*, foreground: bool, wait: bool, events: bool = False) -> None:
    """See that nothing contradicts it.

    :raises UsageError: if something does.
    """
    if foreground and not wait:
        raise UsageError("--foreground and --no-wait contradict each other")
    if foreground and events:
        raise UsageError("--events ends with the boot, and --foreground does not", None, "Leave out one of them.")


def attended(device: Device) -> Answer:
    """Stay until a device that is up has ended."""
    from cfctl.launch import attend

    name = device.record.name
    steps.note(f"{name} is {device.state.value}; Ctrl-C stops it")
    ended = attend.attend(name)
    document = ended.as_dict() if ended is not None else {**device.as_dict(), "state": "stopped"}
    return Answer(document, lambda: print(f"{name} was {'stopped' if ended is not None else 'removed'}"))
