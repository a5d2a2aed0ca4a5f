"""What a guest says about its boot, line by line: upstream's kernel_log_monitor (launcher.md section 11)."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path


class Event(IntEnum):
    """What happened in the guest; the numbers are upstream's."""

    BOOT_STARTED = 0
    BOOT_COMPLETED = 1
    BOOT_FAILED = 2
    WIFI_CONNECTED = 3
    MOBILE_CONNECTED = 4
    ADBD_STARTED = 5
    SCREEN_CHANGED = 6
    ETHERNET_CONNECTED = 7
    KERNEL_LOADED = 8
    BOOTLOADER_LOADED = 9
    DISPLAY_POWER_MODE_CHANGED = 10
    FASTBOOT_STARTED = 11
    BOOT_PENDING = 12


_TOKENS = {
    "VIRTUAL_DEVICE_BOOT_STARTED": Event.BOOT_STARTED,
    "VIRTUAL_DEVICE_BOOT_COMPLETED": Event.BOOT_COMPLETED,
    "VIRTUAL_DEVICE_BOOT_FAILED": Event.BOOT_FAILED,
    "VIRTUAL_DEVICE_BOOT_PENDING": Event.BOOT_PENDING,
    "VIRTUAL_DEVICE_NETWORK_WIFI_CONNECTED": Event.WIFI_CONNECTED,
    "VIRTUAL_DEVICE_NETWORK_MOBILE_CONNECTED": Event.MOBILE_CONNECTED,
    "VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED": Event.ETHERNET_CONNECTED,
    "init: starting service 'adbd'...": Event.ADBD_STARTED,
    "VIRTUAL_DEVICE_SCREEN_CHANGED": Event.SCREEN_CHANGED,
    "VIRTUAL_DEVICE_DISPLAY_POWER_MODE_CHANGED": Event.DISPLAY_POWER_MODE_CHANGED,
    "] Linux version": Event.KERNEL_LOADED,
    "U-Boot 20": Event.BOOTLOADER_LOADED,
    "init: starting service 'fastbootd'...": Event.FASTBOOT_STARTED,
    # A guest that cannot go on without its first process, in the kernel's own words.
    "Kernel panic - not syncing": Event.BOOT_FAILED,
}
_ANY_TOKEN = re.compile("|".join(re.escape(token) for token in _TOKENS))

#: A guest that never ends its line must not fill the memory.
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that means something.

    :param text: the token, and for a failure what follows it.
    """

    event: Event
    text: str


@dataclass(slots=True)
class Lines:
    """Cuts a stream of bytes into lines and finds what they mean."""

    _rest: bytes = field(default=b"")

    def feed(self, data: bytes) -> list[Hit]:
        """Take the next bytes and return what the lines that they complete mean."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LONGEST_LINE:]
        return [hit for line in lines if (hit := match(line.decode(errors="replace")))]


def match(line: str) -> Hit | None:
    """Return what a line means."""
    found = _ANY_TOKEN.search(line)
    if found is None:
        return None
    event = _TOKENS[found[0]]
    tells_why = event in (Event.BOOT_FAILED, Event.BOOT_PENDING)
    return Hit(event, line[found.start() :].strip() if tells_why else found[0].removeprefix("] "))


class LauncherLog:
    """``launcher.log`` in upstream's form: ``exe(pid)  L MM-DD HH:MM:SS pid tid file:line] text``.

    :param path: appended to; made if missing.
    """

    def __init__(self, path: Path, program: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._program = program

    def write(self, level: str, text: str) -> None:
        """Append one line.

        :param level: V, D, I, W, E or F.
        """
        import sys

        caller = sys._getframe(1)
        where = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
        pid = os.getpid()
        moment = time.strftime("%m-%d %H:%M:%S")
        line = f"{self._program}({pid})  {level} {moment} {pid} {pid} {where}] {text}\n"
        os.write(self._fd, line.encode(errors="replace"))
