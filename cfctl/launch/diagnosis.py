"""Why a device did not boot, in words: the phase, the log lines that matter, and what mends it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.artifacts import content
from cfctl.errors import CfctlError, DeadlinePassed, HostLacks, LaunchFailed, UsageError
from cfctl.launch import registry

if TYPE_CHECKING:
    from cfctl.launch.boot import Watch
    from cfctl.launch.registry import Record

#: What a launcher says when the host lacks something, and what mends that.
_KNOWN = {
    "to the cvdnetwork group": "Become a member: sudo usermod -aG cvdnetwork $USER, then log in again.",
    "Unable to open tun device": "Become a member: sudo usermod -aG cvdnetwork $USER, then log in again.",
    "Unable to connect to tap interface": "See who uses the tap: cfctl ps, and fuser /dev/net/tun",
    "Tap interface does not exist": "Make the taps: sudo cfctl host setup",
}


def timed_out(record: Record, watch: Watch, timeout: float) -> DeadlinePassed:
    """Return the error for a device that did not boot within ``timeout`` seconds."""
    slowest = watch.slowest
    return DeadlinePassed(
        f"{record.name} did not boot within {timeout:g} s: "
        f"{slowest.instance.id} came as far as: {slowest.phase.title}",
        watch.evidence(),
        f"It was stopped; its logs are kept: cfctl logs {record.name}\n"
        f"Give it longer: cfctl restart {record.name} --timeout {2 * timeout:g}",
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
    evidence = watch.evidence()
    if slowest.phase.name == "assemble":
        return _crashed(record, status, evidence)
    reason = next((f": {b.failure}" for b in watch.boots if b.failure), "")
    return LaunchFailed(
        f"{record.name} did not boot{reason}; {slowest.instance.id} came as far as: {slowest.phase.title}",
        f"The launcher {_ending(status)}.\n{evidence}",
        f"Its logs are kept: cfctl logs {record.name}\nRemove it with: cfctl rm {record.name}",
        phase=slowest.phase.name,
    )


def _crashed(record: Record, status: int, evidence: str) -> CfctlError:
    """Return the error for a launcher that never came to a VM."""
    brief = f"the launcher {_ending(status)} before a VM was started"
    programs = Path(record.request.host_package) / "bin"
    name = next((name for name in reversed(content.LAUNCHERS) if (programs / name).exists()), content.LAUNCHERS[0])
    help_ = f"{programs / name} --help"
    if '"group_name"' in evidence:
        return LaunchFailed(
            "the launcher handed the launch over to cvd",
            f"What cvd started was ended.\n{evidence}",
            "Tell cvd's database so: cvd stop, or cvd reset -y. Please report this host package's version.",
            phase="assemble",
        )
    if "unknown command line flag" in evidence:
        return UsageError(brief, evidence, f"Flags that it knows: {help_}")
    if "is not supported by the embedded guest" in evidence:
        return UsageError(brief, evidence, "Leave it out, or launch Android: cfctl launch --host-package DIR")
    # The embedded launcher raises the same errors as cfctl itself.
    if found := re.search(r"the program '\S+' is not installed.*?Install it: ([^\n/]+)", evidence, re.DOTALL):
        return HostLacks(brief, evidence, f"Install it: {found[1].strip()}")
    for text, mend in _KNOWN.items():
        if text in evidence:
            return HostLacks(brief, evidence, mend)
    return LaunchFailed(
        brief, evidence, f"Mend what the launcher says, or see what it needs: {help_}", phase="assemble"
    )


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
