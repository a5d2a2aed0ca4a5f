"""Why a device does not boot, in words: the phase, what is alive, the log lines that matter, and what mends it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from cfctl.artifacts import content
from cfctl.errors import CfctlError, DeadlinePassed, HostLacks, LaunchFailed, UsageError
from cfctl.launch import boot, known_failures, observe, registry
from cfctl.launch.known_failures import BOOT_LOOP, DISK_FULL, Found, Log, Place

if TYPE_CHECKING:
    from cfctl.launch.boot import InstanceBoot, Watch
    from cfctl.launch.registry import Record

#: Enough for what a VMM says when it dies, and quick to search.
_SEARCHED_LINES = 400

#: Below this a launcher cannot write its config.
_FULL_BYTES = 64 << 10

#: Which log tells most while a phase does not end; the others follow when it says nothing.
_RIGHT_LOG = {
    "host": (Log.LAUNCH,),
    "assemble": (Log.LAUNCH, Log.SUPERVISOR),
    "vm": (Log.SUPERVISOR, Log.KERNEL, Log.LAUNCH),
    "bootloader": (Log.KERNEL, Log.SUPERVISOR),
}
_LATER = (Log.KERNEL, Log.SUPERVISOR)


def timed_out(record: Record, watch: Watch, timeout: float) -> DeadlinePassed:
    """Return the error for a device that did not boot within ``timeout`` seconds."""
    slowest = watch.slowest
    return DeadlinePassed(
        f"{record.name} did not boot within {timeout:g} s: "
        f"{slowest.instance.id} came as far as: {slowest.phase.title}",
        evidence(watch),
        _mend(record, slowest)
        + f"It was stopped; its logs are kept: cfctl logs {record.name}\n"
        + f"Give it longer: cfctl restart {record.name} --timeout {2 * timeout:g}",
    )


def failed(record: Record, watch: Watch, status: int) -> CfctlError:
    """Return the error for a launcher that ended without a booted device.

    :param status: its exit status; negative is a signal.
    """
    slowest = watch.slowest
    if _stopped_by_another(record):
        return LaunchFailed(
            f"{record.name} was stopped while it was booting",
            None,
            f"See whether it is still there: cfctl ps. Then boot it again: cfctl restart {record.name}",
            phase=slowest.phase.name,
        )
    said = evidence(watch)
    if slowest.phase.name == "assemble":
        return _crashed(record, slowest, status, said)
    reason = next((f": {b.failure}" for b in watch.boots if b.failure), "")
    return LaunchFailed(
        f"{record.name} did not boot{reason}; {slowest.instance.id} came as far as: {slowest.phase.title}",
        f"The launcher {_ending(status)}.\n{said}",
        _mend(record, slowest)
        + f"Its logs are kept: cfctl logs {record.name}\nRemove it with: cfctl rm {record.name}",
        phase=slowest.phase.name,
    )


def silent(watch: Watch, seconds: float) -> str:
    """Return what to say about a boot in which nothing happens: phase, processes, log and likely causes.

    :param seconds: for how long nothing has.
    """
    record, slowest = watch.record, watch.slowest
    typical = watch.typical.get(_next(slowest.phase.name))
    usual = f" (what comes next typically takes {typical:.1f} s)" if typical is not None else ""
    lines = [f"{slowest.instance.id}: nothing new for {seconds:.0f} s since: {slowest.phase.title}{usual}"]
    alive = observe.processes([record.home])[record.home]
    names = sorted(f"{_program(p.argv)} ({p.pid})" for p in alive)
    lines.append(f"  alive: {', '.join(names)}" if names else "  no process of it is alive")
    for log in _RIGHT_LOG.get(slowest.phase.name, _LATER):
        if last := boot.last_lines(_path(record, slowest, log), 3):
            lines.append(f"  last lines of {log.value}:")
            lines += [f"    {boot.shorten(line)}" for line in last]
            break
    else:
        lines.append("  it has logged nothing yet")
    found = causes(record, slowest)
    lines += [f"  likely: {_cause(record, slowest, entry)}" for entry in found]
    lines += [f"    {line}" for entry in found[:1] for line in _place(record, slowest).mend(entry.known).splitlines()]
    return "\n".join(lines)


def causes(record: Record, slowest: InstanceBoot) -> list[Found]:
    """Return the known failures that an instance's logs, its disk and its starts speak of, the likeliest first."""
    texts = {log: boot.last_lines(_path(record, slowest, log), _SEARCHED_LINES) for log in Log}
    found = known_failures.match(texts)
    with contextlib.suppress(OSError):
        room = os.statvfs(record.home)
        if room.f_bavail * room.f_frsize < _FULL_BYTES and all(e.known is not DISK_FULL for e in found):
            found.append(Found(DISK_FULL))
    if slowest.starts >= boot.LOOP and not slowest.booted:
        found.append(Found(BOOT_LOOP))
    return found


