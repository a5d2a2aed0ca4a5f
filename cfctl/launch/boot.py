"""How far a device has booted, read from the logs that every launcher writes.

The tokens are those of upstream's ``kernel_log_monitor`` (launcher.md section 11); they stand in
``logs/kernel.log`` as the guest wrote them and in ``logs/launcher.log`` as the monitor saw them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfctl.instance import Instance
    from cfctl.launch.registry import Record


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage of a boot.

    :param name: its name in ``--events``, a contract.
    :param title: what people read.
    :param tokens: texts in a log line that say that it has begun.
    """

    name: str
    title: str
    tokens: tuple[str, ...] = ()


PHASES = (
    Phase("host", "checking the host"),
    Phase("assemble", "launcher started"),
    Phase("vm", "VM process started"),
    Phase("bootloader", "bootloader running", ("U-Boot 20",)),
    Phase("kernel", "kernel running", ("] Linux version",)),
    Phase("userspace", "first userspace running", ("VIRTUAL_DEVICE_BOOT_STARTED",)),
    Phase(
        "network",
        "network connected",
        (
            "VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED",
            "VIRTUAL_DEVICE_NETWORK_MOBILE_CONNECTED",
            "VIRTUAL_DEVICE_NETWORK_WIFI_CONNECTED",
        ),
    ),
    Phase("adb", "adbd started", ("init: starting service 'adbd'",)),
    Phase("booted", "boot completed", ("VIRTUAL_DEVICE_BOOT_COMPLETED",)),
)
HOST = PHASES[0]
_FIRST, _VM, _LAST = PHASES[1], PHASES[2], PHASES[-1]
_FAILED = "VIRTUAL_DEVICE_BOOT_FAILED"

#: Where a launcher's own output goes, in the device's directory.
LAUNCH_LOG = "launch.log"

#: How a launcher's line begins that people should read while it boots.
_NOTE = "note: "

#: Longer lines, such as a VM's whole command, would push what matters off the screen.
_WIDTH = 200

#: A phase that lasts longer than this is named, with what its log says (promise: under 30 s).
_QUIET_S = 25.0

#: So many starts of a guest that has not booted in between are a loop; a single restart may be meant.
LOOP = 3

_STARTED = "] Linux version"
_PANIC = "Kernel panic - not syncing"


def kernel_log(record: Record, instance: Instance) -> Path:
    """Return the path of the guest's console output."""
    return Path(instance.directory(record.home)) / "logs" / "kernel.log"


def launcher_log(record: Record, instance: Instance) -> Path:
    """Return the path of run_cvd's log."""
    return Path(instance.directory(record.home)) / "logs" / "launcher.log"


def clean(line: str) -> str:
    """Return a line of a log without what would move the cursor or ring the bell of whoever reads it."""
    return "".join(c for c in line if c.isprintable() or c == "\t").rstrip()


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines of a log, without empty ones and control characters; none if it cannot be read."""
    size = 4096
    while True:
        try:
            with log.open("rb") as file:
                start = max(0, log.stat().st_size - size)
                file.seek(start)
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        # The first one may have lost its beginning.
        found = [text for line in (lines[1:] if start else lines) if (text := clean(line))]
        if start == 0 or len(found) >= count:
            return found[-count:] if count else []
        size *= 4


@dataclass
class Tail:
    """A log that is read as it grows, and from its beginning again when it is made anew."""

    path: Path
    _offset: int = 0
    _rest: bytes = b""
    _file: tuple[int, int] | None = None

    def lines(self) -> list[str]:
        """Return the whole lines that have come since the last call."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self._file or status.st_size < self._offset:
                    self._file = (status.st_dev, status.st_ino)
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return []
        self._offset += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


@dataclass
class InstanceBoot:
    """One instance on its way up.

    :param seen: the phases that have begun.
    :param failure: what the guest said when it gave up.
    :param starts: how often its kernel has started.
    :param panic: what its kernel said when it last panicked.
    """

    record: Record
    instance: Instance
    seen: list[Phase] = field(default_factory=lambda: [_FIRST])
    failure: str | None = None
    starts: int = 0
    panic: str | None = None

    def __post_init__(self) -> None:
        self._tails = [Tail(log(self.record, self.instance)) for log in (kernel_log, launcher_log)]

    @property
    def phase(self) -> Phase:
        """The furthest phase that has begun."""
        return max(self.seen, key=PHASES.index)

    @property
    def booted(self) -> bool:
        """Whether the guest said that it is up."""
        return _LAST in self.seen

    def advance(self) -> list[Phase]:
        """Read what is new in the logs and return the phases that have begun since."""
        new = []
        for tail in self._tails:
            lines = tail.lines()
            # The file alone proves nothing: a launcher may make it before there is a VM.
            if tail is self._tails[0] and lines and _VM not in self.seen:
                new.append(_VM)
            for line in lines:
                new += [
                    phase
                    for phase in PHASES
                    if phase not in self.seen and phase not in new and any(t in line for t in phase.tokens)
                ]
                # run_cvd repeats some lines in its own log.
                if tail is self._tails[0]:
                    self.starts += _STARTED in line
                    if _PANIC in line:
                        self.panic = clean(line[line.index(_PANIC) :])
                if _FAILED in line and self.failure is None:
                    self.failure = line[line.index(_FAILED) + len(_FAILED) :].strip(" :\r") or "no reason given"
        self.seen += new
        return new


