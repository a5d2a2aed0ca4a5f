"""A TURN server of the relay's own: coturn, started with a secret that nobody else knows, and started again.

It passes packets on to this host's own addresses and to no other: whoever has credentials reaches the relay's media,
and nothing else of the network that the host is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from typing import TYPE_CHECKING

from cfctl import disk, process
from cfctl.errors import CommandFailed, MissingCommand
from cfctl.relay.worker import environment

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.relay.people import User

log = logging.getLogger(__name__)

PROGRAM = "turnserver"

#: Between two starts, at first and at most.
_AGAIN_S = (1.0, 30.0)

_END_S = 5.0

#: It has come up when it listens; what it says of itself goes by.
_UP_S = 10.0
_LONGEST_LINE = 64 << 10


def configuration(host: str, port: int, secret: str, ports: tuple[int, int], directory: Path) -> str:
    """Return coturn's configuration file.

    :param host: the address that it listens on, passes on from, and passes on to.
    :param ports: the first and last that it passes on from.
    """
    lines = [
        f"listening-ip={host}",
        f"listening-port={port}",
        f"relay-ip={host}",
        f"min-port={ports[0]}",
        f"max-port={ports[1]}",
        "use-auth-secret",
        f"static-auth-secret={secret}",
        "realm=cfctl",
        "fingerprint",
        # Viewers and the relay alone: no other host, and no way to TCP ports.
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        f"allowed-peer-ip={host}",
        *(["allow-loopback-peers"] if host.startswith("127.") else []),
        "no-tcp-relay",
        "no-multicast-peers",
        "no-tls",
        "no-dtls",
        "no-cli",
        "no-rfc5780",
        "no-stun-backward-compatibility",
        "user-quota=32",
        "total-quota=1024",
        "log-file=stdout",
        "simple-log",
        # Its database, which nothing stands in, would be one of the whole host's, as its pid file.
        f"userdb={directory}/turn.db",
        f"pidfile={directory}/turn.pid",
    ]
    return "\n".join(lines) + "\n"


class TurnServer:
    """One coturn, from its start to its end.

    :param directory: nobody else's; its configuration is written there, because its secret must not stand in
        anybody's list of processes.
    """

    def __init__(self, host: str, port: int, ports: tuple[int, int], directory: Path, own: User) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._file = directory / "turn.conf"
        self._text = configuration(host, port, self.secret, ports, directory)
        self._where = host, port
        self._own = own
        self._task: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._last: list[str] = []
        self._up = False

    @property
    def urls(self) -> tuple[str, ...]:
        """What viewers are told: by UDP, and where that is blocked by TCP."""
        return tuple(f"turn:{self.address}?transport={way}" for way in ("udp", "tcp"))

    async def start(self) -> None:
        """Start it, and keep it running.

        :raises MissingCommand: if coturn is not installed.
        :raises CommandFailed: if it ends at once.
        :raises CfctlError: if its configuration cannot be written.
        """
        process.require(PROGRAM)
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(self._text)
        except OSError as exc:
            raise disk.error(self._file, exc) from exc
        self._task = asyncio.create_task(self._keep())
        deadline = asyncio.get_running_loop().time() + _UP_S
        while not await self._answers():
            if self._task.done() or asyncio.get_running_loop().time() > deadline:
                await self.close()
                raise CommandFailed([PROGRAM], 1, "\n".join(self._last[-20:]) or "It did not come up.")
            await asyncio.sleep(0.05)
        self._up = True

    async def _answers(self) -> bool:
        """Tell whether somebody listens on its TCP port."""
        try:
            _, writer = await asyncio.open_connection(*self._where)
        except OSError:
            return False
        writer.close()
        return True

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CommandFailed, MissingCommand):
                await self._task
        self._file.unlink(missing_ok=True)

    async def _keep(self) -> None:
        delay = _AGAIN_S[0]
        while True:
            began = asyncio.get_running_loop().time()
            await self._once()
            if not self._up:
                return
            log.warning("the TURN server has ended, and is started again: %s", " ".join(self._last[-1:]))
            if asyncio.get_running_loop().time() - began > _AGAIN_S[1]:
                delay = _AGAIN_S[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, _AGAIN_S[1])

    async def _once(self) -> None:
        """Run it until it ends."""
        argv = [PROGRAM, "-c", os.fspath(self._file)]
        child = self._child = await process.start_piped(argv, env=environment(self._own), limit=_LONGEST_LINE)
        try:
            if child.stdout is None or child.stderr is None:
                return
            await asyncio.gather(self._read(child.stdout), self._read(child.stderr))
            await child.wait()
        finally:
            if child.returncode is None:
                child.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_END_S):
                        await asyncio.shield(child.wait())
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._last = [*self._last[-50:], line.decode(errors="replace").strip()]
