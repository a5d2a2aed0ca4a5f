"""The relay's limits, in one place: what a caller can cost at most, whoever he is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be, and for how long.

    :param connections: at once, of all callers.
    :param per_peer: of one address (IPv6: one /64), or of one local user.
    :param per_peer_web: the same for browsers: one has several connections, and an office one address.
    :param strangers: that have not shown a token yet; a new one pushes the oldest out.
    :param handshake_s: for TLS, and again for the first bytes of HTTP/2, or the head of HTTP/1.1.
    :param introduce_s: until the first call that is let through, since the connection was made.
    :param refusals: calls with a wrong token, until the connection is closed.
    :param strange_bytes: that a caller may have sent before a call of his was let through.
    :param received: bytes of one message of a caller's: a piece of a tunnel is the largest there is.
    :param sent: bytes of one message to a caller: a screenshot is the largest there is.
    :param streams: calls at once on one connection.
    :param calls_per_user: calls at once of one user, over all of his connections.
    :param children: programs at once that a user's calls have started.
    :param idle_s: that a connection without a call is kept.
    :param keepalive_s: between questions whether the caller is still there.
    :param answer_s: that it may take to answer one.
    :param buffer: bytes that are held for a slow reader, per connection and direction.
    """

    connections: int = 512
    per_peer: int = 64
    per_peer_web: int = 256
    strangers: int = 128
    handshake_s: float = 5.0
    introduce_s: float = 15.0
    refusals: int = 5
    strange_bytes: int = 64 << 10
    received: int = 1 << 20
    sent: int = 24 << 20
    streams: int = 64
    calls_per_user: int = 128
    children: int = 24
    idle_s: float = 300.0
    keepalive_s: float = 30.0
    answer_s: float = 20.0
    buffer: int = 256 << 10

    def grpc_options(self) -> list[tuple[str, int]]:
        """Return them as gRPC's server takes them (grpc_types.h)."""
        return [
            ("grpc.max_receive_message_length", self.received),
            ("grpc.max_send_message_length", self.sent),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_connection_idle_ms", int(1000 * self.idle_s)),
            ("grpc.keepalive_time_ms", int(1000 * self.keepalive_s)),
            # Of these two, gRPC takes the one that its version knows.
            ("grpc.keepalive_timeout_ms", int(1000 * self.answer_s)),
            ("grpc.http2.ping_timeout_ms", int(1000 * self.answer_s)),
            # Callers may ask too, and not more often than every ten seconds.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 3),
            # The token and the names of metadata; gRPC's own default.
            ("grpc.max_metadata_size", 8192),
            ("grpc.so_reuseport", 0),
        ]
