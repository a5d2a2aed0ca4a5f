"""The forwarder behind ``cfctl docker publish``: one supervisor and one worker per container with published ports.

The supervisor starts the worker again whenever it ends. The worker reads the record twice a second, listens where it
says, and opens a channel of one SSH connection to the container for each client. It looks the container up again
whenever that connection is gone, so that it survives the container's and the engine's restart; it ends by itself when
the record does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from typing import Any

from cfctl import process
from cfctl.docker import container as containers
from cfctl.docker import engine as engines
from cfctl.docker import publish, ssh, store
from cfctl.errors import CfctlError
from cfctl.wire import pump

_TICK_S = 0.5

#: Between two attempts to reach a container, and to start a worker that has ended.
_PAUSE_S = 1.0

_WORKER = "--worker"


class Way:
    """The SSH connection to a container, made when it is needed and again when it has broken."""

    def __init__(self, engine: str, name: str, container_id: str) -> None:
        self._engine = engine
        self._name = name
        self._id = container_id
        self._lock = threading.Lock()
        self._transport: Any = None

    def open(self, port: int) -> Any:
        """Return a channel to a port of the container's loopback.

        :raises CfctlError, OSError: if there is no way.
        """
        import paramiko

        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = self._connect()
            transport = self._transport
        try:
            return transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=20)
        except paramiko.ChannelException as exc:
            # The connection is well; nobody listens inside.
            raise OSError(str(exc)) from exc
        except (paramiko.SSHException, EOFError) as exc:
            with self._lock:
                if self._transport is transport:
                    transport.close()
                    self._transport = None
            raise OSError(str(exc)) from exc

    def _connect(self) -> Any:
        container = containers.running(engines.connect(self._engine), self._name)
        if container.id != self._id:
            raise CfctlError(f"{self._name} is another container by now")
        return ssh.connect(container)


def _serve(client: socket.socket, way: Way, port: int) -> None:
    """Carry one connection from beginning to end."""
    with contextlib.closing(client):
        try:
            channel = way.open(port)
        except (CfctlError, OSError) as exc:
            _say(f"port {port}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}")
            return
        with contextlib.closing(channel), contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pump.join_blocking(client, channel)


class Listener:
    """One published port."""

    def __init__(self, port: store.Port, way: Way) -> None:
        self._port = port
        self._way = way
        family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
        self._socket = socket.create_server((port.address, port.port), family=family)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, self._way, self._port.inside), daemon=True).start()

    def close(self) -> None:
        """Listen no more; connections that are there go on."""
        with contextlib.suppress(OSError):
            # Wakes the thread that accepts, which close alone does not.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def work(engine: str, url: str, name: str) -> int:
    """Forward until the record says that nothing is to be forwarded."""
    record = store.load(url, name)
    if record is None:
        return 0
    way = Way(engine, name, record.id)
    listeners: dict[store.Port, Listener] = {}
    while (record := store.load(url, name)) is not None and record.ports:
        wanted = set(record.ports)
        for port in listeners.keys() - wanted:
            listeners.pop(port).close()
        for port in wanted - listeners.keys():
            try:
                listeners[port] = Listener(port, way)
            except OSError as exc:
                _say(f"{port}: {exc.strerror}")
        time.sleep(_TICK_S / 5 if wanted - listeners.keys() else _TICK_S)
    return 0


def supervise(argv: list[str]) -> int:
    """Keep a worker running; the lock says that we do."""
    _, url, name = argv
    record = store.load(url, name)
    if record is None:
        return 0
    fd = os.open(publish.lock_file(record), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    log = store.directory(url, name) / "forwarder.log"
    while (record := store.load(url, name)) is not None and record.ports:
        worker = process.start(
            [sys.executable, "-m", "cfctl.docker.forward", *argv, _WORKER], output=log, die_with_parent=True
        )
        status = worker.wait()
        if status != 0:
            time.sleep(_PAUSE_S)
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Be the supervisor, or with ``--worker`` the worker. Arguments: the engine, its address, the container."""
    if argv[-1] == _WORKER:
        return work(*argv[:3])
    return supervise(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
