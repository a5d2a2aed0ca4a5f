"""Logs that do not fill the disk: cut when they are large, and kept for a while after the next start.

A launcher makes its directories anew at each start, with everything in them; what an earlier boot wrote is kept
beside them, in ``old-logs/cvd-N/`` of the device, the newest as ``NAME.1``. A log that grows too large while the
device is up is copied there and emptied in place, because its writers keep it open. That is only done when all of
them append (``O_APPEND``): any other would go on at its old place, and leave a hole of zeros.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.launch import boot

if TYPE_CHECKING:
    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

#: How many old ones of each log are kept, and how large a log may grow: 4 x 64 MiB for the worst of them.
KEPT = 3
LARGEST = 64 << 20

_NAMES = ("kernel.log", "launcher.log", "logcat")

#: Access mode bits, and the one that says that every write goes to the end (fcntl.h, in octal in fdinfo).
_O_ACCMODE, _O_APPEND = 0o3, 0o2000


def old(record: Record, instance: Instance) -> Path:
    """Return where an instance's old logs are kept."""
    return record.home / "old-logs" / instance.id


def set_aside(record: Record) -> None:
    """Move the logs of a device that is down to the old ones, so that the next boot begins with none.

    :raises OSError: if the disk does not let us.
    """
    for instance in record.instances:
        for log in _logs(record, instance):
            if log.stat().st_size:
                target = _make_room(old(record, instance) / log.name)
                log.replace(target)
            else:
                log.unlink()


def keep_small(record: Record, *, largest: int = LARGEST) -> list[Path]:
    """Empty logs of a device that is up and that have grown too large; their content is kept as the newest old one.

    :return: those that were emptied.
    :raises OSError: if the disk does not let us.
    """
    if record.booted_at is None:
        # How far it has booted is read from them.
        return []
    done = []
    for instance in record.instances:
        for log in _logs(record, instance):
            if log.stat().st_size > largest and appended(log):
                shutil.copyfile(log, _make_room(old(record, instance) / log.name))
                os.truncate(log, 0)
                done.append(log)
    return done


def appended(log: Path) -> bool:
    """Tell whether everybody who has a file open for writing appends to it, as far as we may look."""
    wanted = log.stat()
    for pid in process.pids():
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(f"/proc/{pid}/fd")):
                with contextlib.suppress(OSError):
                    if os.path.samestat(entry.stat(), wanted):
                        flags = _flags(Path(f"/proc/{pid}/fdinfo/{entry.name}"))
                        if flags & _O_ACCMODE and not flags & _O_APPEND:
                            return False
    return True


def _flags(fdinfo: Path) -> int:
    """Return the flags of an open file (proc_pid_fdinfo(5))."""
    for line in fdinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8)
    return 0


def _logs(record: Record, instance: Instance) -> list[Path]:
    directory = boot.kernel_log(record, instance).parent
    return [path for name in _NAMES if (path := directory / name).is_file() and not path.is_symlink()]


def _make_room(newest: Path) -> Path:
    """Move each old log one further, and the last one out; return the place of the newest."""
    newest.parent.mkdir(parents=True, exist_ok=True)
    places = [newest.with_name(f"{newest.name}.{age}") for age in range(1, KEPT + 1)]
    for younger, older in zip(reversed(places[:-1]), reversed(places[1:]), strict=True):
        if younger.exists():
            younger.replace(older)
    return places[0]
