"""The front: takes connections, bounds them, speaks TLS, and knows who is at the other end.

gRPC's own server has none of these limits, and does not say who called; nor has aiohttp's. They listen behind the
front, on unix sockets in a directory that nobody else may enter. The front's end of each inner connection is bound to
an abstract name of its own, which is what gRPC calls the peer: so a call is known to come over one connection,
whatever it claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import socket
import ssl
import struct
from asyncio import sslproto
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.relay.connection import Connection, nothing, peer_of
from cfctl.relay.splice import Caller, Side, begins_http2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cfctl.relay.limits import Limits

log = logging.getLogger(__name__)

#: struct ucred (unix(7)).
_UCRED = struct.Struct("3i")

#: Connections that are taken at a time before others have their turn.
_AT_ONCE = 32

#: For decrypting, per connection: two records of TLS.
_TLS_BUFFER = 32 << 10

#: How long nothing is accepted when the process may open no more files.
_BREATH_S = 1.0

#: A caller that has vanished is given up after about a minute (tcp(7)).
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}


@dataclass(frozen=True, slots=True)
class Behind:
    """What answers behind the front.

    :param name: connections of one address are counted for each apart.
    :param path: the unix socket that it listens on.
    :param begins: tells of a caller's first bytes whether he speaks what it speaks.
    :param per_peer: connections of one address at once.
    """

    name: str
    path: Path
    begins: Callable[[bytes], bool | None]
    per_peer: int


class Front:
    """All listeners and connections of a relay.

    :param inside: the unix socket that gRPC listens on.
    :param heard: called with the bytes that came from callers, and that went to them.
    """

    def __init__(self, inside: Path, limits: Limits, heard: Callable[[int, int], None]) -> None:
        self._grpc = Behind("", inside, begins_http2, limits.per_peer)
        self._limits = limits
        self._heard = heard
        # asyncio has 256 KiB ready for each connection, if it may, for records of 16 KiB (RFC 8446 section 5.1).
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
        self._listeners: list[socket.socket] = []
        self._connections: dict[str, Connection] = {}
        self._strangers: dict[int, Connection] = {}
        self._peers: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0
        #: Connections that were turned away, by reason.
        self.refused: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    def connection(self, peer: str) -> Connection | None:
        """Return the connection that a call comes on.

        :param peer: gRPC's name for it (``context.peer()``).
        """
        return self._connections.get(peer.removeprefix("unix-abstract:"))

    def listen(
        self, listener: socket.socket, tls: Callable[[], ssl.SSLContext] | None, behind: Behind | None = None
    ) -> None:
        """Take connections from a listening socket, which is the front's from now on.

        :param tls: returns what new connections are to be encrypted with; None for a unix socket, and on loopback.
        :param behind: what answers; gRPC if nothing else is named.
        """
        listener.settimeout(0)
        self._listeners.append(listener)
        self._resume(listener, tls, behind or self._grpc)

    def leave(self) -> None:
        """Take no more connections; those that there are go on."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """End everything."""
        self.leave()
        for connection in list(self._connections.values()):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- accepting -----------------------------------------------------------------------------------------

    def _resume(self, listener: socket.socket, tls: Callable[[], ssl.SSLContext] | None, behind: Behind) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, tls, behind)

    def _accept(self, listener: socket.socket, tls: Callable[[], ssl.SSLContext] | None, behind: Behind) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(listener)
                    loop.call_later(_BREATH_S, self._resume, listener, tls, behind)
                    return
                continue  # the caller was gone again
            self._take(sock, tls, behind)

    def _take(self, sock: socket.socket, tls: Callable[[], ssl.SSLContext] | None, behind: Behind) -> None:
        """Let a caller in, or turn him away."""
        sock.settimeout(0)
        try:
            connection = self._who(sock)
        except (OSError, ValueError):
            sock.close()
            return
        connection.behind = behind.name
        if len(self._connections) >= self._limits.connections:
            reason = "connections"
        elif self._peers[_share(connection)] >= behind.per_peer:
            reason = "per_peer"
        else:
            # Counted before anybody else is: many may be accepted before the first one is served.
            self._enter(connection)
            task = asyncio.get_running_loop().create_task(self._serve(sock, connection, tls, behind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self.refused[reason] += 1
        sock.close()

    def _who(self, sock: socket.socket) -> Connection:
        self._last += 1
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _gid = _UCRED.unpack(raw)
            return Connection(self._last, f"unix:pid={pid},uid={uid}", f"uid {uid}", uid)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        host, port = sock.getpeername()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Connection(self._last, address, peer_of(host), None)

    # -- serving -------------------------------------------------------------------------------------------

    async def _serve(
        self, sock: socket.socket, connection: Connection, tls: Callable[[], ssl.SSLContext] | None, behind: Behind
    ) -> None:
        """Serve one connection until its end."""
        if self._name(connection) not in self._connections:
            # Another one has taken its place already.
            sock.close()
            return
        ended = asyncio.Event()
        greeted: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def greet(first: bytes | None) -> None:
            if not greeted.done():
                greeted.set_result(first)

        def lost() -> None:
            greet(None)
            ended.set()

        caller = Caller(
            self._limits.buffer, lambda size: self._received(connection, size), behind.begins, greet, lost
        )

        def abort() -> None:
            lost()
            if caller.transport is not None:
                caller.transport.abort()
            else:
                # Not even TLS has been agreed upon.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        connection.close = abort
        deadline = asyncio.get_running_loop().call_later(self._limits.introduce_s, self._introduced, connection)
        spoken = False
        try:
            async with asyncio.timeout(2 * self._limits.handshake_s):
                await self._first_byte(sock)
                spoken = True
                await self._shake_hands(sock, caller, tls)
                first = await self._greeting(greeted)
                inner = await self._connect(behind.path, self._name(connection), first)
            caller.join(inner)
            await ended.wait()
        except (OSError, TimeoutError, ssl.SSLError, EOFError) as exc:
            # Who hangs up without a word has only looked whether somebody listens, or at the certificate.
            silent = not spoken or (isinstance(exc, EOFError) and not caller.stammers)
            if not silent or isinstance(exc, TimeoutError):
                self.refused["handshake"] += 1
            log.debug("%s: %s", connection.address, exc)
        finally:
            connection.close = nothing
            deadline.cancel()
            self._exit(connection)
            if caller.transport is not None:
                caller.transport.abort()
            if spoken:
                # Not closed: a transport that has not noticed yet waits for this descriptor, and closes it then.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            else:
                sock.close()

    def _received(self, connection: Connection, size: int) -> None:
        """Count what a caller has sent; a stranger has no more to say than one call."""
        self._heard(size, 0)
        connection.received += size
        if not connection.known and connection.received > self._limits.strange_bytes:
            self.refused["strange_bytes"] += 1
            connection.close()

    async def _first_byte(self, sock: socket.socket) -> None:
        """Wait until the caller has said anything: before that, a connection costs us a descriptor, and no more.

        :raises TimeoutError: if he says nothing.
        :raises EOFError: if he hangs up, or was turned away meanwhile.
        """
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()

        def noticed() -> None:
            loop.remove_reader(sock)
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(sock, noticed)
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                await readable
        finally:
            loop.remove_reader(sock)
        if not sock.recv(1, socket.MSG_PEEK):
            raise EOFError("he hung up")

    async def _shake_hands(
        self, sock: socket.socket, caller: Caller, tls: Callable[[], ssl.SSLContext] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if tls is None:
            await loop.connect_accepted_socket(lambda: caller, sock)
        else:
            await loop.connect_accepted_socket(
                lambda: caller,
                sock,
                ssl=tls(),
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.handshake_s,
            )

    async def _greeting(self, greeted: asyncio.Future[bytes | None]) -> bytes:
        """Wait until the caller has begun.

        :raises EOFError: if the caller says something else, or hangs up.
        """
        async with asyncio.timeout(self._limits.handshake_s):
            first = await greeted
        if first is None:
            raise EOFError("no beginning")
        return first

    async def _connect(self, path: Path, name: str, first: bytes) -> Side:
        """Connect to whoever answers under a name, and hand over what the caller has begun with."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(0)
            sock.bind(f"\0{name}")
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, os.fspath(path))
            inner = Side(self._limits.buffer, lambda size: self._heard(0, size))
            transport, _ = await loop.create_connection(lambda: inner, sock=sock)
        except BaseException:
            sock.close()
            raise
        transport.write(first)
        return inner

    # -- who is there --------------------------------------------------------------------------------------

    def _name(self, connection: Connection) -> str:
        """Return the abstract name that the inner connection is bound to.

        It is no secret once it is bound, and of no use: what is behind it cannot be reached without the directory.
        Before that nobody must know it: everybody on the host may bind a name, and who had it first would keep the
        connection from coming about.
        """
        return connection.inside

    def _enter(self, connection: Connection) -> None:
        connection.inside = f"cfctl-relay-{os.getpid()}-{connection.id}-{secrets.token_hex(8)}"
        self._connections[self._name(connection)] = connection
        self._peers[_share(connection)] += 1
        connection.welcome = lambda: self._welcome(connection)
        if connection.uid is not None:
            # The kernel vouches for him.
            connection.known = True
            return
        while len(self._strangers) >= self._limits.strangers:
            oldest = next(iter(self._strangers.values()))
            self.refused["strangers"] += 1
            oldest.close()
            # Its task ends by and by; its place is free now.
            self._exit(oldest)
        self._strangers[connection.id] = connection

    def _welcome(self, connection: Connection) -> None:
        connection.known = True
        self._strangers.pop(connection.id, None)

    def _introduced(self, connection: Connection) -> None:
        """Close a connection that has shown no token in time."""
        if not connection.known:
            self.refused["introduce"] += 1
            connection.close()

    def _exit(self, connection: Connection) -> None:
        if self._connections.pop(self._name(connection), None) is None:
            return
        self._strangers.pop(connection.id, None)
        share = _share(connection)
        self._peers[share] -= 1
        if self._peers[share] <= 0:
            del self._peers[share]


def _share(connection: Connection) -> tuple[str, str]:
    """Return what a connection counts for."""
    return connection.behind, connection.peer
