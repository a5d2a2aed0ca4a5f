"""What run_cvd can be asked beyond one byte: the extended actions, and those that end with a boot.

An extended request is ``A``, the length of a message as four bytes, and the message: a protobuf of one field, whose
number says what is wanted (android-cuttlefish ``command_util/runner/run_cvd.proto``, launcher.md section 5). Restart
and powerwash answer twice on one connection: a byte when the device is down, four bytes when it has booted again.
"""

from __future__ import annotations

import asyncio
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from cfctl.control.launcher_monitor import MonitorRefused, answered
from cfctl.errors import DeadlinePassed


@dataclass(frozen=True, slots=True)
class Extended:
    """One extended action.

    :param name: for people, as the protocol calls it.
    :param message: the ``ExtendedLauncherAction``.
    """

    name: str
    message: bytes

    @property
    def frame(self) -> bytes:
        """What is sent."""
        # The length is in the host's own byte order: client and server are one machine.
        return b"A" + struct.pack("=I", len(self.message)) + self.message


SUSPEND = Extended("SUSPEND", b"\x2a\x00")
RESUME = Extended("RESUME", b"\x32\x00")
START_RECORDING = Extended("START_RECORDING", b"\x3a\x00")
STOP_RECORDING = Extended("STOP_RECORDING", b"\x42\x00")

#: Those that the table of operations has too (operations.py).
BY_NAME = {"suspend": SUSPEND, "resume": RESUME}


def screenshot(display: int, path: Path) -> Extended:
    """Return the action that saves what a display shows.

    :param path: absolute; run_cvd writes it.
    """
    raw = os.fsencode(path)
    # proto3 leaves out a number that is 0.
    number = b"\x08" + _varint(display) if display else b""
    inner = number + b"\x12" + _varint(len(raw)) + raw
    return Extended("SCREENSHOT", b"\x52" + _varint(len(inner)) + inner)


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


async def ask(socket: Path, action: Extended, *, seconds: float) -> None:
    """Send one extended action and wait until run_cvd says that it is done.

    :raises MonitorRefused: for any answer but success, or when nobody listens.
    :raises DeadlinePassed: without an answer; whether it is done yet is not known then.
    """
    await _converse(socket, action.name, action.frame, down=seconds, up=None)


async def powerwash(socket: Path, *, down: float, up: float) -> int:
    """Reset a device's disks and boot it again.

    :param down: seconds until run_cvd says that the device is down.
    :param up: seconds until it has booted.
    :return: run_cvd's code: 0, or 11 if the boot failed.
    :raises MonitorRefused: if run_cvd cannot (it has no disks that could be reset).
    :raises DeadlinePassed: without an answer; the device may be anywhere between down and up.
    """
    return await _converse(socket, "POWERWASH", b"P", down=down, up=up)


async def _converse(socket: Path, name: str, request: bytes, *, down: float, up: float | None) -> int:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as exc:
        raise MonitorRefused(f"nobody listens on {socket}", str(exc)) from exc
    seconds = down
    try:
        writer.write(request)
        answered(name, await asyncio.wait_for(reader.read(1), down))
        if up is None:
            return 0
        seconds = up
        return _code(await asyncio.wait_for(reader.readexactly(4), up))
    except TimeoutError as exc:
        raise DeadlinePassed(f"run_cvd did not answer {name} within {seconds:g} s") from exc
    except asyncio.IncompleteReadError as exc:
        raise MonitorRefused(f"run_cvd went away during {name}", "The device did not come up again.") from exc
    except OSError as exc:
        raise MonitorRefused(f"run_cvd closed the connection on {name}", str(exc)) from exc
    finally:
        writer.close()


def _code(raw: bytes) -> int:
    code: int = struct.unpack("=i", raw)[0]
    return code
