"""Tunnels: the real servicer and the real client over a real gRPC connection, with sockets at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cfctl.errors import CfctlError, FromElsewhere, NoSuchDevice, NotAllowed, NotRunning
from cfctl.relay.limits import Limits as RelayLimits
from cfctl.relay.tunnel import Limits, Tunnel
from cfctl.remote import tunnel as near
from cfctl.v1 import tunnel_pb2, tunnel_pb2_grpc
from cfctl.wire import errors, stream

PATIENCE = 60.0
REPO = Path(__file__).resolve().parents[2]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Way:
    """The way to a device that is a TCP server of this test."""

    def __init__(self, port: int, gone: asyncio.Event) -> None:
        self._port = port
        self._gone = gone

    async def connect(self) -> socket.socket:
        end = socket.socket()
        end.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", self._port))
        except OSError:
            end.close()
            raise
        return end

    async def gone(self) -> str:
        await self._gone.wait()
        return "phone was stopped"


class Relay:
    """A server with the Tunnel service alone, a device behind it, and a channel to it."""

    def __init__(
        self, channel: grpc.aio.Channel, service: Tunnel, gone: asyncio.Event, heard: list[Any], dropped: list[str]
    ) -> None:
        self.channel = channel
        self.service = service
        self.gone = gone
        self.heard = heard
        self.said: list[str] = []
        self.dropped = dropped

    def listener(self, target: str = "phone") -> near.Listener:
        return near.Listener(self.channel, target, near.ADB, address="the test's", said=self.said.append)

    async def open(self, target: str = "phone", service: Any = near.ADB) -> near.Tunnel:
        return await near.Tunnel.open(self.channel, target, service, "the test's")


@contextlib.asynccontextmanager
async def relay(
    directory: Path, device: Handler, limits: Limits | None = None, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[Relay]:
    server = await asyncio.start_server(device, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gone = asyncio.Event()
    heard: list[Any] = []

    async def resolve(target: str, service: Any) -> Way:
        if target == "stopped":
            raise NotRunning("stopped is stopped", None, "Boot it: cfctl restart stopped")
        if target == "closed":
            return Way(1, gone)
        if target != "phone":
            raise NoSuchDevice(target, ["phone"])
        return Way(port, gone)

    dropped: list[str] = []
    service = Tunnel(resolve, limits, lambda *what: heard.append(what), dropped.append)
    grpc_server = grpc.aio.server(options=list(options))
    tunnel_pb2_grpc.add_TunnelServicer_to_server(service, grpc_server)
    address = f"unix:{directory}/s"
    grpc_server.add_insecure_port(address)
    await grpc_server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(PATIENCE):
            yield Relay(channel, service, gone, heard, dropped)
            await until(lambda: service.open == 0)
    finally:
        server.close()
        await grpc_server.stop(None)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing, say nothing, and stay."""
    with contextlib.closing(writer):
        await asyncio.sleep(PATIENCE)


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(-1)


def test_bytes_there_and_back_with_equal_hashes(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(12 << 20)

    async def run() -> None:
        async with relay(tmp_path, echo) as box, box.listener() as here:
            # The first takes the tunnel that is open already, the others open their own.
            pairs = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(3)]

            async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
                answer = asyncio.ensure_future(to_the_end(reader))
                writer.write(data)
                await writer.drain()
                writer.write_eof()
                got = await answer
                writer.close()
                return hashlib.sha256(got).digest()

            digests = await asyncio.gather(*(one(*pair) for pair in pairs))
            assert set(digests) == {hashlib.sha256(data).digest()}
            for direction in ("received", "sent"):
                assert sum(size for *what, size in box.heard if what == ["adb", direction]) == 3 * len(data)

    asyncio.run(run())


def test_a_device_that_is_stopped_closes_its_tunnels_with_a_reason(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo) as box, box.listener() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            box.gone.set()
            assert await reader.read() == b""
            await until(lambda: box.said == ["phone was stopped"])
            assert here.lost == "phone was stopped"
            writer.close()

    asyncio.run(run())


