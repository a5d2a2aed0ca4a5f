"""What a service tells systemd about itself, and what that wants to hear (sd_notify(3)); nothing without systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time

_TIMEOUT_S = 5.0
_MICROSECONDS = 1_000_000


class Manager:
    """The service manager that has started this process, if one has.

    The variables are taken out of the environment: programs that this process starts are no services.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        wanted = microseconds.isdecimal() and pid == str(os.getpid())
        #: Seconds between two signs of life, half of what systemd waits for; None if it does not.
        self.every_s = int(microseconds) / _MICROSECONDS / 2 if wanted and int(microseconds) else None

    def ready(self, status: str) -> None:
        """Say that the service has come up, or has read its settings again."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Say in a line how things are."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """Say that settings are read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Give the sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._address[:1] not in ("/", "@"):
            return
        # "@" begins an abstract name, in the kernel a zero byte.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        # The service works on if nobody listens.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.sendto(text.encode(), address)
