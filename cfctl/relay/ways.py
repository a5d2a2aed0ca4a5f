"""The ways that tunnels take: to a device's adb port, or to its console as the device's user.

What is in a container, and not published, is reached by a program in there, which the engine runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections import Counter
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.errors import CfctlError, NotRunning, RelayBusy
from cfctl.instance import Instance
from cfctl.relay import caller as callers
from cfctl.relay import sit, verbs
from cfctl.relay.worker import environment
from cfctl.v1 import tunnel_pb2
from cfctl.wire import errors as wire

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.relay.caller import Caller
    from cfctl.relay.lists import Document, Found, Lists
    from cfctl.relay.tunnel import Way

log = logging.getLogger(__name__)

_Service = tunnel_pb2.TunnelTarget.Service

#: States in which somebody may listen inside.
_TALKING = ("booting", "running")

#: States that a tunnel outlives: a suspended guest goes on again.
_THERE = (*_TALKING, "suspended", "preparing")

#: Seconds until it is asked again what could not be told.
_AGAIN_S = 5.0

#: The first line of a program is shorter.
_LONGEST_LINE = 64 << 10

_END_S = 10.0

#: Such programs of one user at once: each takes memory of the host's.
MOST_SEATS = 64


class Ways:
    """Finds them; a :class:`~cfctl.relay.tunnel.Resolver`.

    :param nowhere: an empty directory, in which programs run that sit at a device.
    """

    def __init__(self, lists: Lists, nowhere: Path) -> None:
        self._lists = lists
        self._nowhere = nowhere
        #: Of such programs; a task that nobody holds is collected.
        self._endings: set[asyncio.Task[None]] = set()
        self._seats: Counter[int] = Counter()

    async def settle(self) -> None:
        """Wait until the programs have ended, as they do when their tunnels have."""
        while self._endings:
            await asyncio.wait(self._endings)

    async def __call__(self, target: str, service: _Service) -> Way:
        """Return the way to a service of a device that the caller sees.

        :raises NoSuchDevice: if there is none of that name for him.
        :raises NotRunning: if it is not up.
        """
        caller = callers.current()
        callers.about().device = target[:100]
        found = await self._lists.find(caller, target)
        if found.document["state"] not in _TALKING:
            raise NotRunning(
                f"{target} is {found.document['state']}",
                None,
                f"Let it go on: cfctl resume {target.partition('/')[0]}"
                if found.document["state"] == "suspended"
                else f"Boot it: cfctl restart {target.partition('/')[0]}",
            )
        if service == _Service.SERVICE_CONSOLE:
            return _Seat(self._lists, caller, found, sit.CONSOLE, self._nowhere, self._endings, self._seats)
        if found.container is not None and found.instance["adb"] is None:
            return _Seat(self._lists, caller, found, sit.ADB, self._nowhere, self._endings, self._seats)
        return _Adb(self._lists, caller, found)


class _Way:
    """What both have: the device, which may go away."""

    def __init__(self, lists: Lists, caller: Caller, found: Found) -> None:
        self._lists = lists
        self._caller = caller
        self._found = found
        self._name: str = found.document["name"]
        self._pid = found.instance["vm_pid"]

    async def gone(self) -> str:
        """Wait until the device is not up any more, or another boot of it is; return that for people."""
        while True:
            with contextlib.suppress(CfctlError):  # that nobody can tell is no sign that it is gone
                async for devices in self._lists.follow(self._caller):
                    if reason := self._reason(devices):
                        return reason
            await asyncio.sleep(_AGAIN_S)

    def _reason(self, devices: list[Document]) -> str:
        """Return why the tunnel's end is gone; empty if it is not."""
        document = next((one for one in devices if one["name"] == self._name), None)
        if document is None:
            return f"{self._name} was removed"
        if document["state"] not in _THERE:
            word = document["state"]
            return f"{self._name} was stopped" if word in ("stopped", "stopping") else f"{self._name} is {word}"
        pid = self._found.instance_in(document)["vm_pid"]
        return f"{self._name} was booted again" if pid and self._pid and pid != self._pid else ""


