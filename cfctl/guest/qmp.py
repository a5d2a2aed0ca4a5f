"""The few words of QEMU's monitor that the launcher needs (QEMU docs/interop/qmp-spec.txt)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: The monitor serves one client at a time: if somebody holds it, it stays silent.
_PATIENCE_S = 5.0


class Session:
    """One short conversation with the monitor: it serves nobody else meanwhile."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: socket.socket) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = connection

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command; return what the monitor returned.

        :raises ValueError: if it refuses, with its own words.
        :raises OSError, EOFError: if it goes away.
        """
        self._writer.write(_encoded(command, arguments))
        return await self._answer()

    async def give(self, name: str, fd: int) -> None:
        """Hand a descriptor to QEMU, where later commands call it ``fd:NAME`` (QMP ``getfd``)."""
        await self._writer.drain()
        socket.send_fds(self._connection, [_encoded("getfd", {"fdname": name})], [fd])
        await self._answer()

    async def _answer(self) -> Any:
        # Events come in between.
        while not ({"return", "error"} & (answer := json.loads(await self._reader.readline() or b"{}")).keys()):
            if not answer:
                raise EOFError("it closed the connection")
        if "error" in answer:
            raise ValueError(answer["error"].get("desc", "refused"))
        return answer["return"]


@contextlib.asynccontextmanager
async def session(path: Path, what: str, *, patience: float = _PATIENCE_S) -> AsyncIterator[Session]:
    """Talk to the monitor for the block, and let it go.

    :param what: what is being done, for the error's text.
    :param patience: seconds for the whole block.
    :raises CfctlError: if the monitor does not answer or refuses; the VM is as it was before the refused command.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        async with asyncio.timeout(patience):
            connection.setblocking(False)  # noqa: FBT003
            await asyncio.get_running_loop().sock_connect(connection, str(path))
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                await reader.readline()
                talk = Session(reader, writer, connection)
                await talk.execute("qmp_capabilities")
                yield talk
            finally:
                writer.close()
    except (OSError, ValueError, EOFError) as exc:
        raise CfctlError(f"QEMU's monitor did not do {what}", str(exc) or "It did not answer.") from exc
    finally:
        connection.close()


async def execute(path: Path, command: str, **arguments: Any) -> Any:
    """Run one command and let the monitor go.

    :return: what the monitor returned.
    :raises CfctlError: if it does not answer or refuses; the VM is as it was.
    """
    async with session(path, command) as talk:
        return await talk.execute(command, **arguments)


def _encoded(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"
