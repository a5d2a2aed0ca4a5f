"""The gate before every call: who calls, may he, what became of it, and how it is ended from our side."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from cfctl.errors import CfctlError, NotAllowed, RelayBusy, RelayLeaving, TokenRefused, UsageError
from cfctl.relay import caller as callers
from cfctl.relay import people
from cfctl.relay.caller import Caller
from cfctl.relay.roles import RULES, Rule, named, word
from cfctl.wire import errors as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from cfctl.relay.audit import Audit
    from cfctl.relay.connection import Connection
    from cfctl.relay.limits import Limits
    from cfctl.relay.people import User
    from cfctl.relay.tokens import Store, Token

    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

#: How often it is looked whether the tokens of the calls that are open still count.
_LOOK_AGAIN_S = 1.0

#: How long a call may take to come to an end that was ended by us: it says so to a caller who may not listen.
_END_S = 10.0

_TICK_S = 0.05

_BEARER = "bearer "


class Gate(grpc.aio.ServerInterceptor):
    """Stands before every method of the API.

    :param connection: returns the connection that a call comes on, by gRPC's name for its peer.
    :param own: the user that the relay runs as; only root serves others.
    :param done: called after each call with its method, the word for how it ended, and the seconds it took.
    """

    def __init__(
        self,
        connection: Callable[[str], Connection | None],
        *,
        own: User,
        tokens: Store,
        audit: Audit,
        limits: Limits,
        done: Callable[[str, str, float], None],
    ) -> None:
        self._connection = connection
        self._own = own
        self._tokens = tokens
        self._audit = audit
        self._limits = limits
        self._done = done
        #: The calls that are open, and whose share each is of.
        self._calls: dict[Call, tuple[int, bool]] = {}
        self._shares: Counter[tuple[int, bool]] = Counter()
        self._leaving = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Put the gate before the handler of a method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        secret = _secret(handler_call_details.invocation_metadata)

        def call(request: Any, context: Context) -> Call:
            return Call(self, method, RULES.get(method), secret, context, _device(request))

        return _wrapped(handler, call)

    # -- who calls -----------------------------------------------------------------------------------------

    def admit(self, call: Call) -> Caller:
        """Return who calls, if he may.

        :raises CfctlError: otherwise; what it says depends on what he has shown.
        """
        connection = self._connection(call.context.peer())
        if connection is None:
            # Nobody comes in but by the front.
            raise TokenRefused("The connection is not known.")
        call.address = connection.address
        if connection.uid is not None:
            caller = self._local(connection, connection.uid)
        else:
            caller = self._remote(connection, call)
        if call.rule is None:
            raise NotAllowed(f"the relay does not serve {call.method[:100]}")
        if call.rule.here and caller.token is not None:
            raise NotAllowed(f"{call.method} is for callers on the relay's own host", None, "Log in there first.")
        if caller.role < call.rule.role:
            raise NotAllowed(
                f"the role {word(caller.role)} may not do that: {named(call.method)}",
                f"It takes the role {word(call.rule.role)}.",
                "Have a token with that role made, on the relay's host: "
                f"cfctl relay token create --role {word(call.rule.role)}",
            )
        if self._leaving:
            raise RelayLeaving("the relay is being stopped", None, "Try again when it is back.")
        if self._shares[caller.share] >= self._limits.calls_per_user:
            raise RelayBusy(f"{caller.user.name} has {self._limits.calls_per_user} calls open", None, "End some.")
        return caller

    def _local(self, connection: Connection, uid: int) -> Caller:
        """Return a caller on this host: the kernel says who he is."""
        if uid not in (0, self._own.uid) and not self._own.is_root:
            raise NotAllowed(f"this relay is {self._own.name}'s own")
        # To a user's own relay, root speaks as that user.
        return Caller(people.by_uid(uid) if self._own.is_root else self._own, connection)

    def _remote(self, connection: Connection, call: Call) -> Caller:
        """Return a caller from elsewhere, who has to show a token, at each call."""
        token = self._recognized(call.secret)
        if token is None:
            connection.refusals += 1
            if connection.refusals >= self._limits.refusals:
                asyncio.get_running_loop().call_later(0.1, connection.close)
            raise TokenRefused() if call.secret else TokenRefused("The call has none.")
        call.token = token
        try:
            user = people.by_name(token.user)
        except UsageError:
            raise TokenRefused() from None
        if not self._own.is_root and user.uid != self._own.uid:
            raise TokenRefused()
        if not connection.known:
            connection.welcome()
        return Caller(user, connection, token)

    def _recognized(self, secret: str) -> Token | None:
        """Return the token of a secret; what is wrong with the file is for our own log, not for strangers."""
        try:
            return self._tokens.recognize(secret) if secret else None
        except CfctlError as error:
            log.warning("%s", error)
            return None

    # -- calls that are open -------------------------------------------------------------------------------

    def opened(self, call: Call, caller: Caller) -> None:
        """Count a call that was let through."""
        self._calls[call] = caller.share
        self._shares[caller.share] += 1

    def closed(self, call: Call, outcome: str) -> None:
        """Write down what became of a call."""
        seconds = time.monotonic() - call.began
        if (share := self._calls.pop(call, None)) is not None:
            self._shares[share] -= 1
        self._done(call.method if call.rule else "", outcome, seconds)
        if call.caller is None or (call.rule is not None and call.rule.recorded) or outcome == NotAllowed.code:
            self._audit.write(call, outcome, seconds)

    def began(self, service: str) -> None:
        """Write down that a tunnel is open, which may be for long: its end has a line of its own.

        Called in the task of its call.
        """
        caller, about = callers.current(), callers.about()
        address, method = caller.connection.address, "/cfctl.v1.Tunnel/Open"
        self._audit.record(address, caller, caller.token, method, about.device, outcome="opened", service=service)

    @property
    def calls(self) -> int:
        """How many calls are being answered."""
        return len(self._calls)

    async def watch(self) -> None:
        """End calls of which the token does not count any more; goes on until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            for call in list(self._calls):
                if call.token is not None and self._gone(call.token):
                    call.end(TokenRefused("The token has expired, or was revoked."))

    def _gone(self, token: Token) -> bool:
        try:
            return self._tokens.get(token.id) is None
        except CfctlError as error:
            log.warning("%s", error)
            return False

    async def leave(self, seconds: float) -> None:
        """Let nobody in any more, end what goes on for ever, and wait for the rest.

        :param seconds: after them, the rest is ended too: a launch is rolled back.
        """
        self._leaving = True
        error = RelayLeaving("the relay is being stopped", "Devices run on.", "Try again when it is back.")
        for call in list(self._calls):
            if call.rule is not None and call.rule.endless:
                call.end(error)
        deadline = time.monotonic() + seconds
        while self._calls and time.monotonic() < deadline:
            await asyncio.sleep(_TICK_S)
        for call in list(self._calls):
            call.end(error)
        deadline = time.monotonic() + _END_S
        while self._calls and time.monotonic() < deadline:
            await asyncio.sleep(_TICK_S)


