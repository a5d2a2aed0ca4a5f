"""Sits at a service of a device for somebody elsewhere: run by the relay as the device's user, or in its container.

What it reads on standard input goes to the device's console, or to its ADB port; what comes from there it writes to
standard output. Both may be one socket of the relay's, or two pipes of a container engine's. The first line that it
writes is a document: ``{}``, or an error; what follows is the device's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Protocol

from cfctl.control import waiting
from cfctl.errors import CfctlError
from cfctl.wire import pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Say which service it is to be.
CONSOLE, ADB = "console", "adb"

_CHUNK = 1 << 16

_IN, _OUT = 0, 1


class _Service(Protocol):
    async def read(self) -> bytes:
        """Return what the device says; nothing at its end."""

    async def write(self, data: bytes) -> None:
        """Say something to the device."""


class _Adb:
    """An ADB port of this machine, read and written as a console is.

    :param end: connected to it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    async def read(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._end, _CHUNK)

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._end, data)

    def finish(self) -> None:
        """Tell the device that nothing more will be said."""
        self._end.shutdown(socket.SHUT_WR)


@contextlib.asynccontextmanager
async def _opened(service: str, target: str) -> AsyncIterator[_Service]:
    """Give a service of a device for the block.

    :raises CfctlError: if it cannot be had.
    """
    from cfctl.launch import manage

    if service == CONSOLE:
        async with manage.console(target) as console:
            yield console
        return
    port = manage.reached(*manage.target(target)).adb_port
    with socket.socket() as end:
        end.settimeout(0)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
        except OSError as exc:
            raise CfctlError(f"the ADB of {target} cannot be reached: {exc.strerror or exc}") from exc
        yield _Adb(end)


async def _sit(service: str, target: str) -> int:
    """Return the exit status: an error is told before the first line; after it the end of the output says enough."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            device = await stack.enter_async_context(_opened(service, target))
        except CfctlError as error:
            await _tell({"error": error.as_dict(), "exit_code": error.exit_code})
            return error.exit_code
        await _tell({})
        tasks = {asyncio.ensure_future(_show(device)), asyncio.ensure_future(_take(device))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return 0


async def _show(device: _Service) -> None:
    while data := await device.read():
        await _write(data)


async def _take(device: _Service) -> None:
    while data := await _read():
        await device.write(data)
    if isinstance(device, _Adb):
        # It may have an answer still.
        device.finish()
        await asyncio.sleep(pump.LINGER_S)


async def _read() -> bytes:
    while True:
        try:
            return os.read(_IN, _CHUNK)
        except BlockingIOError:
            await waiting.ready(_IN, to_write=False)


async def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(_OUT, view) :]
        except BlockingIOError:
            await waiting.ready(_OUT, to_write=True)


async def _tell(document: dict[str, object]) -> None:
    await _write(json.dumps(document).encode() + b"\n")


def main(argv: list[str]) -> int:
    """Sit until nobody listens any more, or the device has gone. Arguments: console or adb, NAME or NAME/2."""
    service, target = argv
    os.set_blocking(_IN, False)
    os.set_blocking(_OUT, False)
    try:
        return asyncio.run(_sit(service, target))
    except (CfctlError, OSError):
        return 1  # the guest's console has gone, or the relay


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
