"""A channel to a relay that has shown the certificate it was pinned to, and gets the token with every call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

# gRPC writes about connections that end on the terminal of whoever uses it, unless it is told not to beforehand.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from cfctl.errors import RelayUnreachable
from cfctl.remote import certificate
from cfctl.wire import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cfctl.remote.contexts import Context

#: Seconds for a call that only asks.
ASK_S = 60.0

#: Seconds that a connection may take until the other end says something: a relay may be stopped (SIGSTOP), or hang.
_FIRST_S = 5

#: Seconds to look whether anybody listens on a socket of this machine.
_LOOK_S = 5.0

_OPTIONS: list[tuple[str, int]] = [
    # The largest answer is a screenshot (relay/limits.py).
    ("grpc.max_receive_message_length", 16 << 20),
    # gRPC takes the shortest time between two tries for it.
    ("grpc.min_reconnect_backoff_ms", 1000 * _FIRST_S),
    # A relay that has vanished is noticed; it takes no more than a question each ten seconds.
    ("grpc.keepalive_time_ms", 12_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A verb tries once, and says what came of it.
    ("grpc.enable_retries", 0),
    # Not through a proxy of the environment: the relay's address is what the user pinned.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that can be called."""

    channel: grpc.aio.Channel
    context: Context

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return self.context.address


@contextlib.asynccontextmanager
async def connected(context: Context) -> AsyncIterator[Relay]:
    """Give a relay for the block; what its calls fail with leaves the block as an error of ours.

    Nothing is sent before the first call.

    :raises RelayUntrusted: if it shows another certificate than the one that was pinned.
    :raises RelayUnreachable: if nobody answers.
    :raises CfctlError: what the relay says.
    """
    channel = _channel(context)
    try:
        yield Relay(channel, context)
    except grpc.aio.AioRpcError as failed:
        error = errors.from_call(failed, context.address)
        if isinstance(error, RelayUnreachable):
            await asyncio.to_thread(_explain_socket if context.is_local_socket else _explain, context)
            if "timed out before receiving SETTINGS" in (error.details or ""):
                error = RelayUnreachable(
                    context.address, f"It took the connection, and said nothing for {_FIRST_S} s."
                )
        raise error from failed
    finally:
        await channel.close(None)


def _channel(context: Context) -> grpc.aio.Channel:
    if context.is_local_socket:
        return grpc.aio.insecure_channel(context.address, options=_OPTIONS)
    # The pinned certificate is the only one that counts, whoever has signed it.
    tls = grpc.ssl_channel_credentials(root_certificates=context.certificate.encode())
    token = grpc.access_token_call_credentials(context.token)
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", context.server_name)]
    return grpc.aio.secure_channel(
        context.address, grpc.composite_channel_credentials(tls, token) if context.token else tls, options=options
    )


def _explain(context: Context) -> None:
    """Look why nobody answers: gRPC says no more than that the handshake failed.

    :raises RelayUntrusted: if the certificate is another one.
    :raises RelayUnreachable: if nobody answers at all.
    """
    shown = certificate.fetch(context.address)
    certificate.require(shown, context.fingerprint, context.address, context.name)


def _explain_socket(context: Context) -> None:
    """Look why nobody answers on a unix socket: gRPC says it in many words of its own.

    :raises RelayUnreachable: if nobody answers at all.
    """
    path = context.address.partition(":")[2]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_LOOK_S)
        try:
            sock.connect(path)
        except OSError as exc:
            raise RelayUnreachable(context.address, exc.strerror or str(exc)) from exc
