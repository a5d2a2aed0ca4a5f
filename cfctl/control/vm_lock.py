"""One request at a time for each VM, whichever process asks.

A VM manager does one thing after the other anyway (vm_control.md section 2); waiting here, a caller is told that
others are before it, and nothing piles up in the VM manager's sockets. The lock is flock(2)'s on the directory of the
VM's sockets: nothing has to be made or removed for it, and the kernel gives it back when its holder dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.control.faults import VmBusy, VmUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cfctl.control.target import VmTarget

#: Between two tries to get the lock.
_TICK_S = 0.01


@contextlib.asynccontextmanager
async def held(target: VmTarget, *, seconds: float) -> AsyncIterator[None]:
    """Be the only one that asks a VM something, for the block.

    :param seconds: how long others are waited for.
    :raises VmBusy: if they are not done by then.
    :raises VmUnreachable: if the VM has no socket directory that may be opened.
    """
    try:
        fd = os.open(target.internal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise VmUnreachable(
            f"{target.name} has no sockets here",
            f"{target.internal}: {exc.strerror}",
            f"See what it does: cfctl status {target.name}",
        ) from exc
    try:
        await _lock(fd, target, seconds)
        yield
    finally:
        os.close(fd)


async def _lock(fd: int, target: VmTarget, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() >= deadline:
                raise VmBusy(
                    f"{target.name} is busy: another request has not ended within {seconds:g} s",
                    _holder(target.internal),
                    "Nothing was sent. Try again when that is done, or wait longer: --timeout SECONDS",
                ) from None
            await asyncio.sleep(_TICK_S)
        else:
            return


def _holder(directory: Path) -> str | None:
    """Return who holds the lock, as the kernel says (proc_locks(5)); None if it does not say."""
    with contextlib.suppress(OSError, ValueError):
        inode = directory.stat().st_ino
        with open("/proc/locks") as locks:  # noqa: PTH123 (no path of ours)
            for line in locks:
                words = line.split()
                if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
                    pid = int(words[4])
                    return f"It is asked by process {pid}: {' '.join(process.command_line(pid))[:200] or 'unknown'}"
    return None
