"""The VNC client against servers that say what they should not; a real one is in tests/system."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cfctl.guest.streamer import rfb

HELLO = b"RFB 003.008\n"
INIT = struct.pack(">HH16xI", 4, 2, 3) + b"vnc"
GREETING = HELLO + b"\1\1" + bytes(4) + INIT


def update(*rectangles: tuple[int, int, int, int, int, bytes]) -> bytes:
    """Return an update of rectangles: x, y, width, height, encoding, data."""
    body = b"".join(struct.pack(">4Hi", *place) + data for *place, data in rectangles)
    return struct.pack(">BxH", 0, len(rectangles)) + body


async def _with_server(path: Path, said: bytes, play: Callable[[], Any]) -> Any:
    heard = bytearray()
    talks: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        talks.append(talk)
        writer.write(said)
        while data := await reader.read(4096):
            heard.extend(data)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    try:
        found = await play()
    finally:
        server.close()
        await asyncio.gather(*talks, return_exceptions=True)
    return found, bytes(heard)


def test_a_picture_and_its_changes(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    said = (
        GREETING
        # Before the first picture: a bell, a clipboard, colours.
        + b"\2"
        + struct.pack(">B3xI", 3, 2)
        + b"hi"
        + struct.pack(">Bx2H", 1, 0, 1)
        + bytes(6)
        + update((0, 0, 4, 2, 0, bytes(range(32))))
        + update((1, 1, 2, 1, 0, b"\xff" * 8))
        # Its size becomes another: all that was known is gone.
        + update((0, 0, 2, 2, -223, b""), (0, 0, 2, 2, 0, b"\xee" * 16))
    )

    async def play() -> list[bytes]:
        found = []
        async with rfb.connected(path) as screen:
            assert (screen.width, screen.height) == (4, 2)
            for _ in range(3):
                await screen.changed()
                found.append(bytes(screen.pixels))
            assert (screen.width, screen.height) == (2, 2)
        return found

    (first, second, third), heard = asyncio.run(_with_server(path, said, play))
    assert first == bytes(range(32))
    assert second == bytes(range(20)) + b"\xff" * 8 + bytes(range(28, 32))
    assert third == b"\xee" * 16
    # -- what was asked for: no password, a shared screen, the format, then all of it, then what changes
    assert heard.startswith(HELLO + b"\1\1" + bytes(4) + struct.pack(">4B", 32, 24, 0, 1))
    assert heard.endswith(struct.pack(">BB4H", 3, 0, 0, 0, 2, 2)) or struct.pack(">BB4H", 3, 1, 0, 0, 4, 2) in heard


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        HELLO + b"\1\2",
        HELLO + b"\1\1" + b"\0\0\0\1",
        HELLO + b"\1\1" + bytes(4) + struct.pack(">HH16xI", 0, 0, 0),
        HELLO + b"\1\1" + bytes(4) + struct.pack(">HH16xI", 65535, 65535, 0),
        GREETING + b"\x09",
        GREETING + update((0, 0, 5, 2, 0, bytes(40))),
        GREETING + update((3, 0, 2, 2, 0, bytes(16))),
        GREETING + update((0, 0, 4, 2, 16, b"")),
    ],
    ids=["no RFB", "a password", "turned away", "no screen", "too large", "kind", "too wide", "beside", "encoding"],
)
def test_what_is_not_meant_is_not_taken(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "vnc"

    async def play() -> None:
        with pytest.raises(rfb.NotVnc):
            async with rfb.connected(path) as screen:
                await screen.changed()

    asyncio.run(_with_server(path, said, play))


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "vnc"

    async def short(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + b"\0")
        writer.close()
        await writer.wait_closed()

    async def play() -> None:
        async with await asyncio.start_unix_server(short, path):
            with pytest.raises((EOFError, OSError)):
                async with rfb.connected(path) as screen:
                    await screen.changed()

    asyncio.run(play())
