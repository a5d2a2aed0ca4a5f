"""The client of crosvm: its own program where that can be run, its protocol otherwise.

Which program listens on the socket the kernel tells (SO_PEERCRED), and ``/proc/PID/exe`` is that program even when
the file was replaced since. It is of the VM's own age, so it knows how to say what is asked; what its command line
lacks is said in its protocol (crosvm_protocol.py).
"""

from __future__ import annotations

import asyncio
import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.control import crosvm_cli, crosvm_protocol, crosvm_socket, waiting
from cfctl.control.crosvm_protocol import UNKNOWN, Age
from cfctl.control.faults import VmCannot, VmRefused, VmSilent
from cfctl.errors import CfctlError, CommandFailed, DeadlinePassed, MissingCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.control.operations import Operation
    from cfctl.control.target import VmTarget

#: The dynamic linker's and the shell's: the program could not be run, or its libraries are not there.
_NOT_RUN = (126, 127, crosvm_cli.BAD_ARGUMENTS)

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """The crosvm that runs a VM.

    :param path: what can be run to ask it; None if it cannot be run from here.
    :param age: what it understands.
    """

    path: str | None = None
    age: Age = UNKNOWN


async def perform(target: VmTarget, operation: Operation, *, seconds: float) -> dict[str, Any]:
    """Do one operation; the caller holds the VM's lock.

    :raises VmCannot: if this crosvm is too old for it; nothing was sent.
    :raises VmUnreachable, VmBusy, VmRefused, VmSilent: as :mod:`cfctl.control.faults` says.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    program = await find(target, seconds=seconds)
    if crosvm_protocol.too_old(operation, program.age):
        raise VmCannot(
            f"the crosvm of {target.name} is too old for {' '.join(operation.spec.words)}",
            "Its program does not have the word for it. Nothing was changed.",
            "Launch the device with a newer host package.",
        )
    reply = await _by_program(target, operation, program, deadline - loop.time())
    if reply is None:
        reply = await _by_protocol(target, operation, program.age, deadline)
    return crosvm_protocol.result(operation, reply, target.name)


async def find(target: VmTarget, *, seconds: float) -> Program:
    """Return the program that runs a VM.

    Another user's is read, and never run: it would have our rights, and his could be any program.

    :raises VmUnreachable, VmBusy: if its socket cannot be reached.
    """
    pid, uid = await crosvm_socket.peer(target.socket, seconds=seconds)
    found = await asyncio.to_thread(lambda: _running(pid) or _configured(target.crosvm))
    return found if uid == os.geteuid() else replace(found, path=None)


def _running(pid: int) -> Program | None:
    """Return the program of a process; None if it cannot be seen, or is not crosvm."""
    exe = f"/proc/{pid}/exe"
    try:
        path = Path(exe).readlink()
        if not pid or not path.name.startswith("crosvm"):
            return None
        # In a container its libraries are not ours: it is not run, but its words can be read.
        here = os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")  # noqa: PTH115 (no path)
        # Under its own name while the file is still the one that runs.
        own = os.fspath(path) if path.exists() and path.samefile(exe) else exe
        return Program(own if here else None, _age(exe))
    except OSError:
        return None


def _configured(path: Path | None) -> Program:
    if path is None or not os.access(path, os.X_OK) or not path.is_file():
        return Program()
    return Program(os.fspath(path), _age(os.fspath(path)))


def _age(path: str) -> Age:
    try:
        status = os.stat(path)  # noqa: PTH116 (follows the link of /proc, which names no path)
    except OSError:
        return UNKNOWN
    return _read_age(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _read_age(path: str, _which: tuple[int, ...]) -> Age:
    """Read a program once; it has some tens of megabytes."""
    try:
        return crosvm_protocol.age_of(_chunks(path))
    except OSError:
        return UNKNOWN


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:  # noqa: PTH123 (as above)
        while chunk := file.read(_CHUNK):
            yield chunk


async def _by_program(target: VmTarget, operation: Operation, program: Program, seconds: float) -> Any:
    """Ask crosvm's own command line; return the reply, or None if it could not be asked so: nothing was sent then."""
    argv = program.path and crosvm_cli.arguments(operation, program.age, os.fspath(target.socket))
    if not program.path or not argv:
        return None
    try:
        # Also if whoever asked is cancelled: until it has ended nobody else may ask the VM.
        done = await waiting.to_its_end(
            asyncio.to_thread(
                process.run, [program.path, *argv], timeout=max(seconds, 0.1), success=None, cwd=Path("/")
            )
        )
    except DeadlinePassed as exc:
        raise VmSilent(
            f"crosvm did not answer within {seconds:g} s", f"{exc.details} Whether it is still done is not known."
        ) from exc
    except (MissingCommand, CommandFailed):
        return None
    if done.returncode in _NOT_RUN:
        return None
    return crosvm_cli.reply(operation, done.returncode, done.stdout, done.stderr)


async def _by_protocol(target: VmTarget, operation: Operation, age: Age, deadline: float) -> Any:
    """Speak crosvm's protocol; of several forms, the next is tried when one is not answered."""
    loop = asyncio.get_running_loop()
    forms = crosvm_protocol.requests(operation, age)
    for left in range(len(forms), 0, -1):
        request = forms[-left]
        seconds = max(deadline - loop.time(), 0.1) / left
        fds = [_open(request.opens)] if request.opens else []
        try:
            packet = await crosvm_socket.exchange(target.socket, request.packet, seconds=seconds, fds=fds)
        except VmSilent:
            if left == 1:
                raise
            continue
        finally:
            for fd in fds:
                os.close(fd)
        return crosvm_protocol.parse(packet)
    raise VmRefused("crosvm has no request for it", None, reply=None)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise CfctlError(f"{path} cannot be opened", exc.strerror, "See what there is: lsusb") from exc
