"""Who listens on a port of loopback: a streamer may name any, and is believed only about its own user's."""

from __future__ import annotations

from pathlib import Path

#: State of a socket that listens (include/net/tcp_states.h), as /proc/net/tcp has it.
_LISTEN = "0A"

#: 127.0.0.1 and 0.0.0.0, as the kernel writes them there on processors with the low byte first.
_HERE = {"0100007F", "00000000"}


def owner_of(port: int, table: Path = Path("/proc/net/tcp")) -> int | None:
    """Return the user that listens on a port of 127.0.0.1; None if nobody does."""
    for line in table.read_text().splitlines()[1:]:
        words = line.split()
        address, _, number = words[1].partition(":")
        if words[3] == _LISTEN and address in _HERE and int(number, 16) == port:
            return int(words[7])
    return None
