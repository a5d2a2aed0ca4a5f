"""The console: a terminal that comes and goes, one client at a time, and a key that leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.control.console import Console, interact
from cfctl.control.faults import VmBusy, VmUnreachable

#: Far more than anything here takes.
PATIENCE_S = 20.0


class Line:
    """The guest's side of a console: a terminal, and the launcher's link to it."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.master, self._slave = os.openpty()
        # As upstream's forwarder and ours leave it.
        tty.setraw(self._slave)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._slave))

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "console")
    yield made
    made.close()


async def heard(fd: int, wanted: bytes) -> bytes:
    """Read from a descriptor until something has come."""
    found = b""
    async with asyncio.timeout(PATIENCE_S):
        while wanted not in found:
            found += await asyncio.to_thread(os.read, fd, 4096)
    return found


def test_there_and_back(line: Line) -> None:
    async def talk() -> None:
        async with Console(line.link, "phone") as console:
            os.write(line.master, b"login: \x1b[0m\xff\n")
            assert await console.read() == b"login: \x1b[0m\xff\n", "nothing is changed, nothing echoed"
            await console.write(b"root\r\x03")
            assert await heard(line.master, b"\x03") == b"root\r\x03"
            console.resize(33, 111)
            assert termios.tcgetwinsize(line.master) == (33, 111)

    asyncio.run(talk())


def test_more_than_a_terminal_holds(line: Line) -> None:
    text = bytes(range(32, 127)) * 1000

    async def talk() -> None:
        async with Console(line.link, "phone") as console:
            sent = asyncio.create_task(console.write(text + b"\0"))
            assert await heard(line.master, b"\0") == text + b"\0"
            await sent

    asyncio.run(talk())


def test_a_terminal_that_comes_back(tmp_path: Path) -> None:
    link = tmp_path / "console"

    async def talk() -> None:
        first = Line(link)
        async with Console(link, "phone", patience=PATIENCE_S) as console:
            console.resize(33, 111)
            os.write(first.master, b"going down")
            assert await console.read() == b"going down"
            waiting = asyncio.create_task(console.read())
            await asyncio.sleep(0.05)
            first.close()
            link.unlink()
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await console.write(b"is lost")
            second = Line(link)
            os.write(second.master, b"up again")
            assert await asyncio.wait_for(waiting, PATIENCE_S) == b"up again"
            assert termios.tcgetwinsize(second.master) == (33, 111), "it knows the size, as the first did"
            second.close()

    asyncio.run(talk())


def test_a_terminal_that_does_not(tmp_path: Path) -> None:
    line = Line(tmp_path / "console")

    async def talk() -> None:
        async with Console(line.link, "phone", patience=0.1) as console:
            line.close()
            await console.read()

    with pytest.raises(VmUnreachable) as caught:
        asyncio.run(talk())
    assert caught.value.exit_code == 3
    assert "--console=true" in str(caught.value.resolution)


@pytest.mark.parametrize("kind", ["nothing", "file", "directory"])
def test_what_is_no_terminal(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "console"
    if kind == "file":
        path.write_text("")
    elif kind == "directory":
        path.mkdir()

    async def talk() -> None:
        async with Console(path, "phone"):
            pass

    with pytest.raises(VmUnreachable):
        asyncio.run(talk())


def test_one_at_a_time(line: Line) -> None:
    async def talk() -> None:
        async with Console(line.link, "phone"):
            with pytest.raises(VmBusy) as caught:
                async with Console(line.link, "phone"):
                    pass
            assert "--which console" in str(caught.value.resolution)
        async with Console(line.link, "phone"):
            pass

    asyncio.run(talk())


def test_sitting_at_it(line: Line) -> None:
    # `desk` is where somebody sits, `ours` the end that cfctl has.
    desk, ours = os.openpty()
    before = termios.tcgetattr(ours)

    async def sit() -> None:
        async with Console(line.link, "phone") as console:
            sitting = asyncio.create_task(interact(console, source=ours, sink=ours))
            os.write(line.master, b"# ")
            assert await heard(desk, b"# ") == b"# "
            os.write(desk, b"ls\x03\x04")
            assert await heard(line.master, b"\x04") == b"ls\x03\x04", "every key is the guest's"
            os.write(desk, b"exit\x1dnot this")
            assert await heard(line.master, b"exit") == b"exit"
            await asyncio.wait_for(sitting, PATIENCE_S)

    asyncio.run(sit())
    assert termios.tcgetattr(ours) == before, "the terminal is as it was"
    os.set_blocking(line.master, False)
    with contextlib.suppress(BlockingIOError):
        assert os.read(line.master, 100) == b"", "nothing after the key was sent"
    os.close(desk)
    os.close(ours)


def test_the_terminal_of_the_sitter_ends(line: Line) -> None:
    desk, ours = os.openpty()

    async def sit() -> None:
        async with Console(line.link, "phone") as console:
            sitting = asyncio.create_task(interact(console, source=ours, sink=ours))
            await asyncio.sleep(0.05)
            os.close(desk)
            await asyncio.wait_for(sitting, PATIENCE_S)

    asyncio.run(sit())
    os.close(ours)
