"""The supervisor's socket, byte by byte."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import DevicesUp
from cfctl.guest import monitor
from cfctl.guest.monitor import Request

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeSupervisor:
    """Does what it is asked for, and writes it down."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.asked: list[str] = []

    async def stop(self, *, code: int) -> bool:
        self.asked.append(f"stop {code}")
        return self.works

    async def restart(self, *, wipe: bool = False) -> bool:
        self.asked.append("wipe" if wipe else "restart")
        return self.works

    async def booted(self) -> int:
        return 11

    async def pause(self) -> bool:
        self.asked.append("pause")
        return self.works

    async def resume(self) -> bool:
        self.asked.append("resume")
        return self.works

    async def snapshot(self, meta: Path) -> bool:
        self.asked.append(f"snapshot {meta}")
        return self.works

    async def screenshot(self, display: int, path: Path) -> bool:
        self.asked.append(f"screenshot {display} {path}")
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


def extended(message: str) -> bytes:
    """Return an extended request with a message given in hexadecimal."""
    raw = bytes.fromhex(message)
    return b"A" + struct.pack("=I", len(raw)) + raw


@pytest.mark.parametrize(
    ("request_", "works", "answer", "asked", "ended"),
    [
        (b"I", True, b"S", [], False),
        (b"III", True, b"SSS", [], False),
        (b"X", True, b"S", ["stop 0"], True),
        (b"X", False, b"E", ["stop 0"], False),
        (b"F", True, b"S", ["stop 11"], True),
        (b"P", True, b"S" + struct.pack("=i", 11), ["wipe"], False),
        (b"P", False, b"E", ["wipe"], False),
        (b"R", True, b"S" + struct.pack("=i", 11), ["restart"], False),
        (b"R", False, b"E", ["restart"], False),
        (bytes.fromhex("41020000002a00"), True, b"S", ["pause"], False),
        (bytes.fromhex("410200000032" + "00"), True, b"S", ["resume"], False),
        (bytes.fromhex("410e000000520c120a2f746d702f782e706e67"), True, b"S", ["screenshot 0 /tmp/x.png"], False),
        (extended("52 0e 0801 120a2f746d702f782e706e67"), True, b"S", ["screenshot 1 /tmp/x.png"], False),
        (extended("52 03 12 01 78"), True, b"E", [], False),  # a relative path
        (extended("4a 04 0a 02 2f6d"), True, b"S", ["snapshot /m"], False),
        (extended("4a 04 0a 02 2f6d"), False, b"E", ["snapshot /m"], False),
        (extended("3a 00"), True, b"E", [], False),  # recording: nobody here could
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
    [
        ("2a00", Request(5)),
        ("3200", Request(6)),
        ("520c120a2f746d702f782e706e67", Request(10, 0, "/tmp/x.png")),
        ("", Request()),
        ("2a05", None),
        ("a20100", Request()),  # a verbosity alone
        ("5203120180", None),  # no UTF-8
        ("0d00000000", None),  # a fixed number, which the message does not have
    ],
)
def test_requests(message: str, expected: Request | None) -> None:
    assert monitor.parse(bytes.fromhex(message)) == expected


@given(st.binary(max_size=64))
def test_whatever_comes_is_read_or_refused(message: bytes) -> None:
    assert monitor.parse(message) is None or isinstance(monitor.parse(message), Request)