def evidence(watch: Watch) -> str:
    """Return the log lines that matter for a boot that failed, and the likely causes."""
    record, slowest = watch.record, watch.slowest
    parts = [f"{b.instance.id} says: {b.failure}" for b in watch.boots if b.failure]
    parts += [f"Likely cause: {_cause(record, slowest, entry)}." for entry in causes(record, slowest)]
    for log in Log:
        if lines := boot.last_lines(_path(record, slowest, log), 5):
            parts.append(f"Last lines of {log.value}:")
            parts += [f"  {boot.shorten(line)}" for line in lines]
    return "\n".join(parts)


def _next(name: str) -> str:
    """Return the phase that usually comes after one."""
    names = [phase.name for phase in boot.PHASES]
    return names[min(names.index(name) + 1, len(names) - 1)]


def _program(argv: tuple[str, ...]) -> str:
    """Return what people call a process: an interpreter by its script."""
    names = [PurePath(word).name for word in argv if not word.startswith("-")][:2]
    return names[1] if len(names) > 1 and names[0].startswith("python") else names[0] if names else argv[0]


def _path(record: Record, slowest: InstanceBoot, log: Log) -> Path:
    if log is Log.LAUNCH:
        return record.home / boot.LAUNCH_LOG
    return (boot.launcher_log if log is Log.SUPERVISOR else boot.kernel_log)(record, slowest.instance)


def _place(record: Record, slowest: InstanceBoot) -> Place:
    instance = slowest.instance
    return Place(record.name, instance.number, instance.adb_port, instance.vsock_cid, os.fspath(record.home))


def _cause(record: Record, slowest: InstanceBoot, entry: Found) -> str:
    cause = entry.known.cause.format(cid=slowest.instance.vsock_cid)
    return f'{cause} ("{boot.shorten(entry.line.strip())}")' if entry.line else cause


def _mend(record: Record, slowest: InstanceBoot) -> str:
    """Return what mends the likeliest cause, as lines that others can follow; empty without one."""
    found = causes(record, slowest)
    return f"{_place(record, slowest).mend(found[0].known)}\n" if found else ""


def _crashed(record: Record, slowest: InstanceBoot, status: int, said: str) -> CfctlError:
    """Return the error for a launcher that never came to a VM."""
    brief = f"the launcher {_ending(status)} before a VM was started"
    programs = Path(record.request.host_package) / "bin"
    name = next((name for name in reversed(content.LAUNCHERS) if (programs / name).exists()), content.LAUNCHERS[-1])
    help_ = f"{programs / name} --help"
    if '"group_name"' in said:
        return LaunchFailed(
            "the launcher handed the launch over to cvd",
            f"What cvd started was ended.\n{said}",
            "Tell cvd's database so: cvd stop, or cvd reset -y. Please report this host package's version.",
            phase="assemble",
        )
    if "unknown command line flag" in said:
        return UsageError(brief, said, f"Flags that it knows: {help_}")
    if "is not supported by the embedded guest" in said:
        return UsageError(brief, said, "Leave it out, or launch Android: cfctl launch --host-package DIR")
    # The embedded launcher raises the same errors as cfctl itself.
    if found := re.search(r"the program '\S+' is not installed.*?Install it: ([^\n/]+)", said, re.DOTALL):
        return HostLacks(brief, said, f"Install it: {found[1].strip()}")
    known = causes(record, slowest)
    if known:
        mend = _place(record, slowest).mend(known[0].known)
        if known[0].known.host_lacks:
            return HostLacks(brief, said, mend)
        return LaunchFailed(brief, said, mend, phase="assemble")
    return LaunchFailed(brief, said, f"Mend what the launcher says, or see what it needs: {help_}", phase="assemble")


def _ending(status: int) -> str:
    if status == 0:
        return "ended as if all were well"
    return f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"


def _stopped_by_another(record: Record) -> bool:
    """Tell whether another cfctl has stopped the device, or removed it."""
    with contextlib.suppress(CfctlError):
        current = registry.load(record.name)
        return current.created_at != record.created_at or current.stopping or current.stopped_at is not None
    return True
