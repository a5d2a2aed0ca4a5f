"""The streamer's side of the registration socket: one record is one JSON object (SOCK_SEQPACKET)."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from msgspec import Raw

from cfctl.wire import webrtc_messages as messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

#: After a failure, as a stock streamer waits. That one gives up after the third; this one goes on looking, which
#: costs a system call, because a relay may be started after the device.
_WAITS_S = (1.0, 2.0, 4.0)
_LOOK_S = 2.0


class Registration:
    """Registers, and again whenever the connection is lost.

    :param path: the operator's or relay's socket.
    :param hear: told every message; what it raises ends the streamer.
    :param say: told what is worth a line in the log.
    """

    def __init__(
        self,
        path: Path,
        register: messages.Register,
        hear: Callable[[messages.ToStreamer], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self._path = path
        self._register = register
        self._hear = hear
        self._say = say
        self._socket: socket.socket | None = None
        self._sending = asyncio.Lock()

    async def forward(self, client: int, payload: bytes) -> None:
        """Send a payload to a client; without a connection it is lost, as the client will hear soon enough."""
        await self._send(messages.encode(messages.Forward(client, Raw(payload))))

    async def run(self) -> None:
        """Be registered, until cancelled."""
        failures = 0
        while True:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                    connection.setblocking(False)  # noqa: FBT003
                    await asyncio.get_running_loop().sock_connect(connection, os.fspath(self._path))
                    self._socket = connection
                    await self._send(messages.encode(self._register))
                    if await self._listen(connection):
                        failures = 0
            except OSError as error:
                if failures < len(_WAITS_S):
                    self._say(f"{self._path}: {error.strerror or error}")
            finally:
                self._socket = None
            await asyncio.sleep(_WAITS_S[failures] if failures < len(_WAITS_S) else _LOOK_S)
            if failures == len(_WAITS_S):
                self._say(f"nobody answers at {self._path}: looking for it every {_LOOK_S:g} s")
            failures += 1

    async def _listen(self, connection: socket.socket) -> bool:
        """Hear records until the connection is closed; tell whether the registration was taken."""
        taken = False
        while record := await asyncio.get_running_loop().sock_recv(connection, messages.LONGEST_RECORD):
            try:
                message = messages.decode(record, messages.ToStreamer)
            except messages.MalformedMessage as error:
                self._say(f"{self._path} says what is not understood: {record[:200]!r} ({error})")
                continue
            if isinstance(message, messages.Config) and not taken:
                taken = True
                self._say(f"registered as {self._register.device_id} at {self._path}")
            await self._hear(message)
        self._say(f"{self._path} has closed the connection")
        return taken

    async def _send(self, record: bytes) -> None:
        async with self._sending:
            if self._socket is None:
                return
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, record)
            except OSError as error:
                self._say(f"{self._path}: {error.strerror or error}")