class _Adb(_Way):
    async def connect(self) -> socket.socket:
        """Connect to the port on this machine, as the device's user."""
        host, port = self._place()
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if (user := self._found.actor.credentials) is not None:
                # Whoever lets in nobody but one user (cfctl's own tunnels do) asks the kernel whose the socket is.
                os.fchown(end.fileno(), user.uid, user.gid)
            # An address that is not this machine's own cannot be bound.
            end.bind((host, 0))
            await asyncio.get_running_loop().sock_connect(end, (host, port))
        except BaseException:
            end.close()
            raise
        return end

    def _place(self) -> tuple[str, int]:
        """Return the address and the port. A record is the user's own file: it leads to no other machine."""
        instance = self._found.instance
        if self._found.container is None:
            return "127.0.0.1", Instance(instance["number"]).adb_port
        host, _, port = str(instance["adb"]).rpartition(":")
        try:
            # Never a name: to be looked up it would keep everybody waiting.
            host, number = str(IPv4Address(host)), int(port)
        except ValueError:
            raise NotRunning(f"{self._name} has no adb that can be reached from here") from None
        return ("127.0.0.1" if host == "0.0.0.0" else host), number


class _Seat(_Way):
    """A program at the service, which belongs to the device's user: cfctl/relay/sit.py."""

    def __init__(
        self,
        lists: Lists,
        caller: Caller,
        found: Found,
        service: str,
        nowhere: Path,
        endings: set[asyncio.Task[None]],
        seats: Counter[int],
    ) -> None:
        super().__init__(lists, caller, found)
        self._seats = seats
        self._service = service
        self._nowhere = nowhere
        self._endings = endings

    async def connect(self) -> socket.socket:
        """Start the program, and hear whether it has the service.

        :raises CfctlError: if it has not: there is none, or somebody else has it.
        :raises RelayBusy: if the user has too many of them.
        """
        user = self._found.actor
        if self._seats[user.uid] >= MOST_SEATS:
            raise RelayBusy(f"{user.name} has {MOST_SEATS} programs that sit at devices", None, "End some tunnels.")
        self._seats[user.uid] += 1
        try:
            child, ours = await self._started()
        except BaseException:
            self._seats[user.uid] -= 1
            raise
        ending = asyncio.create_task(_reap(child, ours))
        self._endings.add(ending)

        def ended(task: asyncio.Task[None]) -> None:
            self._endings.discard(task)
            self._seats[user.uid] -= 1

        ending.add_done_callback(ended)
        try:
            said = await _first_line(ours)
            if "error" in said:
                raise wire.from_document(said["error"], int(said.get("exit_code", 1)))
        except BaseException:
            ours.close()
            raise
        return ours

    async def _started(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start the program; return it, and the other end of what it has for its input and output."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        with theirs:
            try:
                child = await process.start_joined(
                    [sys.executable, "-P", "-m", *verbs.sitting(self._found, self._service)],
                    end=theirs,
                    env=environment(self._found.actor),
                    credentials=self._found.actor.credentials,
                    cwd=self._nowhere,
                )
            except BaseException:
                ours.close()
                raise
        return child, ours


async def _reap(child: asyncio.subprocess.Process, ours: socket.socket) -> None:
    """Wait for a program, which ends when its socket does; one that does not is killed."""
    while ours.fileno() >= 0 and child.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(child.wait()), 1.0)
    try:
        await asyncio.wait_for(child.wait(), _END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _first_line(end: socket.socket) -> dict[str, Any]:
    """Return the document that a program begins with; what follows is the console's."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    while not line.endswith(b"\n"):
        # One at a time: the next byte may be the guest's.
        one = await loop.sock_recv(end, 1)
        if not one or len(line) > _LONGEST_LINE:
            raise CfctlError("the program that sits at the device has failed on the relay's host")
        line += one
    said: dict[str, Any] = json.loads(line)
    return said
