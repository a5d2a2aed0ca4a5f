"""The client of QEMU's monitor (QEMU docs/interop/qmp-spec.txt; vm_control.md section 5).

The monitor serves one client at a time: if somebody holds it, everybody else waits without a word, a stop too. So a
session lasts as long as a few commands and is never kept. The embedded guest's launcher talks to QEMU with this
module too: it runs on Python's standard library alone, and so does this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: If somebody holds the monitor, it stays silent.
PATIENCE_S = 5.0

#: The longest line that is read: QEMU's description of itself has 200 kB.
_LONGEST_LINE = 10 << 20


class QmpFailed(CfctlError):
    """QEMU's monitor did not answer, or went away; what was asked last may have been done."""

    code = "qmp-failed"


class QmpRefused(QmpFailed):
    """QEMU's monitor refused a command; the VM is as it was before it.

    :param kind: QEMU's class of the error, for example ``DeviceNotActive``.
    :param said: its own words.
    """

    code = "qmp-refused"

    def __init__(self, command: str, kind: str, said: str) -> None:
        super().__init__(f"QEMU's monitor did not do {command}", said)
        self.kind = kind
        self.said = said


class Session:
    """One short conversation with the monitor: it serves nobody else meanwhile.

    :param pid: the QEMU that answers; 0 if it is in a PID namespace that is not seen.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: socket.socket) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = connection
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid: int = struct.unpack("=iII", raw)[0]

    async def execute(self, command: str, /, **arguments: Any) -> Any:
        """Run one command; return what the monitor returned. An underscore in an argument's name is a dash.

        :raises QmpRefused: if it refuses.
        :raises OSError, EOFError, ValueError: if it goes away, or does not speak QMP.
        """
        return await self.request(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    async def request(self, command: str, arguments: dict[str, Any]) -> Any:
        """Run one command as :meth:`execute` does, with arguments by the names that QEMU has for them."""
        self._writer.write(_encoded(command, arguments))
        return await self._answer(command)

    async def give(self, name: str, fd: int) -> None:
        """Hand a descriptor to QEMU, where later commands call it ``fd:NAME`` (QMP ``getfd``)."""
        await self._writer.drain()
        socket.send_fds(self._connection, [_encoded("getfd", {"fdname": name})], [fd])
        await self._answer("getfd")

    async def _answer(self, command: str) -> Any:
        # Events come in between.
        while not ({"return", "error"} & (answer := await self._line()).keys()):
            pass
        if "error" in answer:
            error = answer["error"]
            raise QmpRefused(command, str(error.get("class", "")), str(error.get("desc", "refused")))
        return answer["return"]

    async def greeted(self) -> None:
        """Take the greeting, and agree on what is spoken."""
        if "QMP" not in await self._line():
            raise ValueError("it does not speak QMP")
        await self.execute("qmp_capabilities")

    async def _line(self) -> dict[str, Any]:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it closed the connection")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("it does not speak QMP")  # noqa: TRY004 (what comes from outside is wrong in value)
        return found


@contextlib.asynccontextmanager
async def session(path: Path, what: str, *, patience: float | None = PATIENCE_S) -> AsyncIterator[Session]:
    """Talk to the monitor for the block, and let it go.

    :param what: what is being done, for the error's text.
    :param patience: seconds for the whole block; None for a monitor that nobody else needs.
    :raises QmpRefused: if the monitor refuses a command; the VM is as it was before it.
    :raises QmpFailed: if it is not there, does not answer in time, or goes away.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        async with asyncio.timeout(patience):
            connection.setblocking(False)  # noqa: FBT003
            await asyncio.get_running_loop().sock_connect(connection, os.fspath(path))
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_LINE)
            try:
                talk = Session(reader, writer, connection)
                await talk.greeted()
                yield talk
            finally:
                writer.close()
    except TimeoutError as exc:
        why = "It did not answer: it serves one client at a time, and somebody may hold it."
        raise QmpFailed(f"QEMU's monitor did not do {what}", why) from exc
    except (OSError, ValueError, EOFError, KeyError) as exc:
        raise QmpFailed(f"QEMU's monitor did not do {what}", str(exc) or "It did not answer.") from exc
    finally:
        connection.close()


async def execute(path: Path, command: str, /, **arguments: Any) -> Any:
    """Run one command and let the monitor go; see :meth:`Session.execute`.

    :raises QmpFailed: as :func:`session`.
    """
    async with session(path, command) as talk:
        return await talk.execute(command, **arguments)


def _encoded(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"
