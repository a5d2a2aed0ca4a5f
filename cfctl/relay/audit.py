"""The audit log: a line of JSON for each action, and for each call that was refused; never a secret."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cfctl import disk
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.relay.caller import Caller
    from cfctl.relay.gate import Call
    from cfctl.relay.tokens import Token

log = logging.getLogger(__name__)

#: How large a log may grow, and how many old ones are kept: refused calls must not fill a disk.
LARGEST = 16 << 20
KEPT = 4


#: Lines about strangers, who have shown nothing that counts, in so many seconds; the others are counted. Anybody
#: could have them written, until what mattered is no longer kept.
STRANGERS, STRANGERS_S = 30, 60.0


class Audit:
    """The log of one relay.

    :param path: the newest lines; older ones are beside it, as ``NAME.1`` and so on.
    """

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        self._path = path
        self._largest = largest
        self._fd = -1
        self._size = 0
        self._complained = False
        self._strangers = 0
        self._since = -STRANGERS_S

    def open(self) -> None:
        """Open the log, or open it again after it was moved away.

        :raises CfctlError: if it cannot be written.
        """
        self.close()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            self._size = os.fstat(self._fd).st_size
        except OSError as exc:
            raise disk.error(self._path, exc) from exc

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write(self, call: Call, outcome: str, seconds: float) -> None:
        """Write a line about a call; a disk that is full does not keep the relay from its work."""
        self.record(
            call.address,
            call.caller,
            call.token,
            call.method,
            call.about.device,
            outcome=outcome,
            seconds=seconds,
            **call.about.more,
        )

    def record(
        self,
        peer: str,
        caller: Caller | None,
        token: Token | None,
        method: str,
        device: str,
        *,
        outcome: str,
        seconds: float = 0.0,
        **more: str | int,
    ) -> None:
        """Write a line about what somebody did, or was kept from doing.

        A line about a stranger may be left out; the next one that is not says how many were.

        :param more: what else there is to say.
        """
        if caller is None and token is None:
            if (left_out := self._left_out()) is None:
                return
            more |= {"left_out": left_out} if left_out else {}
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "peer": peer,
            "user": caller.user.name if caller else token.user if token else None,
            "token": token.id if token else None,
            "method": method[:100],
            "device": device or None,
            "result": outcome,
            "seconds": round(seconds, 3),
            **more,
        }
        try:
            self._put(json.dumps(line).encode() + b"\n")
            self._complained = False
        except (OSError, CfctlError) as exc:
            if not self._complained:
                log.warning("%s cannot be written: %s", self._path, exc)
                self._complained = True

    def _left_out(self) -> int | None:
        """Count a line about a stranger; return how many were left out before it, or None if it is to be, too."""
        now = time.monotonic()
        left_out = 0
        if now - self._since >= STRANGERS_S:
            left_out = max(0, self._strangers - STRANGERS)
            self._since, self._strangers = now, 0
        self._strangers += 1
        return left_out if self._strangers <= STRANGERS else None

    def _put(self, line: bytes) -> None:
        if self._fd < 0:
            return
        if self._size + len(line) > self._largest:
            self._turn()
        written = os.write(self._fd, line)
        if written < len(line):
            # The disk is full now. Half a line would spoil the next one, too.
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)

    def _turn(self) -> None:
        """Begin a new log, and move each old one further."""
        places = [self._path, *(self._path.with_name(f"{self._path.name}.{age}") for age in range(1, KEPT + 1))]
        for younger, older in zip(reversed(places[:-1]), reversed(places[1:]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                younger.replace(older)
        self.open()
