"""The near end of a tunnel: connections to a loopback port of this machine are carried to a device behind a relay."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from cfctl.errors import CfctlError, FromElsewhere
from cfctl.remote import loopback
from cfctl.v1 import tunnel_pb2, tunnel_pb2_grpc
from cfctl.wire import errors, stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    Stream = grpc.aio.StreamStreamCall[tunnel_pb2.TunnelRequest, tunnel_pb2.TunnelResponse]

_Request = tunnel_pb2.TunnelRequest
_Target = tunnel_pb2.TunnelTarget

ADB = _Target.SERVICE_ADB
CONSOLE = _Target.SERVICE_CONSOLE

#: Seconds until the relay has reached the device, a little more than it gives itself (relay/tunnel.py).
_OPEN_S = 20.0

#: Seconds for the relay to refuse a call that says nothing; it gives one that it takes ten to say something.
_ASK_AGAIN_S = 5.0

_BACKLOG = 16

#: Seconds that a reason may take; a relay gives itself two to find it.
_REASON_S = 4.0


class Tunnel(stream.Messages):
    """One tunnel that is open: messages to and from the device.

    :param address: of the relay, for people.
    """

    def __init__(self, call: Stream, address: str) -> None:
        self._call = call
        self._address = address
        #: Why the relay has closed it; empty while it has not.
        self.reason = ""
        #: The device has ended it, and not the program here.
        self.cut_off = False
        self._heard_all = False
        self._said_all = False

    @classmethod
    async def open(cls, channel: grpc.aio.Channel, target: str, service: _Target.Service, address: str) -> Tunnel:
        """Open a tunnel.

        :raises CfctlError: what the relay says against it; nothing is left open.
        """
        call = tunnel_pb2_grpc.TunnelStub(channel).Open()
        tunnel = cls(call, address)
        try:
            async with asyncio.timeout(_OPEN_S):
                await call.write(_Request(open=_Target(target=target, service=service)))
                first = await call.read()
            if not isinstance(first, tunnel_pb2.TunnelResponse) or first.WhichOneof("message") != "opened":
                raise await tunnel._ended()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await _refusal(channel, address) or await tunnel._ended() from None
        except TimeoutError:
            call.cancel()
            raise FromElsewhere(
                f"the relay at {address} did not open a tunnel", code="timed-out", exit_code=5
            ) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        return tunnel

    async def read(self) -> bytes | None:
        """Return what the device says."""
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as exc:
                raise self._told(exc) from exc
            if not isinstance(message, tunnel_pb2.TunnelResponse):
                if await self._call.code() is not grpc.StatusCode.OK:
                    raise await self._ended()
                raise ConnectionAbortedError(self.reason or "the relay has ended it")
            match message.WhichOneof("message"):
                case "data":
                    data: bytes = message.data
                    return data
                case "finished":
                    self._heard_all = True
                    self.cut_off = not self._said_all
                    return None
                case "closed":
                    self.reason = message.closed.reason
                    self.cut_off = self.cut_off or not self._said_all
                    raise ConnectionAbortedError(self.reason)

    async def write(self, data: bytes) -> None:
        """Send to the device."""
        await self._send(_Request(data=data))

    async def finish(self) -> None:
        """Tell the device that nothing more is sent."""
        self._said_all = True
        await self._send(_Request(finished=True))

    async def _send(self, message: tunnel_pb2.TunnelRequest) -> None:
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The relay has ended the call. What it said is still to be read: by whoever reads, if anybody does.
            if not self._heard_all:
                await asyncio.Event().wait()
            await self.closing()
            raise ConnectionAbortedError(self.reason or "the relay has ended it") from None

    async def closing(self) -> None:
        """Hear why the relay closes it, after both ends have finished."""
        with contextlib.suppress(CfctlError, OSError):
            while not self.reason and await self.read() is not None:
                pass

    def cancel(self) -> None:
        """End it at once."""
        self._call.cancel()

    async def _ended(self) -> CfctlError:
        """Return what the relay has ended the call with."""
        code = await self._call.code()
        failed = grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            await self._call.details(),
        )
        return self._told(failed)

    def _told(self, failed: grpc.aio.AioRpcError) -> CfctlError:
        # As in _refusal: what the relay said was lost, but that it has ended it is known.
        if failed.code() is grpc.StatusCode.INTERNAL and not failed.trailing_metadata():
            return FromElsewhere(f"the relay at {self._address} has ended the tunnel")
        return errors.from_call(failed, self._address)


async def _refusal(channel: grpc.aio.Channel, address: str) -> CfctlError | None:
    """Ask again why the relay lets nobody through: nothing is sent that could miss the answer.

    A call that is refused before its first message was written ends with gRPC's own INTERNAL here, now and then, and
    not with what the relay has said (grpc.aio, as of 1.85: a write that fails sets the status).

    :return: None if it is not so that everybody is refused.
    """
    call = tunnel_pb2_grpc.TunnelStub(channel).Open()
    try:
        async with asyncio.timeout(_ASK_AGAIN_S):
            await call.read()
    except grpc.aio.AioRpcError as exc:
        return errors.from_call(exc, address)
    except TimeoutError:
        return None
    finally:
        call.cancel()
    return None


async def carry(end: socket.socket, tunnel: Tunnel, target: str) -> str:
    """Carry bytes between a socket and a device until both have finished; return why the tunnel was closed.

    :raises CfctlError: if the relay ended it with an error, or is gone.
    """
    try:
        carried = await stream.carry(end, tunnel, names=("the local program", target))
        if carried.broken is None:
            async with asyncio.timeout(_OPEN_S):
                await tunnel.closing()
        return tunnel.reason or str(carried.broken or "")
    except TimeoutError:
        return ""
    finally:
        tunnel.cancel()


class Listener:
    """A loopback port that leads to a device; usable as an asynchronous context manager.

    Only this user's programs and root's are let in. The first tunnel is opened at once, so that what the relay has
    against it is said before anything connects, and serves the first that connects.

    :param said: called with what people should know when a tunnel ends: why, or the error.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: str,
        service: _Target.Service,
        *,
        address: str,
        said: Callable[[str], None],
    ) -> None:
        self._open: Callable[[], Awaitable[Tunnel]] = lambda: Tunnel.open(channel, target, service, address)
        self._target = target
        self._said = said
        self._spare: Tunnel | None = None
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tunnels: dict[Tunnel, asyncio.Task[None]] = {}
        #: Why the last tunnel ended, if the device or the relay cut it off and nothing has connected since.
        self.lost = ""

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        assert self._socket is not None  # noqa: S101 (inside of the block there is one)
        port: int = self._socket.getsockname()[1]
        return port

    async def __aenter__(self) -> Listener:
        """Listen.

        :raises CfctlError: what the relay has against it; nothing is left.
        """
        self._spare = await self._open()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._socket.settimeout(0)
        self._start(self._accept())
        return self

    async def settle(self) -> None:
        """Wait a moment for the reasons of tunnels that the device has ended: the relay says them last."""
        if waiting := [task for tunnel, task in self._tunnels.items() if tunnel.cut_off]:
            await asyncio.wait(waiting, timeout=_REASON_S)

    async def __aexit__(self, *_: object) -> None:
        """Close it and every tunnel."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        if self._spare is not None:
            self._spare.cancel()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._socket is not None  # noqa: S101 (it was made before this was started)
        while True:
            client, _ = await loop.sock_accept(self._socket)
            if not loopback.is_ours(client):
                client.close()
                continue
            self._start(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                spare, self._spare = self._spare, None
                tunnel = spare or await self._open()
            except CfctlError as error:
                self._said(error.brief)
                return
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 (a coroutine that runs has one)
            self._tunnels[tunnel] = task
            self.lost = ""
            try:
                reason = await carry(client, tunnel, self._target)
                self.lost = reason if tunnel.cut_off else ""
            except CfctlError as error:
                reason = self.lost = error.brief
            finally:
                del self._tunnels[tunnel]
            if reason:
                self._said(reason)
