"""adb against a device behind a relay: a loopback port here that leads there, for as long as adb runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import NotRunning
from cfctl.launch import adb
from cfctl.remote import calls, tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfctl.remote.channel import Relay

#: Seconds that adb may take to forget a device.
_FORGET_S = 10.0

#: Seconds that adb may take to end when it was told to.
_PATIENCE_S = 5.0


async def run(relay: Relay, target: str, args: Sequence[str], *, said: Callable[[str], None]) -> int:
    """Run adb at this terminal; return its exit status, or 1 where it took a tunnel that was cut off for success.

    :param target: a device, or ``NAME/2``.
    :param said: called with what people should know: why the tunnel was closed.
    :raises NotRunning: if the device is not up.
    :raises CfctlError: what the relay has against it; adb is left without the device.
    """
    device = await calls.device(relay, target)
    if device["state"] not in ("running", "booting"):
        name = target.partition("/")[0]
        helps = (
            f"Let it go on: cfctl resume {name}"
            if device["state"] == "suspended"
            else f"Boot it: cfctl restart {name}"
        )
        raise NotRunning(f"{target} is {device['state']}", None, helps)
    ending = False

    def tell(text: str) -> None:
        if not ending:
            said(f"{target}: {text}")

    async with tunnel.Listener(relay.channel, target, tunnel.ADB, address=relay.address, said=tell) as listener:
        serial = f"127.0.0.1:{listener.port}"
        try:
            await asyncio.to_thread(adb.connect, serial)
            status = await _attached(["adb", "-s", serial, *args])
            await listener.settle()
            # adb takes the end of its connection for the end of the command that runs in the guest.
            return 1 if status == 0 and listener.lost and not _expected(args) else status
        finally:
            ending = True
            with contextlib.suppress(Exception):
                await asyncio.to_thread(process.run, ["adb", "disconnect", serial], timeout=_FORGET_S, success=None)


def _expected(args: Sequence[str]) -> bool:
    """Tell whether adb is to do what ends its own connection."""
    return bool({"reboot", "root", "unroot", "disconnect"} & set(args[:1]))


async def _attached(argv: list[str]) -> int:
    """Run a program that has this terminal; an interrupt is its own to answer, and ends what ignores a second one."""
    loop = asyncio.get_running_loop()
    child = process.attached(argv)
    waiting = asyncio.ensure_future(asyncio.to_thread(child.wait))
    interrupts = 0

    def pass_on(number: int) -> None:
        # A terminal sends Ctrl-C to the program too; a supervisor's TERM comes to us alone.
        nonlocal interrupts
        interrupts += 1
        if number != signal.SIGINT or interrupts > 1:
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, pass_on, number)
    try:
        status = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await asyncio.to_thread(process.end, [child.pid], patience=_PATIENCE_S)
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
    # As a shell has it for a program that a signal ended.
    return status if status >= 0 else 128 - status