def all_booted(record: Record) -> bool:
    """Tell whether the logs say that every instance has booted."""
    return bool(record.numbers) and all(
        any(find(log(record, instance), _LAST.tokens[0]) is not None for log in (launcher_log, kernel_log))
        for instance in record.instances
    )


def completed_at(record: Record) -> str | None:
    """Return when the last instance had booted, as run_cvd's logs say; None if they do not.

    :return: ISO 8601, UTC; the logs have whole seconds.
    """
    moments = []
    try:
        started = datetime.fromisoformat(record.started_at or record.created_at)
    except ValueError:
        return None  # somebody has edited the record
    started = started if started.tzinfo else started.replace(tzinfo=UTC)
    for instance in record.instances:
        line = find(launcher_log(record, instance), _LAST.tokens[0])
        stamp = _STAMP.search(line or "")
        if stamp is None:
            return None
        for year in (started.year, started.year + 1):
            # No year, and local time.
            with contextlib.suppress(ValueError, OverflowError):
                moment = datetime(year, *map(int, stamp.groups())).astimezone(UTC)  # type: ignore[arg-type]
                if started - timedelta(seconds=1) <= moment <= datetime.now(UTC) + timedelta(seconds=1):
                    moments.append(max(moment, started))
                    break
        else:
            return None
    return max(moments).isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: In a line of launcher.log: the level, then the moment.
_STAMP = re.compile(r"\b[VDIWEF] (\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b")

_CHUNK = 1 << 20


def find(log: Path, token: str) -> str | None:
    """Return the first line of a log that has ``token`` in it, however long the log; None if there is none."""
    wanted = token.encode()
    rest = b""
    try:
        # Without waiting: somebody may have put a FIFO there.
        with os.fdopen(os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            while chunk := file.read(_CHUNK):
                rest += chunk
                if (at := rest.find(wanted)) >= 0:
                    begin = rest.rfind(b"\n", 0, at) + 1
                    return clean((rest[begin:].split(b"\n", 1)[0]).decode(errors="replace"))
                # The line may go on in the next chunk, but no line that matters is longer than that.
                rest = rest[max(rest.rfind(b"\n") + 1, len(rest) - _CHUNK) :]
    except OSError:
        pass
    return None


class Watch:
    """Follows a boot: reports each phase as it begins, and tells when one does not end.

    :param started: when the launch began, on the monotonic clock, in seconds.
    :param typical: seconds that each phase takes to come, on this host, where known.
    """

    def __init__(
        self,
        record: Record,
        *,
        started: float,
        clock: Callable[[], float] = time.monotonic,
        typical: Mapping[str, float] | None = None,
    ) -> None:
        self.boots = [InstanceBoot(record, instance) for instance in record.instances]
        self.record = record
        self.typical = typical or {}
        #: How long each phase took to come; of several instances, the last one's.
        self.took: dict[str, float] = {}
        self._clock = clock
        self._started = started
        self._quiet_since = started
        self._said = Tail(record.home / LAUNCH_LOG)
        self._last = dict.fromkeys((boot.instance.number for boot in self.boots), started)
        self._told = dict.fromkeys(self._last, 0)
        self._panics: set[int] = set()

    @property
    def seconds(self) -> float:
        """How long ago the launch began."""
        return self._clock() - self._started

    def begin(self) -> None:
        """Report the first phase of the launcher, which no log tells."""
        now = self._clock()
        self._last = dict.fromkeys(self._last, now)
        self._report(_FIRST, _FIRST.title, now, now - self._started)
        self._quiet_since = now

    def _report(self, phase: Phase, title: str, now: float, took: float) -> None:
        self.took[phase.name] = took
        steps.phase(phase.name, title, now - self._started, took=took, typical=self.typical.get(phase.name))

    def poll(self) -> float | None:
        """Read the logs and report what is new.

        :return: for how many seconds there has been nothing new, if that is too long, and then anew after as long
            again.
        """
        now = self._clock()
        for line in self._said.lines():
            if line.startswith(_NOTE):
                steps.note(clean(line.removeprefix(_NOTE)))
        for boot in self.boots:
            number = boot.instance.number
            for phase in boot.advance():
                which = boot.instance.id if len(self.boots) > 1 else ""
                self._report(phase, " ".join(filter(None, (phase.title, which))), now, now - self._last[number])
                self._last[number] = self._quiet_since = now
            self._tell_of_restarts(boot)
        if now - self._quiet_since >= _QUIET_S and not self.booted:
            quiet, self._quiet_since = now - self._quiet_since, now
            return quiet
        return None

    def _tell_of_restarts(self, boot: InstanceBoot) -> None:
        number = boot.instance.number
        if boot.panic and number not in self._panics:
            self._panics.add(number)
            steps.note(f"{boot.instance.id}: {boot.panic[:_WIDTH]}")
        if boot.starts >= LOOP and boot.starts > self._told[number] and not boot.booted:
            self._told[number] = boot.starts
            steps.note(f"{boot.instance.id}: the guest has started {boot.starts} times and not booted: a boot loop")

    @property
    def booted(self) -> bool:
        """Whether all instances are up."""
        return all(boot.booted for boot in self.boots)

    @property
    def slowest(self) -> InstanceBoot:
        """The instance that has come the least far."""
        return min(self.boots, key=lambda boot: PHASES.index(boot.phase))


def shorten(line: str) -> str:
    """Return a line of a log as it is shown to people."""
    return f"{line[:_WIDTH]}{'...' if len(line) > _WIDTH else ''}"
