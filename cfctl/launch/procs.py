"""One look at ``/proc``: which processes belong to devices, what they take, and which ports are listened on.

A look costs one or two files per process, so that ``ps`` stays quick on a host with thousands of them. What another
user's process was started with may not be read (proc_pid_environ(5)); its command line may.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

from cfctl import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Set in the environment of everything that a launch of ours starts; HOME serves for tools that clean theirs.
MARK = "CFCTL_DEVICE"

#: Set by every launcher for what works for one instance (launcher.md section 1).
INSTANCE = "CUTTLEFISH_INSTANCE"

_VMMS = ("qemu-system", "qemu-kvm", "crosvm")
_SUPERVISOR = "run_cvd"

#: The instance in a VM's command line: QEMU's ``guest=cvd-N``, crosvm's ``.../cvd-N/internal/crosvm_control.sock``.
_NUMBER = re.compile(r"(?:guest=|/)cvd-(\d{1,3})(?=$|[/,])")

#: proc_net_tcp(5): the state of a listening socket.
_LISTEN = b"0A"

#: proc_net(5), ``/proc/net/unix``: the flag of a listening socket.
_ACCEPTS = 0x10000

#: Far more than the kernel takes to lay a program out.
_EXEC_S = 5.0

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """A process that may belong to a device.

    :param argv: its command line, never empty.
    :param env: what it was started with; None if it is another user's.
    """

    pid: int
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None

    @property
    def is_vm(self) -> bool:
        """Whether it is the virtual machine itself."""
        return is_vm(self.argv)

    @property
    def is_core(self) -> bool:
        """Whether there is no device without it: the supervisor, or the machine."""
        return self.is_vm or any(PurePath(word).name == _SUPERVISOR for word in self.argv[:3])

    @property
    def number(self) -> int | None:
        """The instance that it works for; None if it does not say."""
        said = (self.env or {}).get(INSTANCE, "")
        if re.fullmatch(r"\d{1,3}", said):
            return int(said)
        if self.is_vm:
            for word in self.argv:
                if found := _NUMBER.search(word):
                    return int(found[1])
        return None


def is_vm(argv: Sequence[str]) -> bool:
    """Tell whether a command line is a virtual machine's."""
    return PurePath(argv[0]).name.startswith(_VMMS)


def scan() -> list[Seen]:
    """Return every process that says that it works for an instance; and of other users', the VMs and supervisors."""
    found = []
    for pid in process.pids():
        try:
            raw = _read(f"/proc/{pid}/environ")
        except PermissionError:
            argv = process.command_line(pid)
            if argv and (seen := Seen(pid, argv)).is_core:
                found.append(seen)
            continue
        except OSError:
            continue
        if _INSTANCE_BYTES not in raw and _MARK_BYTES not in raw:
            continue
        # A zombie has no command line any more.
        if argv := process.command_line(pid):
            pairs = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if entry)
            found.append(Seen(pid, argv, {name: value for name, _, value in pairs}))
    return found


_INSTANCE_BYTES, _MARK_BYTES = f"{INSTANCE}=".encode(), f"{MARK}=".encode()


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def await_environment(pid: int) -> None:
    """Wait until the environment of a program that was just started can be read, or it has ended.

    The kernel tells that a program is executed (by closing descriptors) before it has laid out its environment: for a
    moment, and on a busy host for longer, ``/proc/PID/environ`` is empty.
    """
    deadline = time.monotonic() + _EXEC_S
    while time.monotonic() < deadline:
        try:
            if _read(f"/proc/{pid}/environ"):
                return
        except OSError:
            return
        if not process.alive(pid):
            return
        time.sleep(0.001)


def owner(pid: int) -> int | None:
    """Return the user id of a process; None when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 (a hot path)
    except OSError:
        return None


def same_place(pid: int) -> bool:
    """Tell whether a process runs beside us and not in a container; what may not be asked counts as beside us."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (no path)
    except OSError:
        return True