def test_who_ends_a_tunnel_himself_has_not_lost_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo) as box, box.listener() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await until(lambda: bool(box.said))
            assert here.lost == ""

    asyncio.run(run())


def test_a_device_that_closes_first_and_is_found_stopped_a_moment_later(tmp_path: Path) -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def run() -> None:
        async with relay(tmp_path, closes) as box, box.listener() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()
            await asyncio.sleep(0.05)
            box.gone.set()
            await until(lambda: box.said == ["phone was stopped"])
            assert here.lost == "phone was stopped"

    asyncio.run(run())


def test_half_a_connection_is_a_connection(tmp_path: Path) -> None:
    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read(-1)
        writer.write(hashlib.sha256(everything).hexdigest().encode())
        writer.close()

    async def run() -> None:
        async with relay(tmp_path, answers_at_the_end) as box, box.listener() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"a question")
            writer.write_eof()
            assert await to_the_end(reader) == hashlib.sha256(b"a question").hexdigest().encode()
            writer.close()
            await until(lambda: box.said == ["both ends have finished"])

    asyncio.run(run())


def test_a_half_open_one_is_not_kept(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, silent, Limits(linger_s=0.2, why_s=0.1)) as box:
            tunnel = await box.open()
            await tunnel.finish()
            with pytest.raises(ConnectionAbortedError, match="one end had finished, and the other was silent"):
                await tunnel.read()

    asyncio.run(run())


def test_a_device_that_does_not_read_holds_the_caller_up_and_is_given_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, silent, Limits(stall_s=0.5, close_s=0.2)) as box:
            tunnel = await box.open()
            sent = 0

            async def fill() -> None:
                nonlocal sent
                while True:
                    await tunnel.write(bytes(stream.PIECE))
                    sent += stream.PIECE

            filling = asyncio.ensure_future(fill())
            with pytest.raises(ConnectionAbortedError, match=r"phone did not read for 0.5 s"):
                await tunnel.read()
            filling.cancel()
            # What the kernel and HTTP/2's windows hold, and one piece.
            assert sent < 24 << 20

    asyncio.run(run())


def test_a_caller_that_does_not_read_holds_the_device_up(tmp_path: Path) -> None:
    sent = 0

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16

    async def run() -> None:
        async with relay(tmp_path, talks, Limits(stall_s=0.5, close_s=0.2)) as box:
            tunnel = await box.open()
            # Not even the reason is read: there is no other way than to drop the connection.
            await until(lambda: len(box.dropped) == 1)
            assert sent < 24 << 20
            tunnel.cancel()

    asyncio.run(run())


def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(16 << 20)

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with relay(tmp_path, talks, Limits(stall_s=20)) as box:
            tunnel = await box.open()
            await asyncio.sleep(0.3)
            got = bytearray()
            while (piece := await tunnel.read()) is not None:
                got += piece
            assert bytes(got) == data
            await tunnel.finish()

    asyncio.run(run())


def test_a_caller_that_dies_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo) as box:
            tunnel = await box.open()
            await tunnel.write(b"x")
            assert await tunnel.read() == b"x"
            assert box.service.open == 1
            tunnel.cancel()
            await until(lambda: box.service.open == 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("target", "service", "code", "brief"),
    [
        ("nobody", near.ADB, "no-such-device", "there is no device 'nobody'"),
        ("stopped", near.ADB, "not-running", "stopped is stopped"),
        ("closed", near.ADB, "failed", "closed cannot be reached: Connect call failed ('127.0.0.1', 1)"),
        ("phone", 0, "usage", "a tunnel leads to the adb port or the console, and to nothing else"),
        ("phone", 7, "usage", "a tunnel leads to the adb port or the console, and to nothing else"),
    ],
)
def test_what_the_relay_has_against_it_is_said_at_once(
    tmp_path: Path, target: str, service: Any, code: str, brief: str
) -> None:
    async def run() -> CfctlError:
        async with relay(tmp_path, echo) as box:
            with pytest.raises(CfctlError) as caught:
                await box.open(target, service)
            return caught.value

    error = asyncio.run(run())
    assert (error.code, error.brief) == (code, brief)


