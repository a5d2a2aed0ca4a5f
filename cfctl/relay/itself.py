"""The service Relay: how the relay is, and its tokens; for callers on its own host alone."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

import cfctl
from cfctl.errors import NotAllowed, RelayBusy
from cfctl.relay import caller as callers
from cfctl.relay import people, roles, tokens
from cfctl.v1 import relay_pb2, relay_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import grpc.aio

    from cfctl.relay.caller import Caller
    from cfctl.relay.front import Front
    from cfctl.relay.gate import Gate
    from cfctl.relay.tokens import Store, Token
    from cfctl.relay.worker import Worker

    Context = grpc.aio.ServicerContext[Any, Any]

#: Of one user: the file with all of them is read again at each change.
_MOST_TOKENS = 256


def message(token: Token) -> relay_pb2.Token:
    """Return a token as the API has it."""
    return ParseDict(token.as_dict(), relay_pb2.Token())


class Relay(relay_pb2_grpc.RelayServicer):
    """Answers the calls.

    :param listeners: where callers are heard: what, address, and with TLS the fingerprint; filled later.
    :param link: makes a link to a device's screen, for a caller, with a role.
    """

    def __init__(
        self,
        *,
        store: Store,
        front: Front,
        gate: Gate,
        worker: Worker,
        listeners: list[Mapping[str, str]],
        link: Callable[[Caller, str, str], Awaitable[relay_pb2.Link]],
    ) -> None:
        self._link = link
        self._store = store
        self._front = front
        self._gate = gate
        self._worker = worker
        self._listeners = listeners
        self._started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    async def Status(self, request: relay_pb2.RelayStatusRequest, context: Context) -> relay_pb2.RelayStatus:
        """Tell how the relay is."""
        del request, context
        return relay_pb2.RelayStatus(
            version=cfctl.__version__,
            pid=os.getpid(),
            user=people.by_uid(os.geteuid()).name,
            started_at=self._started,
            listeners=[relay_pb2.Listener(**listener) for listener in self._listeners],
            connections=len(self._front),
            calls=self._gate.calls,
            children=self._worker.children,
            tokens=sum(not token.expired for token in self._store.all()),
            refused=self._front.refused,
        )

    async def CreateToken(self, request: relay_pb2.CreateTokenRequest, context: Context) -> relay_pb2.NewToken:
        """Make a token for the caller, or, for root, for anybody."""
        del context
        own = callers.current().user
        made, secret = create(
            self._store, own, user=request.user, role=request.role, devices=request.devices, ttl=request.ttl
        )
        return relay_pb2.NewToken(token=message(made), secret=secret)

    async def ListTokens(
        self, request: relay_pb2.ListTokensRequest, context: Context
    ) -> relay_pb2.ListTokensResponse:
        """Return the caller's tokens; for root, everybody's."""
        del request, context
        own = callers.current().user
        found = [token for token in self._store.all() if own.is_root or token.user == own.name]
        return relay_pb2.ListTokensResponse(tokens=map(message, found))

    async def RevokeToken(self, request: relay_pb2.RevokeTokenRequest, context: Context) -> relay_pb2.Token:
        """Forget a token; calls that show it end."""
        del context
        own = callers.current().user
        return message(self._store.revoke(request.id, user=None if own.is_root else own.name))

    async def OpenScreen(self, request: relay_pb2.OpenScreenRequest, context: Context) -> relay_pb2.Link:
        """Return a link that lets one browser in."""
        del context
        link = await self._link(callers.current(), request.name, request.role)
        for listener in self._listeners:
            if listener["what"] == "web" and "fingerprint" in listener:
                # Whoever opens it from this host without a browser has nothing else to know the certificate by.
                link.fingerprint = listener["fingerprint"]
        return link


def create(
    store: Store, own: people.User, *, user: str, role: str, devices: str, ttl: str
) -> tuple[tokens.Token, str]:
    """Make a token and keep it; return it with its secret.

    :param own: who has it made.
    :param user: whose devices it is for; empty is his own.
    :raises UsageError: for a role, a time or a user that there is not.
    :raises NotAllowed: for another user's token, unless root has it made.
    :raises RelayBusy: if the user has as many as may be.
    """
    whose = people.by_name(user) if user else own
    if whose.uid != own.uid and not own.is_root:
        raise NotAllowed(f"only root has tokens made for {whose.name}", None, "Leave --user out for one of your own.")
    if sum(token.user == whose.name and not token.expired for token in store.all()) >= _MOST_TOKENS:
        raise RelayBusy(
            f"{whose.name} has {_MOST_TOKENS} tokens",
            "Whenever one is shown all are looked at.",
            "Revoke some: cfctl relay token list, cfctl relay token revoke ID",
        )
    made, secret = tokens.make(user=whose.name, level=roles.role(role), devices=devices, ttl=tokens.lifetime(ttl))
    store.add(made)
    return made, secret
