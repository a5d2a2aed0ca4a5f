"""Sits at the console of a device for somebody elsewhere: run by the relay as the device's user.

Its standard input and output are one socket of the relay's. The first line that it writes is a document: ``{}``, or
an error; what follows is the guest's, and what it reads is typed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys

from cfctl.errors import CfctlError

_CHUNK = 1 << 14


async def _sit(target: str, end: socket.socket) -> int:
    """Return the exit status: an error is told before the first line; after it the end of the socket says enough."""
    from cfctl.launch import manage

    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        try:
            console = await stack.enter_async_context(manage.console(target))
        except CfctlError as error:
            await _tell(end, {"error": error.as_dict(), "exit_code": error.exit_code})
            return error.exit_code
        await _tell(end, {})

        async def show() -> None:
            while True:
                await loop.sock_sendall(end, await console.read())

        async def take() -> None:
            while data := await loop.sock_recv(end, _CHUNK):
                await console.write(data)

        tasks = {asyncio.ensure_future(show()), asyncio.ensure_future(take())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return 0


async def _tell(end: socket.socket, document: dict[str, object]) -> None:
    await asyncio.get_running_loop().sock_sendall(end, json.dumps(document).encode() + b"\n")


def main(argv: list[str]) -> int:
    """Sit until the relay closes the socket, or the console is gone. Argument: NAME or NAME/2."""
    (target,) = argv
    with socket.socket(fileno=os.dup(0)) as end:
        end.settimeout(0)
        try:
            return asyncio.run(_sit(target, end))
        except (CfctlError, OSError):
            return 1  # the guest's console has gone, or the relay


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
