"""The devices of this user: one marked directory each, which is the launcher's HOME.

A record says what was asked for and what cfctl itself has done. Whether a device runs is never remembered: the
kernel is asked (observe.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import re
import secrets
import shutil
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import disk, paths, steps
from cfctl.errors import CfctlError, DamagedRecord, NameTaken, NoSuchDevice, UsageError
from cfctl.instance import MAX_INSTANCES, Instance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MARK = "device.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


#: One value for all instances, or one for each: the first also serves those that have none (launcher.md section 2.1).
PerInstance = int | tuple[int, ...] | None


class Restart(StrEnum):
    """When a device is booted again without being asked; one that was stopped on purpose never is."""

    NO = "no"
    #: It died, or its boot failed, while the host stayed up.
    ON_FAILURE = "on-failure"
    #: Also after the host was booted again.
    ALWAYS = "always"


class Failure(msgspec.Struct, frozen=True):
    """Why a device did not boot: the phase that did not end, and what was said about it."""

    phase: str
    brief: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, kept so that ``restart`` can ask for it again.

    :param gpu: ``auto`` or a GPU mode.
    :param cpus: virtual processors; None leaves it to the launcher.
    :param memory_mb: guest memory in MiB; None leaves it to the launcher.
    :param flags: further flags of launch_cvd, handed on as they are.
    :param images: directory with the guest's images; None is the host package's own.
    :param restart: when the device is booted again without being asked: a word of :class:`Restart`.
    :param after_boot: a file of adb commands, or an APK, that the device must get before it counts as ready.
    """

    host_package: str
    gpu: str = "auto"
    cpus: PerInstance = None
    memory_mb: PerInstance = None
    num_instances: int = 1
    images: str | None = None
    flags: tuple[str, ...] = ()
    restart: str = "no"
    after_boot: str | None = None


def spread(given: PerInstance, count: int) -> list[int | None]:
    """Return the value of each instance: the first also serves those that have none (launcher.md section 2.1)."""
    if given is None or isinstance(given, int):
        return [given] * count
    return [*given[:count], *[given[0]] * (count - len(given))]


def narrowed(request: Request, position: int) -> Request:
    """Return what one instance of a request was given, as if it were all of it.

    :param position: the first is 1.
    """
    cpus, memory = (spread(given, request.num_instances)[position - 1] for given in (request.cpus, request.memory_mb))
    return msgspec.structs.replace(request, num_instances=1, cpus=cpus, memory_mb=memory)


class Record(msgspec.Struct, kw_only=True):
    """One device.

    :param numbers: its instance numbers.
    :param started_at: when its launcher was last started (ISO 8601, UTC); None before the first time.
    :param booted_at: when all instances had booted; None before.
    :param generation: its launcher's (generation.py); empty for devices of an older cfctl.
    :param stopping: a stop has begun.
    :param stopped_at: when it was last stopped; None while it should be up.
    :param suspended_at: when cfctl suspended it; None while its processors run, as far as cfctl has done it.
    :param getting_ready: its launcher says that it has booted, but what is to be done after that is not done yet.
    :param follower: the process that follows its boot (:func:`procs.identity`); None if none does, or it is over.
    :param boot_id: the boot of the host (``/proc/sys/kernel/random/boot_id``) in which it was last started.
    :param restarts: how often in a row it was booted again without being asked.
    :param tried_at: when that was last tried, whether it came to a start or not.
    :param kept_down: somebody stopped it: it is not booted without being asked.
    """

    name: str
    owner: str
    created_at: str
    request: Request
    numbers: tuple[int, ...]
    gpu_mode: str
    gpu_reason: str
    started_at: str | None = None
    booted_at: str | None = None
    stopping: bool = False
    stopped_at: str | None = None
    suspended_at: str | None = None
    getting_ready: bool = False
    follower: str | None = None
    boot_id: str | None = None
    restarts: int = 0
    tried_at: str | None = None
    kept_down: bool = False
    failure: Failure | None = None
    generation: str = ""
    schema: int = 1

    @property
    def home(self) -> Path:
        """The device's directory: the launcher's HOME."""
        return paths.current().devices / self.name

    @property
    def holds_numbers(self) -> bool:
        """Whether its numbers are marked as its own; after a stop they may be another device's."""
        return self.stopped_at is None and self.failure is None

    @property
    def instances(self) -> list[Instance]:
        """Its instances, in the order of their numbers."""
        return [Instance(number) for number in self.numbers]