def identity(pid: int | None = None) -> str | None:
    """Return what names a process for ever, not just until its id is given to another; None if there is none.

    :param pid: None is this process.
    """
    pid = os.getpid() if pid is None else pid
    try:
        return f"{pid}/{_born(pid)}"
    except (OSError, ValueError, IndexError):
        return None


def is_alive(named: str) -> bool:
    """Tell whether a process that was named by :func:`identity` still runs."""
    pid = named.partition("/")[0]
    return pid.isdecimal() and identity(int(pid)) == named


def _born(pid: int) -> int:
    """Return when a process was started, in ticks since the host was: field 22 of proc_pid_stat(5)."""
    # The first two fields are before the bracket: a name may have blanks in it.
    return int(_read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()[19])


# -- what they take ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a device take.

    :param started_at: when the oldest was started (ISO 8601, UTC); None without processes.
    :param uptime_s: how long ago that was.
    :param memory_mb: memory that they hold: of a VM all of it, of its helpers what they do not share, because the
        guest's memory is mapped by them too.
    """

    started_at: str | None = None
    uptime_s: float | None = None
    memory_mb: int | None = None


def usage(processes: Iterable[tuple[int, bool]]) -> Usage:
    """Return what some processes take.

    :param processes: their ids, and whether each is a VM.
    """
    oldest: int | None = None
    memory = 0.0
    for pid, vm in processes:
        try:
            resident, shared = map(int, _read(f"/proc/{pid}/statm").split()[1:3])
            born = _born(pid)
        except (OSError, ValueError, IndexError):
            continue
        oldest = born if oldest is None else min(oldest, born)
        memory += (resident if vm else max(0, resident - shared)) * _PAGE_MB
    if oldest is None:
        return Usage()
    uptime = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - oldest / _TICKS)
    started = datetime.fromtimestamp(time.time() - uptime, UTC).isoformat(timespec="seconds")
    return Usage(started.replace("+00:00", "Z"), round(uptime, 1), round(memory))


# -- what listens ------------------------------------------------------------------------------------------


def listening_ports(files: Sequence[str] = ("/proc/net/tcp", "/proc/net/tcp6")) -> dict[int, int]:
    """Return the TCP sockets of this host that listen: the inode of each, and its port."""
    found = {}
    for file in files:
        try:
            lines = _read(file).splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split(None, 10)
            if len(fields) > 9 and fields[3] == _LISTEN:
                found[int(fields[9])] = int(fields[1].rpartition(b":")[2], 16)
    return found


def ports_of(pids: Iterable[int], listening: Mapping[int, int]) -> frozenset[int]:
    """Return the ports that some processes listen on; those of processes that may not be asked may be any.

    :param listening: as :func:`listening_ports` tells.
    """
    found = set()
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 (a hot path)
                with contextlib.suppress(FileNotFoundError):
                    kind, _, inode = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":[")  # noqa: PTH115 (likewise)
                    if kind == "socket" and (port := listening.get(int(inode[:-1]))) is not None:
                        found.add(port)
        except PermissionError:
            return frozenset(listening.values())
        except OSError:
            continue
    return frozenset(found)


def listening_sockets(text: str | None = None) -> frozenset[str]:
    """Return the paths of the unix sockets that are listened on, without connecting to any.

    :param text: the kernel's list, where it was read already.
    """
    if text is None:
        try:
            text = os.fsdecode(_read("/proc/net/unix"))
        except OSError:
            return frozenset()
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split(maxsplit=7)
        # A path may have a line break in it, and be anybody's.
        with contextlib.suppress(ValueError):
            if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS:
                found.add(fields[7])
    return frozenset(found)


class Look:
    """The kernel's answers at one moment, each asked for once, when it is first needed."""

    @cached_property
    def processes(self) -> list[Seen]:
        """Every process that works for an instance."""
        return scan()

    @cached_property
    def sockets(self) -> frozenset[str]:
        """The unix sockets that are listened on."""
        return listening_sockets()

    @cached_property
    def ports(self) -> dict[int, int]:
        """The TCP sockets that listen: inodes, and their ports."""
        return listening_ports()