def test_one_who_is_refused_before_he_said_anything_hears_why_each_time(tmp_path: Path) -> None:
    """The relay's gate does not wait for the first message: the answer may cross it."""

    class Gate(tunnel_pb2_grpc.TunnelServicer):
        async def Open(self, request_iterator: Any, context: Any) -> None:
            await errors.abort(context, NotAllowed("the role viewer may not do that: Open"))

    async def run() -> None:
        server = grpc.aio.server()
        tunnel_pb2_grpc.add_TunnelServicer_to_server(Gate(), server)
        address = f"unix:{tmp_path}/s"
        server.add_insecure_port(address)
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(PATIENCE):
            for _ in range(200):
                with pytest.raises(FromElsewhere, match="the role viewer may not do that"):
                    await near.Tunnel.open(channel, "phone", near.ADB, "the test's")
        await server.stop(None)

    asyncio.run(run())


def test_no_more_tunnels_than_there_may_be(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo, Limits(tunnels=2)) as box:
            tunnels = [await box.open(), await box.open()]
            with pytest.raises(FromElsewhere, match="the relay has no room for another tunnel"):
                await box.open()
            for tunnel in tunnels:
                tunnel.cancel()
            await until(lambda: box.service.open == 0)
            (await box.open()).cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([tunnel_pb2.TunnelRequest(data=b"x")], "a tunnel begins with what it is to lead to"),
        ([], "a tunnel begins with what it is to lead to"),
    ],
    ids=["data first", "nothing"],
)
def test_a_tunnel_that_begins_otherwise(tmp_path: Path, messages: list[Any], said: str) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo) as box:
            call = tunnel_pb2_grpc.TunnelStub(box.channel).Open(iter(messages))
            with pytest.raises(grpc.aio.AioRpcError, match=said):
                await call.read()

    asyncio.run(run())


def test_somebody_who_does_not_say_what_he_wants(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo, Limits(open_s=0.2)) as box:
            call = tunnel_pb2_grpc.TunnelStub(box.channel).Open()
            with pytest.raises(grpc.aio.AioRpcError, match=r"nothing was asked for within 0.2 s"):
                await call.read()

    asyncio.run(run())


def test_a_piece_that_is_too_large(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, echo) as box:
            tunnel = await box.open()
            await tunnel.write(bytes(stream.PIECE + 1))
            with pytest.raises(ConnectionAbortedError, match="a message had 262145 bytes; 262144 are the most"):
                await tunnel.read()

    asyncio.run(run())


def test_a_caller_that_has_vanished_is_given_up(tmp_path: Path) -> None:
    """As one whose machine has lost power: its connection is there, and nobody answers on it."""
    vanishing = (
        "import asyncio, sys, grpc\nfrom cfctl.remote import tunnel\n"
        "async def run():\n"
        "    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:\n"
        "        await tunnel.Tunnel.open(channel, 'phone', tunnel.ADB, 'x')\n"
        "        print('open', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(run())\n"
    )

    async def run() -> None:
        # The relay's own options with shorter times.
        options = RelayLimits(keepalive_s=0.5, answer_s=0.5).grpc_options()
        async with relay(tmp_path, silent, options=options) as box:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", vanishing, f"unix:{tmp_path}/s"),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(REPO)},
            )
            try:
                assert child.stdout is not None
                assert await child.stdout.readline() == b"open\n"
                assert box.service.open == 1
                child.send_signal(signal.SIGSTOP)
                await until(lambda: box.service.open == 0)
            finally:
                child.kill()
                await child.wait()

    asyncio.run(run())


def test_a_relay_that_dies_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with relay(tmp_path, silent) as box:
            tunnel = await box.open()
            reading = asyncio.ensure_future(tunnel.read())
            await asyncio.sleep(0)
            await box.channel.close(None)
            with pytest.raises((CfctlError, asyncio.CancelledError)):
                await reading

    asyncio.run(run())
