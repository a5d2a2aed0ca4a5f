"""At a console: what a person is told before and after, at a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

#: A guest that says nothing until something is typed.
_SIT = """
import asyncio, contextlib
from cfctl.cli import sitting
class Console:
    typed = asyncio.Event()
    async def read(self):
        await self.typed.wait()
        self.typed.clear()
        return b"guest"
    async def write(self, data):
        self.typed.set()
    def resize(self, rows, columns):
        pass
sitting.require_terminal("phone", json_=False)
asyncio.run(sitting.sit("phone", contextlib.nullcontext(Console())))
sitting.left("phone")
"""


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (0, 0)])
def test_a_size_is_told_to_the_guest_if_there_is_one(rows: int, columns: int) -> None:
    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    argv = [sys.executable, "-c", _SIT]
    with subprocess.Popen(argv, stdin=screen, stdout=screen, stderr=screen, env=env) as child:
        os.close(screen)
        said = b""
        while b"Ctrl-] leaves it" not in said:
            said += os.read(keyboard, 4096)
        os.write(keyboard, b"x")
        while b"guest" not in said.partition(b"leaves it")[2].replace(b"To the guest", b""):
            said += os.read(keyboard, 4096)
        os.write(keyboard, b"\x1d")
        while b"Left the console of phone" not in said:
            said += os.read(keyboard, 4096)
        assert child.wait(60) == 0
    os.close(keyboard)
    assert (b"stty rows 24 cols 80" in said) is bool(rows)
    assert (b"stty" in said) is bool(rows)
