"""The client of ``launcher_monitor.sock``, by which run_cvd is asked about a device and told to stop it.

The protocol has one byte each way for the actions used here (android-cuttlefish ``command_util/runner/defs.h``,
``run_cvd/server_loop_impl.cpp``). Two of its habits shape this module: run_cvd serves one client at a time, so a
connection is never held, and a client that closes before its answer kills the VM of tools whose run_cvd leaves
SIGPIPE at its default, so an answer is never abandoned unless the device is to be killed anyway.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path

from cfctl.errors import CfctlError, DeadlinePassed


class Action(Enum):
    """What run_cvd can be asked with one byte."""

    STOP = b"X"
    STATUS = b"I"


class MonitorRefused(CfctlError):
    """run_cvd answered that it could not do it, or closed without an answer; the device runs on."""

    code = "monitor-refused"


async def request(socket: Path, action: Action, *, seconds: float) -> None:
    """Send one action and wait until run_cvd says that it is done.

    :param socket: the instance's ``launcher_monitor.sock``.
    :param seconds: how long to wait for the answer. run_cvd answers a stop only after all of the device's
        processes are down.
    :raises MonitorRefused: for any answer but success, or when nobody listens.
    :raises DeadlinePassed: without an answer; the connection is closed then, so the caller must be about to end
        the device by force.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as exc:
        raise MonitorRefused(f"nobody listens on {socket}", str(exc)) from exc
    try:
        writer.write(action.value)
        answer = await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError as exc:
        raise DeadlinePassed(f"run_cvd did not answer {action.name} within {seconds:g} s") from exc
    except OSError as exc:
        raise MonitorRefused(f"run_cvd closed the connection on {action.name}", str(exc)) from exc
    finally:
        writer.close()
    answered(action.name, answer)


def answered(name: str, answer: bytes) -> None:
    """Look at the byte that answers an action.

    :raises MonitorRefused: if it is any but success.
    """
    if answer != b"S":
        said = {b"E": "an error", b"": "nothing, and closed the connection"}.get(answer, repr(answer))
        raise MonitorRefused(f"run_cvd answered {name} with {said}")


def listening(socket: Path) -> bool:
    """Tell whether a process listens on ``socket``, without connecting to it.

    The kernel's list (proc_net(5), ``/proc/net/unix``; flag 0x10000 is a listening socket) is asked instead.
    """
    wanted = str(socket)
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == wanted and int(fields[3], 16) & 0x10000:
            return True
    return False
