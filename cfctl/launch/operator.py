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
    return [f"--{FLAG}={place}" for place in _places() if _answers(place)][:1] if FLAG in known else []


def advice(name: str, known: Collection[str], *, stock: Path = paths.UPSTREAM_OPERATOR) -> str | None:
    """Return what the user of a device that has begun to boot should know of its screen; None if it can be seen.

    :param known: as for :func:`flags`: whoever says himself where a streamer registers knows what is there.
    :param stock: where the streamer looks by itself.
    """
    if FLAG not in known or any(map(_answers, (*_places(), stock))):
        return None
    return (
        "Screens: no relay serves. To see this one, start one in a terminal of its own, and then the device again:\n"
        f"  cfctl relay serve --web 127.0.0.1:8443\n  cfctl restart {name}"
    )


def _places() -> Collection[Path]:
    return dict.fromkeys((paths.system().relay_streamers, paths.current().relay_streamers)).keys()


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_ANSWER_S)
        sock.connect(os.fspath(path))
        return True
    return False
