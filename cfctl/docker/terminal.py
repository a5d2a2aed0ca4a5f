"""A shell in a container at this terminal, over SSH or through the engine."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import socket
import struct
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

from cfctl.docker import names, ssh
from cfctl.docker.engine import asking
from cfctl.errors import LoginFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfctl.docker.container import Container

_CHUNK = 32768


def login(container: Container, command: list[str]) -> int:
    """Run a command, or a shell, over SSH at this terminal; return its exit status.

    :raises LoginFailed: see :func:`ssh.connect`; or if the shell cannot be started.
    """
    interactive = sys.stdin.isatty() and (not command or sys.stdout.isatty())
    with ssh.connected(container) as transport:
        channel = _begin(transport, container, command, interactive=interactive)

        def resize() -> None:
            columns, rows = shutil.get_terminal_size()
            channel.resize_pty(columns, rows)

        with _raw(resize) if interactive else contextlib.nullcontext():
            _pump_channel(channel)
        status: int = channel.recv_exit_status()
        return status


def _begin(transport: Any, container: Container, command: list[str], *, interactive: bool) -> Any:
    """Return a channel in which the command or the shell has been started."""
    from paramiko import SSHException

    try:
        channel = transport.open_session()
        if interactive:
            columns, rows = shutil.get_terminal_size()
            channel.get_pty(os.environ.get("TERM", "vt100"), columns, rows)
        if command:
            channel.exec_command(shlex.join(command))
        else:
            channel.invoke_shell()
    except (SSHException, EOFError) as exc:
        raise LoginFailed(
            f"the sshd of {container.name} let us in, and then closed the connection",
            str(exc) or type(exc).__name__,
            f"See what it says: cfctl docker logs {container.name} --which container\n"
            f"Or go in through the engine: cfctl docker login --exec {container.name}",
        ) from exc
    return channel


def enter(container: Container, command: list[str]) -> int:
    """Do the same through the engine (``docker exec``), for a container of which the network is not reached."""
    api = container.engine.api.api
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with asking(f"run a command in {container.name}"):
        made = api.exec_create(
            container.id,
            command or ["/bin/bash", "-l"],
            stdin=True,
            tty=interactive,
            user=names.USER,
            environment={"HOME": names.HOME, "USER": names.USER, "TERM": os.environ.get("TERM", "vt100")},
            workdir=names.HOME,
        )
        raw = api.exec_start(made["Id"], tty=interactive, socket=True)
        sock = getattr(raw, "_sock", raw)
        if not interactive:
            _pump_frames(sock)
        else:

            def resize() -> None:
                columns, rows = shutil.get_terminal_size()
                api.exec_resize(made["Id"], height=rows, width=columns)

            resize()
            with _raw(resize):
                _pump_socket(sock)
        return int(api.exec_inspect(made["Id"])["ExitCode"] or 0)


@contextlib.contextmanager
def _raw(resize: Callable[[], None]) -> Iterator[None]:
    """Hand every key to the other end, and its new size whenever the terminal changes it."""
    before = termios.tcgetattr(sys.stdin)
    handler = signal.signal(signal.SIGWINCH, lambda *_: resize())
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pump_channel(channel: Any) -> None:
    watched: list[Any] = [channel, sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if channel in ready:
            while channel.recv_stderr_ready():
                _write(2, channel.recv_stderr(_CHUNK))
            if channel.recv_ready() or not channel.recv_stderr_ready():
                data = channel.recv(_CHUNK) if channel.recv_ready() or channel.eof_received else b""
                if data:
                    _write(1, data)
                elif channel.eof_received and not channel.recv_stderr_ready():
                    return
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), _CHUNK)
            if data:
                channel.sendall(data)
            else:
                channel.shutdown_write()
                watched.remove(sys.stdin.fileno())


#: Without a terminal, what is written comes in frames: which of the two outputs, three bytes of nothing, the length
#: (docs.docker.com/reference/api/engine, "Attach to a container").
_FRAME = struct.Struct(">BxxxI")


def _pump_frames(sock: Any) -> None:
    """Send what there is to be read here, and write what the command writes to its two outputs, until it ends."""
    watched: list[Any] = [sock, sys.stdin.fileno()]
    waiting = b""
    while True:
        ready, _, _ = select.select(watched, [], [])
        if sock in ready:
            data = sock.recv(_CHUNK)
            if not data:
                return
            waiting += data
            while len(waiting) >= _FRAME.size:
                output, length = _FRAME.unpack_from(waiting)
                end = _FRAME.size + length
                if len(waiting) < end:
                    break
                _write(2 if output == 2 else 1, waiting[_FRAME.size : end])
                waiting = waiting[end:]
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), _CHUNK)
            if data:
                sock.sendall(data)
            else:
                watched.remove(sys.stdin.fileno())
                # The command is to see the end of its input, and we the rest of what it says.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)


def _pump_socket(sock: Any) -> None:
    watched: list[Any] = [sock, sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if sock in ready:
            data = sock.recv(_CHUNK)
            if not data:
                return
            _write(1, data)
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), _CHUNK)
            if data:
                sock.sendall(data)
            else:
                watched.remove(sys.stdin.fileno())


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
