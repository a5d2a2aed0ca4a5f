"""Asks the tap service as clients do, and as they should not: ``python -m tests.system.tap_asker WAY NUMBER``.

Written against the protocol, not with the client: one packet of JSON and a descriptor. Prints ``done``, or code and
text of the error, or ``closed``.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import sys
from pathlib import Path

from tests.system.tap_client import attach

LOCKS = Path("/var/tmp/cvd/lock")


def connect() -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(60)
    client.connect("/run/cfctl/taps.sock")
    return client


def ask(client: socket.socket, packet: bytes, *fds: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        client.sendmsg([packet], rights)
        raw = client.recv(65536)
    except (ConnectionResetError, BrokenPipeError):
        raw = b""
    error = json.loads(raw).get("error") if raw else None
    text = f"{error['code']}: {error['brief']}: {error['details']}" if error else "done" if raw else "closed"
    print(text.replace("\n", " "))


def request(action: str, number: int) -> bytes:
    return json.dumps({"action": action, "number": number, "version": 1}).encode()


def lock_file(number: int, *, locked: bool = True, directory: Path = LOCKS) -> int:
    os.umask(0)
    for path in (directory.parent, directory):
        # Whoever comes first makes it for all, as cfctl does.
        if path != Path("/tmp"):
            path.mkdir(exist_ok=True)
    fd = os.open(directory / f"local-instance-{number}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    if locked:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def main(way: str, number: int) -> None:
    packet = request("make", number)
    if way in ("make", "remove", "life"):
        fd = lock_file(number)
        for action in ("make", "remove") if way == "life" else (way,):
            ask(connect(), request(action, number), fd)
    elif way == "use":
        fd = lock_file(number)
        ask(connect(), packet, fd)
        tap = attach(f"cvd-mtap-{number:02d}")
        ask(connect(), request("remove", number), fd)
        os.close(tap)
        ask(connect(), request("remove", number), fd)
    elif way == "hold":
        fd = lock_file(number)
        ask(connect(), packet, fd)
        print("holding", flush=True)
        sys.stdin.read()
    elif way == "touch":
        lock_file(number)
    elif way == "nothing":
        ask(connect(), packet)
    elif way == "unlocked":
        ask(connect(), packet, lock_file(number, locked=False))
    elif way == "shared":
        fd = lock_file(number, locked=False)
        fcntl.flock(fd, fcntl.LOCK_SH)
        ask(connect(), packet, fd)
    elif way == "path":
        lock_file(number)
        fd = os.open(LOCKS / f"local-instance-{number}.lock", os.O_PATH)
        ask(connect(), packet, fd)
    elif way == "other":
        ask(connect(), packet, lock_file(number + 1))
    elif way == "elsewhere":
        ask(connect(), packet, lock_file(number, directory=Path("/tmp/elsewhere")))
    elif way == "older":
        ask(connect(), packet, lock_file(number, directory=Path("/tmp/cvd/lock")))
    elif way == "replaced":
        fd = lock_file(number)
        (LOCKS / f"local-instance-{number}.lock").unlink()
        lock_file(number)
        ask(connect(), packet, fd)
    elif way == "link":
        lock_file(number)
        fd = lock_file(number, directory=Path("/tmp/elsewhere"))
        (LOCKS / f"local-instance-{number}.lock").unlink(missing_ok=True)
        (LOCKS / f"local-instance-{number}.lock").symlink_to(f"/tmp/elsewhere/local-instance-{number}.lock")
        ask(connect(), packet, fd)
        (LOCKS / f"local-instance-{number}.lock").unlink()
    elif way == "many":
        fd = lock_file(number)
        ask(connect(), packet, *[fd] * 2)
        ask(connect(), packet, *[fd] * 200)
    elif way == "garbage":
        fd = lock_file(number)
        for raw in (b"\0" * 64, b"{", b'{"action": "exec"}', b"x" * 4096, request("make", 0), request("make", 129)):
            ask(connect(), raw, fd)
        ask(connect(), packet.replace(b"}", b', "also": 1}'), fd)
        connect().close()
    elif way == "slow":
        waiting = [connect() for _ in range(20)]
        print(len(waiting), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
