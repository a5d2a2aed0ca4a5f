"""The relay of this host as its verbs find it: its unix socket, and which of two relays is meant."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from cfctl import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ANSWER_S = 10.0


def answering(path: Path) -> bool:
    """Tell whether somebody listens on a relay's socket, and lets us in."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_ANSWER_S)
        sock.connect(os.fspath(path))
        return True
    return False


def chosen(*, own: bool) -> Path | None:
    """Return the socket of the relay that a verb means: for an ordinary user the host's, if there is one.

    :param own: the user's own relay, though the host has one.
    :return: None if none runs.
    """
    places = [paths.current().relay_socket]
    if os.geteuid() != 0 and not own:
        places.insert(0, paths.system().relay_socket)
    return next((place for place in places if answering(place)), None)


def call(path: Path, method: Callable[[Any], Callable[..., Any]], request: Any) -> Any:
    """Call the relay behind a socket; return its answer.

    :param method: takes the stub of the service Relay, returns the method.
    :raises CfctlError: what the relay says.
    """
    return asyncio.run(_call(path, method, request))


async def _call(path: Path, method: Callable[[Any], Callable[..., Any]], request: Any) -> Any:
    import grpc.aio

    from cfctl.v1 import relay_pb2_grpc
    from cfctl.wire import errors

    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        try:
            return await method(relay_pb2_grpc.RelayStub(channel))(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as failed:
            raise errors.from_call(failed, str(path)) from failed
