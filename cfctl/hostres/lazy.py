"""Lazy mode: an instance has taps only from the launch of its device to its stop.

Which instances have taps now, the kernel is asked. It does not know how taps are to be made that are not there yet:
that is written down when the host is set up, for everybody to read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING

from cfctl import disk, paths
from cfctl.errors import CfctlError, UsageError
from cfctl.hostres import files
from cfctl.instance import MAX_INSTANCES, Instance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.config import Settings

#: What an instance's taps follow from, beside the subnets. What is the bridges' own is not: they are there already.
_DECISIVE = (
    "host.instances",
    "host.lazy",
    "host.bridge",
    "host.ipv4_bridge",
    "host.ipv6_bridge",
    "host.guest_isolation",
    "host.rules",
)


def limit(settings: Settings) -> int:
    """Return the highest instance number that a host with these settings serves; 0 is none."""
    numbers: tuple[int, ...] = settings["host.numbers"]
    if numbers and not settings["host.lazy"]:
        return max(numbers)
    count: int = settings["host.instances"]
    # Debian's package has num_cvd_accounts=0: no instances that are there from the start, not none at all.
    return MAX_INSTANCES if settings["host.lazy"] and not count else count


def record(settings: Settings) -> str:
    """Return what is written down for the settings: all that the taps of an instance follow from."""
    subnets = (name for name in settings.values if "_subnet" in name)
    return json.dumps({name: settings[name] for name in (*_DECISIVE, *subnets)}, indent=1) + "\n"


def written() -> str | None:
    """Return what was written down; None if the host makes no taps on request, empty if a kill cut it short."""
    file = paths.system().lazy_record
    return files.read(file) or ("" if os.path.lexists(files.unfinished(file)) else None)


def recorded() -> Settings | None:
    """Return the settings that taps on request are made by; None if the host makes none.

    Needs no root and starts no program.

    :raises CfctlError: if what was written down makes no sense, to this version at least.
    """
    text = written()
    return parse(text) if text is not None else None


def parse(text: str) -> Settings:
    """Return the settings that taps on request are made by.

    :raises CfctlError: if what was written down makes no sense, to this version at least.
    """
    from cfctl import config  # Here, because `cfctl ps` needs none of it.

    file = paths.system().lazy_record
    try:
        return config.restored(json.loads(text), str(file))
    except (ValueError, AttributeError, UsageError) as exc:
        raise CfctlError(f"{file} is damaged", str(exc), "Write it anew: sudo cfctl host setup") from exc


def write(text: str) -> None:
    """Write down how taps are made on request; launches ask for them from now on."""
    files.write(paths.system().lazy_record, text, mode=0o644)


def forget() -> None:
    """Remove what was written down, and what a kill left of it."""
    file = paths.system().lazy_record
    with disk.writing(file):
        files.unfinished(file).unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def held(numbers: Iterable[int]) -> set[int]:
    """Return those instance numbers that somebody holds: a launch that prepares, or a device's processes.

    Only the flock counts. The byte ``I`` alone is what cvd leaves, and a device that was killed.
    """
    return {number for number in numbers if any(_is_held(Instance(number)))}


def _is_held(instance: Instance) -> Iterable[bool]:
    for directory in paths.instance_lock_directories():
        try:
            fd = os.open(directory / instance.lock_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            yield True  # Not to be read: nobody's taps go by mistake.
            continue
        try:
            # Shared: two who look do not take each other for a holder.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield True
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)
