"""A loopback port that lets in one user alone: whose a connection is, and whose it is no longer."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from cfctl.remote import loopback

PATIENCE_S = 60.0


def _table(connection: socket.socket) -> str:
    """Return the kernel's line about the caller's end of a connection."""
    ours, theirs = (f":{address[1]:04X}" for address in (connection.getsockname(), connection.getpeername()))
    with Path("/proc/net/tcp").open() as table:
        return next((line for line in table if theirs in line.split()[1] and ours in line.split()[2]), "")


def test_our_own_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client, listener.accept()[0] as accepted:
            assert loopback.owner(accepted) == os.geteuid()
            assert loopback.is_ours(accepted)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make somebody else's socket")
def test_another_users_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        os.fchown(client.fileno(), 65534, 65534)
        client.connect(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert loopback.owner(accepted) == 65534


def test_who_has_closed_is_not_taken_for_root() -> None:
    """The kernel writes 0 as the user of a socket that its program has closed; what it sent can still be read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"CNXN")
        with listener.accept()[0] as accepted:
            deadline = time.monotonic() + PATIENCE_S
            # FIN_WAIT2 (include/net/tcp_states.h): what it sent has arrived.
            while _table(accepted).split()[3:4] not in ([], ["05"]):
                assert time.monotonic() < deadline
            assert loopback.owner(accepted) is None
            assert not loopback.is_ours(accepted)
            assert accepted.recv(10) == b"CNXN"
