"""A stand-in for crosvm that is a program of that name: its socket, its command line, and the words in its file.

The program is a copy of Python that runs ``program.py`` whatever it is called with, so that ``/proc/PID/exe`` of the
running VM is a file named ``crosvm`` that can be run as one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfctl.control.operations import Manager
from cfctl.control.target import VmTarget
from tests.crosvm.program import AGES

_HERE = Path(__file__).parent
_REPO = _HERE.parents[1]

_STARTUP = """\
import os, sys
from pathlib import Path
sys.path.insert(0, {repo!r})
from tests.crosvm import program
status = 70
try:
    status = program.main(sys.orig_argv[1:], Path({directory!r}), {age!r})
    sys.stdout.flush()
except BaseException:
    import traceback
    traceback.print_exc()
finally:
    os._exit(status)
"""


def write(directory: Path, age: str, *, name: str = "crosvm", words: bool = True) -> Path:
    """Write the program into ``directory``; return it.

    :param age: of ``program.AGES``.
    :param name: what it is called; by another name nobody takes it for crosvm.
    :param words: whether its file has the words of its protocol in it, as Rust leaves them.
    """
    python = Path(sys.executable).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "bin" / name
    program.parent.mkdir()
    shutil.copyfile(python, program)
    if words:
        with program.open("ab") as file:
            # Without anything between them, as strings lie in a program.
            file.write("".join(AGES[age]["words"]).encode())
    program.chmod(0o755)
    (directory / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = directory / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    # Not sitecustomize: the system's own would be found first.
    (packages / "become.pth").write_text("import become_crosvm\n")
    (packages / "become_crosvm.py").write_text(_STARTUP.format(repo=str(_REPO), directory=str(directory), age=age))
    return program


@dataclass(frozen=True)
class Running:
    """A VM that runs.

    :param target: how cfctl sees it.
    :param directory: of the stand-in's own notes.
    :param program: crosvm.
    :param child: the process.
    """

    target: VmTarget
    directory: Path
    program: Path
    child: subprocess.Popen[bytes]

    @property
    def state(self) -> dict[str, Any]:
        """What the VM is like."""
        found: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        return found

    @property
    def requests(self) -> list[str]:
        """Every packet that has arrived; ``end`` for the end of a connection."""
        return self._lines("requests")

    @property
    def commands(self) -> list[list[str]]:
        """How its command line was called, the server's own call left out."""
        return [command for command in self._lines("commands") if command[0] != "run"]

    def _lines(self, name: str) -> list[Any]:
        path = self.directory / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def fault(self, text: str) -> None:
        """Have the socket do something wrong from now on; empty for nothing."""
        (self.directory / "FAULT").write_text(text)


@contextlib.contextmanager
def running(
    directory: Path,
    age: str = "2026",
    *,
    name: str = "crosvm",
    words: bool = True,
    lacks: tuple[str, ...] = (),
    backlog: int = 128,
    configured: bool = False,
) -> Iterator[Running]:
    """Run a VM for the block.

    :param configured: the launcher's config names the program, as :class:`VmTarget` has it.
    """
    program = write(directory / "crosvm", age, name=name, words=words)
    sockets = directory / "s"
    (sockets / "internal").mkdir(parents=True)
    target = VmTarget("phone", Manager.CROSVM, sockets, program if configured else None)
    with serving(target, program, backlog=backlog, lacks=lacks) as child:
        yield Running(target, directory / "crosvm", program, child)


@contextlib.contextmanager
def serving(
    target: VmTarget,
    program: Path,
    *,
    backlog: int = 128,
    lacks: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server for the block; its socket goes with it.

    :param prefix: a command that becomes another one, to run it with.
    """
    notes = program.parents[1] / "pid"
    notes.unlink(missing_ok=True)
    child = subprocess.Popen([*prefix, program, "run", target.socket, str(backlog), *lacks])
    try:
        deadline = time.monotonic() + 30
        while not (notes.exists() and notes.read_text()):
            assert child.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.01)
        yield child
    finally:
        child.kill()
        child.wait()
        target.socket.unlink(missing_ok=True)