def now() -> str:
    """Return the time as records keep it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def boot_id() -> str | None:
    """Return what names this boot of the host (random(4)); None where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def owner() -> str:
    """Return the name of the user that runs this process."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def check_name(name: str) -> str:
    """Return ``name`` if a device can be called so.

    :raises UsageError: otherwise.
    """
    whole, slash, position = name.partition("/")
    if slash and position.isdecimal() and _NAME.fullmatch(whole):
        raise UsageError(
            f"{name!r} names an instance, and this takes whole devices",
            "adb, display, logs, powerbtn, screen-record and status take NAME/2, the second instance of device NAME.",
            f"Name the device: {whole}",
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a device",
            "A name has 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit.",
        )
    return name


def create(record: Record) -> None:
    """Make the directory of a new device, marked from the first moment that it can be seen.

    :raises NameTaken: if there is one of that name.
    :raises CfctlError: if the disk is full or read-only; nothing is left then.
    """
    devices = paths.current().devices
    # A dot in front: never listed, and swept away should we be killed before the rename.
    scratch = devices / f".new-{record.name}-{secrets.token_hex(4)}"
    try:
        devices.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(mode=0o755)
        _write(scratch / _MARK, record)
        scratch.rename(record.home)
    except OSError as exc:
        shutil.rmtree(scratch, ignore_errors=True)
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise NameTaken(record.name, "or was made just now") from exc
        raise disk_error(devices, exc) from exc


def _write(mark: Path, record: Record) -> None:
    # A launch writes it four times: to wait for the disk each time is a fifth of what a launch may add.
    disk.replace(mark, _encode(record), wait=False)


def save(record: Record) -> None:
    """Write the record back, whole or not at all.

    :raises CfctlError: if the disk is full or read-only; the old record stays.
    """
    try:
        _write(record.home / _MARK, record)
    except OSError as exc:
        raise disk_error(record.home, exc) from exc


def load(name: str) -> Record:
    """Return the record of a device.

    :raises NoSuchDevice: if there is none of that name.
    :raises CfctlError: if its record cannot be read.
    """
    check_name(name)
    mark = paths.current().devices / name / _MARK
    try:
        return _decode(mark.read_bytes(), mark)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchDevice(name, [record.name for record in load_all()]) from None
    except OSError as exc:
        raise CfctlError(f"{mark} cannot be read", exc.strerror) from exc


def load_all() -> list[Record]:
    """Return all records, by name; a damaged one is left out with a note."""
    records = []
    for mark in sorted(paths.current().devices.glob(f"[!.]*/{_MARK}")):
        try:
            records.append(_decode(mark.read_bytes(), mark))
        except FileNotFoundError:
            continue  # removed just now
        except (OSError, CfctlError) as exc:
            steps.note(f"{mark.parent.name}: left out, its record cannot be read: {exc}")
    return records


def remove(record: Record) -> None:
    """Delete a device's directory with all that is in it; nothing outside of it. The caller holds the device.

    :raises CfctlError: if the directory does not carry our mark, or something in it cannot be deleted.
    """
    home = record.home
    if home.is_symlink() or not (home / _MARK).is_file():
        raise CfctlError(f"{home} does not carry the mark of a device, and was not touched")
    # Renamed first: from here on the name is free, and what a killed removal leaves is swept by the next one.
    renamed = home.with_name(f".removed-{record.name}-{secrets.token_hex(4)}")
    home.rename(renamed)
    _delete(renamed)
    for scratch in home.parent.glob(".removed-*"):
        # What is held is being deleted by whoever removes that device: two at one tree fail both.
        with held_if_free(scratch.name) as free:
            if free:
                _delete(scratch)


def _delete(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as exc:
        raise CfctlError(f"{directory} could not be deleted", str(exc), f"Delete it: rm -r {directory}") from exc


@contextlib.contextmanager
def opened(name: str) -> Iterator[Record]:
    """Hold a device for the block, and return its record as it is then: no other verb changes it meanwhile.

    The lock is on the directory itself, so that it goes away with it.

    :raises NoSuchDevice: if there is none of that name, or it was removed while we waited.
    """
    with held(name):
        yield load(name)


@contextlib.contextmanager
def held(name: str) -> Iterator[None]:
    """Hold a device's directory for the block, whatever is in it.

    :raises NoSuchDevice: if there is none of that name, or it was removed while we waited.
    """
    home = paths.current().devices / check_name(name)
    try:
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        raise NoSuchDevice(name, [record.name for record in load_all()]) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            steps.note(f"Waiting for another cfctl that works on {name} ...")
            fcntl.flock(fd, fcntl.LOCK_EX)
        if not home.is_dir() or not os.path.samestat(os.fstat(fd), home.stat()):
            raise NoSuchDevice(name, [record.name for record in load_all()])
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def held_if_free(name: str) -> Iterator[bool]:
    """Hold a device for the block, unless some other verb does: then nobody waits, and False is given."""
    try:
        fd = os.open(paths.current().devices / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)


def is_held(record: Record) -> bool:
    """Tell whether some verb is changing the device right now."""
    try:
        fd = os.open(record.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def disk_error(where: Path, exc: OSError) -> CfctlError:
    """Return the error for a directory that cannot be written."""
    return disk.error(where, exc, elsewhere="keep devices elsewhere: export CFCTL_PATHS_STATE=DIRECTORY")


def _encode(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record)) + b"\n"


def _decode(raw: bytes, source: Path) -> Record:
    name = source.parent.name
    try:
        record = msgspec.json.decode(raw, type=Record)
        if record.name != name:
            raise ValueError(f"it is the record of {record.name}")
        if record.schema != 1:
            raise ValueError(f"it was written by a newer cfctl (schema {record.schema})")
        if not record.numbers or not all(1 <= number <= MAX_INSTANCES for number in record.numbers):
            raise ValueError(f"its instance numbers make no sense: {list(record.numbers)}")
    except (msgspec.DecodeError, ValueError) as exc:
        raise DamagedRecord(name, f"{source}: {exc}") from exc
    return record


def salvage(name: str, numbers: Sequence[int]) -> Record:
    """Return what can be known of a device whose record is damaged, so that it can be stopped and removed.

    :param numbers: instance numbers of its processes; those of its instance directories are added.
    """
    home = paths.current().devices / name
    kept = {path.name.removeprefix("cvd-") for path in (home / "cuttlefish/instances").glob("cvd-*")}
    known = {int(text) for text in kept if text.isdecimal()} | set(numbers)
    return Record(
        name=name,
        owner=owner(),
        created_at=now(),
        request=Request(host_package=""),
        numbers=tuple(sorted(number for number in known if 1 <= number <= MAX_INSTANCES)),
        gpu_mode="",
        gpu_reason="",
    )