class Call:
    """One call, from its admission to its end: the body of the block is the method's own handler.

    Errors of ours that leave the block end the call with their status; anything else is a bug, and is not shown.
    """

    def __init__(
        self, gate: Gate, method: str, rule: Rule | None, secret: str, context: Context, device: str
    ) -> None:
        self._gate = gate
        self.method = method
        self.rule = rule
        self.secret = secret
        self.context = context
        self.began = time.monotonic()
        self.address = ""
        self.token: Token | None = None
        self.caller: Caller | None = None
        self.about = callers.About(device)
        self._task = asyncio.current_task()
        self._reason: CfctlError | None = None

    def end(self, error: CfctlError) -> None:
        """End the call from our side, with a reason; its handler is cancelled."""
        if self._reason is None and self._task is not None:
            self._reason = error
            self._task.cancel()

    async def __aenter__(self) -> Call:
        """Admit the caller; nothing of the method has run if he is refused."""
        try:
            self.caller = self._gate.admit(self)
        except CfctlError as error:
            self._gate.closed(self, error.code)
            await wire.abort(self.context, error)
        callers.set_current(self.caller, self.about)
        self._gate.opened(self, self.caller)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write down what became of the call, and tell the caller."""
        del trace
        told: CfctlError | None = None
        outcome = "ok"
        if isinstance(error, asyncio.CancelledError):
            outcome = "cancelled"
            if self._reason is not None and self._task is not None:
                self._task.uncancel()
                told, outcome = self._reason, self._reason.code
        elif isinstance(error, CfctlError):
            told, outcome = error, error.code
        elif kind is not None and issubclass(kind, grpc.aio.AbortError):
            outcome = _word(self.context)
        elif error is not None:
            log.error("%s failed", self.method, exc_info=error)
            told = CfctlError("the relay itself failed", None, "This is a bug: its host's log says more.")
            outcome = "bug"
        if "service" in self.about.more:
            # A tunnel that was not ended by its device.
            why = self._reason.brief if self._reason else "the caller has left" if outcome == "cancelled" else outcome
            self.about.more.setdefault("reason", why)
        self._gate.closed(self, outcome)
        if told is not None:
            await wire.abort(self.context, told)


def _word(context: Context) -> str:
    """Return the word for the status that a handler has ended its call with by itself."""
    # gRPC keeps the number alone.
    known = {code.value[0]: code.name.lower().replace("_", "-") for code in grpc.StatusCode}
    code: Any = context.code()
    return known.get(getattr(code, "value", (code,))[0], "aborted")


def _secret(metadata: Any) -> str:
    """Return the token that a call shows; empty if it shows none."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""


def _wrapped(
    handler: grpc.RpcMethodHandler[Any, Any] | None, call: Callable[[Any, Context], Call]
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that has the gate before it."""
    if handler is None:
        # Said behind the gate: a stranger does not even learn what there is.
        async def unknown(request: Any, context: Context) -> None:
            async with call(request, context):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")

        return grpc.unary_unary_rpc_method_handler(unknown)
    one = handler.unary_unary or handler.stream_unary
    many = handler.unary_stream or handler.stream_stream

    async def answer_one(request: Any, context: Context) -> Any:
        async with call(request, context):
            return await _called(one, request, context)

    async def answer_many(request: Any, context: Context) -> None:
        async with call(request, context):
            if not inspect.isasyncgenfunction(many):
                await _called(many, request, context)
                return
            # Not as a generator of ours: one that is cancelled between two answers would end whenever it is found.
            async with contextlib.aclosing(many(request, context)) as answers:
                async for answer in answers:
                    await context.write(answer)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour = answer_many if handler.response_streaming else answer_one
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


async def _called(behaviour: Any, request: Any, context: Context) -> Any:
    answer = behaviour(request, context)
    return await answer if inspect.isawaitable(answer) else answer


def _device(request: Any) -> str:
    """Return the device that a request names."""
    for field in ("name", "target"):
        value = getattr(request, field, None)
        if isinstance(value, str):
            return value[:100]
    return ""
