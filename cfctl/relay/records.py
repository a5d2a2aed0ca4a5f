"""Records over a unix socket of the kind SOCK_SEQPACKET: one is one JSON object, however it is laid out.

asyncio has no streams for it. What is to be sent waits in a short queue, so that nobody waits for a peer that reads
nothing: it is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from cfctl.wire.webrtc_messages import LONGEST_RECORD, MalformedMessage

#: struct ucred (unix(7)).
_UCRED = struct.Struct("3i")

#: Records for a peer that reads slowly; as many as the stock operator holds for a client.
_WAITING = 256
_WAITING_BYTES = 8 << 20


class Records:
    """One connection.

    :param sock: connected; closed with this.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        # A record has to fit whole.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LONGEST_RECORD)
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self._sock = sock
        self.pid, self.uid, _gid = _UCRED.unpack(raw)
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self._bytes = 0
        self._writer = asyncio.create_task(self._write())

    async def read(self) -> bytes | None:
        """Return the next record; None at the end.

        :raises MalformedMessage: if it is longer than any may be.
        """
        try:
            data = await asyncio.get_running_loop().sock_recv(self._sock, LONGEST_RECORD + 1)
        except OSError:
            return None
        if len(data) > LONGEST_RECORD:
            raise MalformedMessage("a record without end")
        return data or None

    def send(self, record: bytes) -> None:
        """Send a record by and by; a peer that does not read is dropped."""
        self._bytes += len(record)
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:
            self.close()
        if self._bytes > _WAITING_BYTES:
            self.close()

    def close(self) -> None:
        """End the connection now; a reader is told."""
        self._writer.cancel()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    async def finish(self, seconds: float = 1.0) -> None:
        """Send what waits, and close."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(None)
        await asyncio.wait({self._writer}, timeout=seconds)
        self.close()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._sock.close()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while (record := await self._waiting.get()) is not None:
            try:
                await loop.sock_sendall(self._sock, record)
            except OSError:
                self.close()
                return
            self._bytes -= len(record)
