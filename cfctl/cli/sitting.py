"""A person at a console: wherever the guest is, it looks the same."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.control.console import Held


def require_terminal(target: str, *, json_: bool) -> None:
    """Make sure that a person can sit here.

    :raises UsageError: if there is no terminal, or JSON is wanted.
    """
    if json_:
        raise UsageError("console is interactive and has no --json")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "console needs a terminal",
            "A script has better means.",
            f"Run a command: cfctl adb {target} shell COMMAND",
        )


async def sit(target: str, console: contextlib.AbstractAsyncContextManager[Held]) -> None:
    """Join this terminal to a console until Ctrl-] is pressed, and say how it is done.

    :param console: not opened yet.
    :raises CfctlError: if it cannot be opened, or goes away.
    """
    from cfctl.control.console import interact

    async with console as opened:
        print(f"The console of {target}. Ctrl-] leaves it.", file=sys.stderr)
        # A terminal that was never told its size (one of a script, a serial line) has none.
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdin.fileno())
            if size.lines and size.columns:
                print(f"To the guest: stty rows {size.lines} cols {size.columns}", file=sys.stderr)
        await interact(opened, source=sys.stdin.fileno(), sink=sys.stdout.fileno())


def left(target: str) -> None:
    """Say that the console was left."""
    print(f"\r\nLeft the console of {target}.", file=sys.stderr)
