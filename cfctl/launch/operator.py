"""Where a device's streamer registers: at a relay of ours that shows screens, if one answers."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from cfctl import paths

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FLAG = "webrtc_sig_server_addr"

_ANSWER_S = 2.0


def flags(known: Collection[str]) -> list[str]:
    """Return what a launcher is told: nothing if its user has said it, or no relay shows screens.

    The host's relay comes before the user's own. A streamer that finds nobody gives up after some seconds for good.

    :param known: the flags that are ours to set.
    """
    if FLAG not in known:
        return []
    places = dict.fromkeys((paths.system().relay_streamers, paths.current().relay_streamers))
    return [f"--{FLAG}={place}" for place in places if _answers(place)][:1]


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_ANSWER_S)
        sock.connect(os.fspath(path))
        return True
    return False
