"""Whatever reads or changes devices: ``cfctl`` itself, in a child that runs as the devices' user.

The daemon never acts on a user's files, so a link, a huge file or a broken record of one user is that user's own
trouble. The children print JSON, the contract that scripts use too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cfctl
from cfctl import process
from cfctl.errors import CfctlError, DeadlinePassed, RelayBusy
from cfctl.relay import verbs
from cfctl.wire import errors as wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cfctl.relay.people import User

#: Bytes of one line of a child, and half of what it may be ahead. A list of 128 devices has 100 KiB.
_LINE = 1 << 20

#: Verbs of one user that come to an end by themselves: more of them wait for their turn.
_AT_ONCE = 8

#: What is kept of what a child says to people, for the case that it ends without a document.
_SAID = 4000

#: How long a child may take to undo what it has half done, before it is killed; a stop ladder takes 60 s at most.
_UNDO_S = 90.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Of the environment of a daemon that acts as its own user: not for its children.
_OURS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID")


class Worker:
    """Starts the children, and counts them.

    :param most: children of one user at once.
    :param nowhere: an empty directory that everybody may enter. In any other, a name that a caller gives could be
        a file.
    """

    def __init__(self, most: int, nowhere: Path) -> None:
        self._most = most
        self._nowhere = nowhere
        self._running: Counter[int] = Counter()
        self._turns: dict[int, asyncio.Semaphore] = {}
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def children(self) -> int:
        """How many run now."""
        return sum(self._running.values())

    async def document(
        self,
        user: User,
        argv: Sequence[str],
        *,
        seconds: float,
        only: int = 0,
        longest: int | None = None,
        fed: bytes = b"",
    ) -> dict[str, Any]:
        """Run a verb with ``--json`` to its end; return the document that it printed.

        :param only: the exit status beside 0 that comes with a document instead of an error.
        :param longest: how long the document may be, in bytes.
        :param fed: its standard input: for what everybody could read among its arguments.
        :raises CfctlError: the error that it printed; or that it printed nothing that is a document.
        :raises DeadlinePassed: if it took too long; it was interrupted, and undoes what it has half done.
        """
        last: dict[str, Any] = {}
        turn = self._turns.setdefault(user.uid, asyncio.Semaphore(_AT_ONCE))
        try:
            async with (
                asyncio.timeout(seconds),
                turn,
                contextlib.aclosing(self.lines(user, argv, only=only, longest=longest, fed=fed)) as lines,
            ):
                async for line in lines:
                    last = line
        except TimeoutError as exc:
            raise DeadlinePassed(f"cfctl {argv[0]} did not end within {seconds:g} s on the relay's host") from exc
        return last

    async def lines(
        self, user: User, argv: Sequence[str], *, only: int = 0, longest: int | None = None, fed: bytes = b""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run a verb with ``--json``, and yield each document that it prints; leaving early interrupts it.

        :raises CfctlError: the error that it printed, after all that it printed before.
        :raises RelayBusy: if too many of this user's run already.
        """
        if self._running[user.uid] >= self._most:
            raise RelayBusy(
                f"{self._most} calls of {user.name} are being worked on", None, "Wait until one has ended."
            )
        self._running[user.uid] += 1
        said = bytearray()
        child: asyncio.subprocess.Process | None = None
        reader: asyncio.Task[None] | None = None
        try:
            child = await process.start_piped(
                _argv(argv),
                env=environment(user),
                credentials=user.credentials,
                limit=longest or _LINE,
                cwd=self._nowhere,
                fed=bool(fed),
            )
            if child.stdin is not None:
                # A few kilobytes: a pipe takes them whole, whether anybody reads or not (pipe(7)).
                child.stdin.write(fed)
                child.stdin.close()
            stdout = cast("asyncio.StreamReader", child.stdout)
            reader = asyncio.create_task(_keep(cast("asyncio.StreamReader", child.stderr), said))
            error: CfctlError | None = None
            printed = False
            while line := await _line(stdout):
                document = _parsed(line)
                if document is None:
                    continue
                if isinstance(document.get("error"), dict) and document.get("event") in (None, "error"):
                    error = wire.from_document(document["error"], 1)
                    continue
                printed = True
                yield document
            status = await child.wait()
            await reader
            if error is not None:
                error.exit_code = status
                raise error
            if status not in (0, only) or not (printed or status == 0):
                raise CfctlError(
                    f"cfctl {argv[0]} ended with status {status} on the relay's host",
                    said.decode(errors="replace").strip() or None,
                )
        finally:
            if child is not None and reader is not None and child.returncode is None:
                self._end(child, reader, user)
            else:
                self._running[user.uid] -= 1
                if reader is not None:
                    reader.cancel()

    def _end(self, child: asyncio.subprocess.Process, reader: asyncio.Task[None], user: User) -> None:
        """Interrupt a child, and see to its end, whoever has stopped waiting for it."""
        task = asyncio.create_task(_interrupt(child, reader))
        self._endings.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._endings.discard(task)
            self._running[user.uid] -= 1

        task.add_done_callback(ended)

    async def settle(self) -> None:
        """Wait until every child that was interrupted has undone its work."""
        while self._endings:
            await asyncio.wait(self._endings)


def _argv(argv: Sequence[str]) -> list[str]:
    # -P: nothing is imported from the working directory.
    whole = [sys.executable, "-P", "-m", "cfctl", *argv]
    # Of what is run in a container it is the inner verb that is to print JSON; otherwise what follows are flags.
    inside = tuple(argv[: len(verbs.INSIDE)]) == verbs.INSIDE
    where = whole.index("--") if "--" in whole and not inside else len(whole)
    return [*whole[:where], "--json", *whole[where:]]


def environment(user: User) -> dict[str, str]:
    """Return the environment of a child: of another user's nothing is known, so a login's minimum."""
    if user.credentials is None:
        # A build's variables say what is launched when nothing is named.
        kept = (name for name in os.environ if name not in _OURS and not name.startswith("ANDROID_"))
        found = {name: os.environ[name] for name in kept}
    else:
        found = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        runtime = Path("/run/user") / str(user.uid)
        if runtime.is_dir():
            found["XDG_RUNTIME_DIR"] = os.fspath(runtime)
    # The same cfctl as ours, wherever it is installed.
    found["PYTHONPATH"] = os.fspath(Path(cfctl.__file__).parents[1])
    found["NO_COLOR"] = "1"
    # Whatever context the user has in use: a relay serves its own host.
    found["CFCTL_RELAY"] = "local"
    return found


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line; what is too long for one is an error.

    :raises CfctlError: for a line that is longer than all that cfctl prints.
    """
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError as exc:
        raise CfctlError("cfctl printed a line that no verb prints on the relay's host") from exc


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


async def _keep(stream: asyncio.StreamReader, said: bytearray) -> None:
    """Read what a child says to people, and keep the end of it."""
    while chunk := await stream.read(65536):
        said += chunk
        del said[:-_SAID]


async def _interrupt(child: asyncio.subprocess.Process, reader: asyncio.Task[None]) -> None:
    """Have a child undo what it has half done, and kill it if it does not come to an end.

    Its output is read on: nobody wants it, but it would wait for a reader.
    """
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    drain = asyncio.create_task(_drain(cast("asyncio.StreamReader", child.stdout)))
    try:
        async with asyncio.timeout(_UNDO_S):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    finally:
        drain.cancel()
        reader.cancel()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
