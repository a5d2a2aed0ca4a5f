"""Ports of a device's container on this machine: asked for, listed, withdrawn.

Docker cannot add ports to a container that is there. A process of ours listens here and goes through the container's
sshd to its loopback, where a device's ADB is; so the ports need no way into the container that its neighbours have
too, and they work alike for an engine on another machine. docs/docker.md tells how it is supervised.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

import cfctl
from cfctl import locks, process, steps
from cfctl.docker import store
from cfctl.docker.store import Port
from cfctl.errors import CfctlError, DeadlinePassed, UsageError
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfctl.docker.container import Container

LOOPBACK = "127.0.0.1"

#: A busy machine, not a broken one.
_START_S = 30.0
_LAST_PORT = 65535


def parse(text: str, address: str) -> Port:
    """Read ``INSIDE`` or ``HERE:INSIDE``; without HERE the port is the same on both sides.

    :raises UsageError: for anything else.
    """
    here, colon, inside = text.partition(":")
    inside = inside if colon else here
    try:
        port = Port(address, int(here), int(inside))
    except ValueError:
        raise UsageError(
            f"{text!r} names no port", "It is written PORT or HERE:INSIDE, for example 18443:8443"
        ) from None
    if not (0 < port.port <= _LAST_PORT and 0 < port.inside <= _LAST_PORT):
        raise UsageError(f"{text!r} names no port", f"Ports are 1 to {_LAST_PORT}.")
    return port


def default_ports(container: Container, address: str) -> list[Port]:
    """Return the ADB port of every instance; the same here, if it is free, because numbers are the machine's.

    One that is published at this address already stays where it is.

    :raises UsageError: for what is no address of this machine.
    """
    check_address(address)
    have = {port.inside: port for port in _require(container).ports if port.address == address}
    ports = []
    for number in container.numbers:
        inside = Instance(number).adb_port
        new = Port(address, inside if _is_free(address, inside) else _any_free(address), inside)
        ports.append(have.get(inside, new))
    return ports


def check_address(address: str) -> None:
    """Make sure that somebody can listen on an address.

    :raises UsageError: if it is none, or not this machine's.
    """
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{address!r} is not an address", "It is written in numbers: 127.0.0.1, ::1.") from None
    try:
        _any_free(address)
    except OSError as exc:
        raise UsageError(
            f"{address} is not an address of this machine", exc.strerror, "See which it has: ip -brief address"
        ) from exc


def publish(container: Container, ports: Sequence[Port]) -> list[Port]:
    """Publish ports of a container; those that are published already stay.

    :return: all that are published then.
    :raises UsageError: for what is no address of this machine.
    :raises CfctlError: if a port is taken on this machine; nothing is changed then.
    """
    for address in {port.address for port in ports}:
        check_address(address)
    with _changing(container):
        record = _require(container)
        have = {port.inside: port for port in record.ports}
        new = [port for port in ports if have.get(port.inside) != port]
        replaced = {str(have[port.inside]) for port in new if port.inside in have}
        for port in new:
            if str(port) not in replaced and not _is_free(port.address, port.port):
                raise CfctlError(
                    f"port {port} of this machine is taken",
                    "Nothing was changed.",
                    f"Take another: cfctl docker publish {container.name} --port OTHER:{port.inside}",
                )
            if port.address != LOOPBACK:
                steps.note(f"{port}: whoever reaches it has the device, there is no password.")
        record.ports = tuple(sorted({**have, **{port.inside: port for port in new}}.values(), key=lambda p: p.inside))
        store.save(record)
        _run_forwarder(record, container.engine.name)
        _wait_until_open(record)
    return list(record.ports)


def unpublish(container: Container, insides: Sequence[int]) -> list[Port]:
    """Withdraw published ports; without any named, all. Return those that were withdrawn."""
    with _changing(container):
        record = store.load(container.engine.url, container.name)
        if record is None:
            return []
        gone = [port for port in record.ports if not insides or port.inside in insides or port.port in insides]
        record.ports = tuple(port for port in record.ports if port not in gone)
        store.save(record)
        if not record.ports:
            _stop_forwarder(record)
    return gone


def close_all(engine: str, name: str) -> None:
    """Stop forwarding to a container, which is about to be removed."""
    record = store.load(engine, name)
    if record is not None:
        _stop_forwarder(record)


def revive(container: Container) -> None:
    """Start the forwarder of a container again if it should run and does not: after a reboot of this machine, say."""
    record = store.load(container.engine.url, container.name)
    if record and record.id == container.id and record.ports and not is_forwarding(record):
        with _changing(container):
            steps.note(f"{container.name}: its published ports had lost their forwarder, which is started again")
            _run_forwarder(record, container.engine.name)


def is_forwarding(record: store.Record) -> bool:
    """Tell whether the forwarder of a container runs: it holds a lock for as long as it does."""
    try:
        fd = os.open(lock_file(record), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def lock_file(record: store.Record) -> Path:
    """Return the file that the forwarder's supervisor locks."""
    return store.directory(record.engine, record.name) / "forwarder.lock"


def _changing(container: Container) -> AbstractContextManager[None]:
    return locks.exclusive(store.directory(container.engine.url, container.name) / "publish.lock")


def _require(container: Container) -> store.Record:
    record = store.load(container.engine.url, container.name)
    if record is None or record.id != container.id:
        record = store.Record(name=container.name, id=container.id, engine=container.engine.url)
    return record


def _run_forwarder(record: store.Record, engine: str) -> None:
    if is_forwarding(record):
        return
    home = store.directory(record.engine, record.name)
    code = os.path.dirname(os.path.dirname(cfctl.__file__))  # noqa: PTH120
    child = process.start(
        [sys.executable, "-m", "cfctl.docker.forward", engine, record.engine, record.name],
        output=home / "forwarder.log",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))},
    )
    record.forwarder = child.pid
    store.save(record)


def _stop_forwarder(record: store.Record) -> None:
    if record.forwarder and is_forwarding(record):
        argv = process.command_line(record.forwarder)
        if "cfctl.docker.forward" in argv and record.name in argv:
            process.end([record.forwarder], patience=5)


def _wait_until_open(record: store.Record) -> None:
    deadline = time.monotonic() + _START_S
    waiting = list(record.ports)
    while waiting:
        waiting = [port for port in waiting if _is_free(port.address, port.port)]
        if waiting and time.monotonic() > deadline:
            log = store.directory(record.engine, record.name) / "forwarder.log"
            raise DeadlinePassed(
                f"the forwarder does not listen on {waiting[0]}",
                log.read_text(errors="replace")[-1000:] if log.exists() else None,
                f"Withdraw the port: cfctl docker unpublish {record.name}",
            )
        if waiting:
            time.sleep(0.05)


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _any_free(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
