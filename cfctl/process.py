"""The only place that starts programs.

Every call is an argv list, has its standard input closed or fed, a deadline, and keeps what the program printed.
``cfctl --verbose`` shows each command in a form that can be pasted into a shell.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cfctl import distro
from cfctl.errors import CommandFailed, DeadlinePassed, MissingCommand

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

log = logging.getLogger(__name__)

#: Searched after PATH: an ordinary user's PATH on Debian has no sbin.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended.

    :param argv: what was run.
    :param returncode: exit status; negative is a signal.
    :param stdout: standard output as text.
    :param stderr: standard error as text.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Child(Protocol):
    """A program that was started and not waited for: what callers may do with it."""

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, at most ``timeout`` seconds."""

    def send_signal(self, sig: int) -> None:
        """Send a signal if it still runs."""


def find(command: str) -> Path | None:
    """Return where ``command`` is, or None."""
    path = os.pathsep.join([os.environ.get("PATH") or os.defpath, *_SBIN])
    found = shutil.which(command, path=path)
    return Path(found) if found else None


def require(command: str) -> str:
    """Return the full path of ``command``.

    :raises MissingCommand: if it is not installed, naming the package of this distribution.
    """
    found = find(command)
    if found is None:
        raise MissingCommand(command, distro.install_command(command))
    return os.fspath(found)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    stdin: str | None = None,
    success: Collection[int] | None = (0,),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Collection[int] = (),
) -> Result:
    """Run a program to its end.

    :param argv: program and arguments; the program is looked for with :func:`require`.
    :param timeout: seconds; the program is killed when they have passed.
    :param stdin: text for its standard input; without it, it reads end of file.
    :param success: exit statuses that are no failure; None accepts all.
    :param env: the whole environment; without it, the caller's with ``LC_ALL=C``.
    :raises MissingCommand: if the program is not installed.
    :raises CommandFailed: for another exit status, with the output.
    :raises DeadlinePassed: when it was killed for taking too long.
    """
    args = [require(os.fspath(argv[0])), *(os.fspath(arg) for arg in argv[1:])]
    log.debug("%s", shlex.join(args))
    try:
        done = subprocess.run(
            args,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"} if env is None else dict(env),
            cwd=cwd,
            check=False,
            pass_fds=tuple(pass_fds),
        )
    except subprocess.TimeoutExpired as exc:
        raise DeadlinePassed(
            f"{argv[0]} did not end within {timeout:g} s",
            f"It was killed. The command was: {shlex.join(args)}",
        ) from exc
    except OSError as exc:
        raise CommandFailed(args, 126, str(exc)) from exc
    result = Result(tuple(args), done.returncode, done.stdout, done.stderr)
    if success is not None and done.returncode not in success:
        raise CommandFailed(args, done.returncode, done.stdout + done.stderr)
    return result


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    output: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    pass_fds: Collection[int] = (),
    keep_inheritable: bool = False,
    die_with_parent: bool = False,
) -> Child:
    """Start a program that outlives this call, in a session of its own.

    Its output is appended to a file, never to a pipe: a pipe would break when cfctl ends. SIGPIPE stays ignored
    in it, because upstream's run_cvd dies on a monitor client that closes early (launcher.md section 15).

    :param output: file that gets standard output and error.
    :param cwd: working directory; not inside a device, where upstream's stop would take it for one of its own.
    :param pass_fds: descriptors that it and its children keep.
    :param keep_inheritable: it also keeps every descriptor that is marked inheritable: those that this process was
        started with, for example the locks of its instance number.
    :param die_with_parent: the kernel kills it when the thread that called this ends, however it ends.
    :raises MissingCommand: if the program is not installed.
    :raises CommandFailed: if the kernel cannot execute it.
    """
    args = [require(os.fspath(argv[0])), *(os.fspath(arg) for arg in argv[1:])]
    log.debug("%s >>%s 2>&1 &", shlex.join(args), output)
    before_exec = _death_signal() if die_with_parent else None
    with output.open("ab") as sink:
        try:
            return subprocess.Popen(
                args,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                restore_signals=False,
                close_fds=not keep_inheritable,
                pass_fds=tuple(pass_fds),
                preexec_fn=before_exec,  # noqa: PLW1509 (one system call, and the callers have one thread)
            )
        except OSError as exc:
            raise CommandFailed(args, 126, str(exc)) from exc


def _death_signal() -> Callable[[], None]:
    """Return what a new process calls to be killed when its parent ends (prctl(2), PR_SET_PDEATHSIG = 1)."""
    import ctypes  # here, because only the embedded launcher should pay its 10 ms

    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def call() -> None:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # It ended before the call: nobody will send the signal any more.
            os._exit(127)

    return call


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom a program runs as.

    :param groups: supplementary ones, by number.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


