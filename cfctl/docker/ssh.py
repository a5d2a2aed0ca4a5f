"""SSH into a container: a key of its own for each, and a host key that the engine itself has told us.

The engine is trusted already, so the container's public host key is read through it and pinned: a stranger on the
container network cannot pass for the container.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from cfctl.docker import execute, names, store
from cfctl.errors import LoginFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfctl.docker.container import Container

_CONNECT_S = 20.0


def _key_file(container: Container) -> Path:
    return store.directory(container.engine.url, container.name) / "id_ecdsa"


def _record(container: Container) -> store.Record:
    record = store.load(container.engine.url, container.name)
    if record is None or record.id != container.id:
        # Another container had the name.
        record = store.Record(name=container.name, id=container.id, engine=container.engine.url)
    record.sockets = os.fspath(container.sockets)
    return record


def install_key(container: Container) -> Any:
    """Make the key of a container, if this user has none for it, and let it in; return the key.

    Whoever may talk to the engine may do anything to the container: the key adds convenience, not rights.
    """
    import paramiko

    key = paramiko.ECDSAKey.generate(bits=256)
    text = io.StringIO()
    key.write_private_key(text)
    store.save(_record(container))
    file = _key_file(container)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text.getvalue())
    line = f"{key.get_name()} {key.get_base64()} cfctl\n".encode()
    before = execute.get(container, names.AUTHORIZED_KEYS) or b""
    execute.put(container, names.AUTHORIZED_KEYS, before + line)
    return key


def pin(container: Container) -> str:
    """Remember the host key of a container, as the engine tells it; return it."""
    raw = execute.get(container, f"{names.HOST_KEY}.pub")
    if raw is None:
        raise LoginFailed(f"{container.name} has no SSH host key", None, f"cfctl docker logs {container.name}")
    record = _record(container)
    record.host_key = " ".join(raw.decode().split()[:2])
    store.save(record)
    return record.host_key


def _load_key(container: Container) -> Any:
    import paramiko

    record = store.load(container.engine.url, container.name)
    if record is not None and record.id == container.id:
        # One that is not whole is as good as none: its disk was full, or the machine lost power.
        with contextlib.suppress(FileNotFoundError, paramiko.SSHException, ValueError):
            return paramiko.ECDSAKey.from_private_key_file(str(_key_file(container)))
    return install_key(container)


def connect(container: Container) -> Any:
    """Return an authenticated SSH connection to a container (paramiko.Transport); the caller closes it.

    :raises LoginFailed: if its sshd is not reached, or shows another host key than the pinned one.
    """
    import paramiko

    # It would tell the terminal what our own errors tell better.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    key = _load_key(container)
    pinned = _record(container).host_key or pin(container)
    if container.address is None:
        raise LoginFailed(
            f"{container.name} has no address that can be reached",
            f"Its network is {container.wish.network}.",
            f"Go in through the engine: cfctl docker login --exec {container.name}",
        )
    transport = None
    try:
        transport = paramiko.Transport(container.engine.dial(container.address, names.SSH_PORT, seconds=_CONNECT_S))
        kind, _, data = pinned.partition(" ")
        transport.get_security_options().key_types = (kind,)
        transport.start_client(timeout=_CONNECT_S)
        shown = transport.get_remote_server_key()
        if shown.get_base64() != data:
            raise LoginFailed(
                f"whoever answers at {container.address} is not {container.name}",
                f"Its host key is {shown.get_base64()[:24]}..., the pinned one {data[:24]}...",
                f"If the container made itself a new key: cfctl docker restart {container.name}",
            )
        transport.auth_publickey(names.USER, key)
        transport.set_keepalive(15)
    except (OSError, paramiko.SSHException, EOFError) as exc:
        if transport is not None:
            transport.close()
        raise LoginFailed(
            f"the sshd of {container.name} is not reached at {container.address}",
            str(exc) or type(exc).__name__,
            f"See whether it runs: cfctl docker logs {container.name}\n"
            f"Or go in through the engine: cfctl docker login --exec {container.name}",
        ) from exc
    except BaseException:
        if transport is not None:
            transport.close()
        raise
    return transport


@contextlib.contextmanager
def connected(container: Container) -> Iterator[Any]:
    """Hold an SSH connection for the block."""
    transport = connect(container)
    try:
        yield transport
    finally:
        transport.close()


def run(transport: Any, command: str, *, seconds: float) -> tuple[int, str]:
    """Run a command over SSH; return its exit status and all that it printed.

    :param command: for the user's shell at the other end: quote what is not yours.
    """
    channel = transport.open_session(timeout=_CONNECT_S)
    with contextlib.closing(channel):
        channel.set_combine_stderr(True)
        channel.settimeout(seconds)
        channel.exec_command(command)
        channel.shutdown_write()
        output = b""
        deadline = time.monotonic() + seconds
        while (chunk := channel.recv(65536)) and time.monotonic() < deadline:
            output += chunk
        return channel.recv_exit_status(), output.decode(errors="replace").strip()
