"""The supervisor's socket, byte by byte."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cfctl.errors import DevicesUp
from cfctl.guest import monitor

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeSupervisor:
    """Does what it is asked for, and writes it down."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.asked: list[str] = []

    async def stop(self, *, code: int) -> bool:
        self.asked.append(f"stop {code}")
        return self.works

    async def restart(self) -> bool:
        self.asked.append("restart")
        return self.works

    async def booted(self) -> int:
        return 11

    async def pause(self) -> bool:
        self.asked.append("pause")
        return self.works

    async def resume(self) -> bool:
        self.asked.append("resume")
        return self.works


def converse(path: Path, supervisor: FakeSupervisor, talk: Talk) -> bool:
    """Run a server, let a client talk to it; return whether the server is to end."""

    async def life() -> bool:
        server = monitor.Server(path, supervisor)
        await server.start()
        assert path.stat().st_mode & 0o777 == 0o666
        reader, writer = await asyncio.open_unix_connection(path)
        await asyncio.wait_for(talk(reader, writer), 5)
        writer.close()
        ended = server.ended.is_set()
        server.close()
        return ended

    return asyncio.run(life())


@pytest.mark.parametrize(
    ("request_", "works", "answer", "asked", "ended"),
    [
        (b"I", True, b"S", [], False),
        (b"III", True, b"SSS", [], False),
        (b"X", True, b"S", ["stop 0"], True),
        (b"X", False, b"E", ["stop 0"], False),
        (b"F", True, b"S", ["stop 11"], True),
        (b"P", True, b"E", [], False),
        (b"R", True, b"S" + struct.pack("=i", 11), ["restart"], False),
        (b"R", False, b"E", ["restart"], False),
        (bytes.fromhex("41020000002a00"), True, b"S", ["pause"], False),
        (bytes.fromhex("410200000032" + "00"), True, b"S", ["resume"], False),
        (bytes.fromhex("410e000000520c120a2f746d702f782e706e67"), True, b"E", [], False),
        (b"A" + bytes(4), True, b"E", [], False),
        (b"?" + bytes(4), True, b"E", [], False),
        (b"A" + struct.pack("=I", 2) + b"\xff\xff", True, b"", [], False),
    ],
)
def test_protocol(tmp_path: Path, request_: bytes, works: bool, answer: bytes, asked: list[str], ended: bool) -> None:
    supervisor = FakeSupervisor(works=works)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request_)
        writer.write_eof()
        assert await reader.read() == answer

    assert converse(tmp_path / "s", supervisor, talk) is ended
    assert supervisor.asked == asked


def test_a_silent_client_hinders_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"A\x05")  # and no more
        other_reader, other = await asyncio.open_unix_connection(path)
        other.write(b"I")
        assert await other_reader.readexactly(1) == b"S"
        other.close()

    converse(path, FakeSupervisor(), talk)


def test_a_client_that_does_not_wait_hurts_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            _, other = await asyncio.open_unix_connection(path)
            other.write(b"I")
            other.transport.abort()
        writer.write(b"I")
        assert await reader.readexactly(1) == b"S"

    converse(path, FakeSupervisor(), talk)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "cvd-1" / "s"
    path.parent.mkdir()

    async def life() -> None:
        first = monitor.Server(path, FakeSupervisor())
        await first.start()
        with pytest.raises(DevicesUp) as caught:
            await monitor.Server(path, FakeSupervisor()).start()
        assert caught.value.brief == "cvd-1 is running already"
        assert path.is_socket()
        # The look at the live one is a client that leaves at once: let it come and go.
        await asyncio.sleep(0.05)
        # As a killed supervisor would leave it: the path is there and nobody listens.
        assert first._server is not None
        first._server.close()
        assert path.is_socket()
        second = monitor.Server(path, FakeSupervisor())
        await second.start()
        second.close()

    asyncio.run(life())


@pytest.mark.parametrize(
    ("message", "expected"),
    [("2a00", 5), ("3200", 6), ("520c120a2f746d702f782e706e67", 10), ("", 0), ("2a05", None), ("a20100", 0)],
)
def test_actions(message: str, expected: int | None) -> None:
    assert monitor.action(bytes.fromhex(message)) == expected
