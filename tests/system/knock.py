"""Tells whether a TCP connection comes through: ``python -m tests.system.knock FROM TO ADDRESS`` (namespaces).

One process that listens in the one and connects from the other, so that nothing is left behind. Not a ping: some
firewalls let pings through and nothing else.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from pathlib import Path

PORT = 7777
CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    """Go on in another network namespace (setns(2)); ``host`` is the one that this began in."""
    with (Path("/proc/1/ns/net") if namespace == "host" else Path("/run/netns", namespace)).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    origin, target, address = sys.argv[1:]
    enter(target)
    with socket.create_server(("", PORT)):
        enter(origin)
        try:
            # Where it comes through, it does so at once.
            socket.create_connection((address, PORT), timeout=2).close()
        except OSError as exc:
            print(f"closed: {exc}")
        else:
            print("open")