async def start_piped(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    credentials: Credentials | None = None,
    limit: int,
    cwd: Path = Path("/"),
    fed: bool = False,
) -> asyncio.subprocess.Process:
    """Start a program whose output is read while it runs, in a session of its own; the caller waits for its end.

    :param env: the whole environment.
    :param credentials: whom it runs as; None is this process's own user. Anything else needs root.
    :param limit: bytes of its output that are read ahead: a longer line is an error, and it waits when they are full.
    :param fed: the caller writes its standard input; otherwise it has none.
    :raises MissingCommand: if the program is not installed.
    :raises CommandFailed: if the kernel cannot execute it, or not as that user.
    """
    ends = {
        "stdin": subprocess.PIPE if fed else subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return await _start(argv, "|", credentials, env=dict(env), cwd=cwd, limit=limit, **ends)


async def start_joined(
    argv: Sequence[str | os.PathLike[str]],
    *,
    end: socket.socket,
    env: Mapping[str, str],
    credentials: Credentials | None = None,
    cwd: Path = Path("/"),
) -> asyncio.subprocess.Process:
    """Start a program of which a socket is standard input and output, in a session of its own.

    What it says on its standard error is nobody's to read. The caller waits for its end.

    :param end: still the caller's to close.
    :param env: the whole environment.
    :param credentials: whom it runs as; None is this process's own user. Anything else needs root.
    :raises MissingCommand: if the program is not installed.
    :raises CommandFailed: if the kernel cannot execute it, or not as that user.
    """
    ends = {"stdin": end.fileno(), "stdout": end.fileno(), "stderr": subprocess.DEVNULL}
    return await _start(argv, "<>", credentials, env=dict(env), cwd=cwd, **ends)


async def _start(
    argv: Sequence[str | os.PathLike[str]], joined: str, credentials: Credentials | None, **options: Any
) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, as another user where one is named.

    :param joined: how the log says what its ends are joined to.
    """
    import asyncio  # here, because it costs more than all the rest, and the relay alone needs it

    args = [require(os.fspath(argv[0])), *(os.fspath(arg) for arg in argv[1:])]
    if credentials is not None:
        options |= {"user": credentials.uid, "group": credentials.gid, "extra_groups": list(credentials.groups)}
    log.debug("%s %s", shlex.join(args), joined)
    try:
        return await asyncio.create_subprocess_exec(*args, start_new_session=True, **options)
    except (OSError, subprocess.SubprocessError) as exc:
        raise CommandFailed(args, 126, str(exc)) from exc


def attached(argv: Sequence[str]) -> Child:
    """Start a program that has this process's terminal, and is waited for.

    :raises MissingCommand: if the program is not installed.
    :raises CommandFailed: if the kernel cannot execute it.
    """
    args = [require(argv[0]), *argv[1:]]
    log.debug("%s", shlex.join(args))
    try:
        return subprocess.Popen(args)
    except OSError as exc:
        raise CommandFailed(args, 126, str(exc)) from exc


def replace(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
    """Become another program; returns only by raising.

    :raises MissingCommand: if the program is not installed.
    """
    args = [require(argv[0]), *argv[1:]]
    log.debug("exec %s", shlex.join(args))
    os.execve(args[0], args, dict(os.environ if env is None else env))  # noqa: S606


# -- processes that are already there ------------------------------------------------------------------


def pids() -> Iterable[int]:
    """Return the ids of all processes that this one can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 (half the time)


def command_line(pid: int) -> tuple[str, ...]:
    """Return the argv of a process; empty when it is gone, a kernel thread or a zombie."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(arg) for arg in raw.rstrip(b"\0").split(b"\0")) if raw else ()


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when it is gone or another user's."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def state(pid: int) -> str:
    """Return the state letter of a process (proc_pid_stat(5)); ``X`` when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][:1]
    except OSError:
        return "X"


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    return state(pid) not in ("X", "Z")


def _wait(pidfds: Iterable[int], seconds: float) -> None:
    """Wait until all processes have ended; a pidfd can be read from then on (pidfd_open(2))."""
    waiting = set(pidfds)
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(1000 * left):
            poll.unregister(fd)
            waiting.discard(fd)


def end(targets: Collection[int], *, patience: float, by: int = signal.SIGTERM) -> list[int]:
    """End processes: signal them, wait, and kill what is left.

    Each is held by a pidfd, so a number that was given to a new process in the meantime is never hit.

    :param targets: process ids.
    :param patience: seconds between the first signal and SIGKILL.
    :param by: the first signal.
    :return: the ids of those that survived even SIGKILL (stuck in the kernel).
    """
    with contextlib.ExitStack() as stack:
        held: dict[int, int] = {}
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
                stack.callback(os.close, held[pid])
        for sig, seconds in ((by, patience), (signal.SIGKILL, 5.0)):
            for fd in held.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, sig)
            _wait(held.values(), seconds)
            held = {pid: fd for pid, fd in held.items() if alive(pid)}
            if not held:
                break
        return sorted(held)
