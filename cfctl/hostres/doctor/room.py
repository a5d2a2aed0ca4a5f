"""Memory and disk for the devices that the host is to serve."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl.hostres.doctor.finding import Finding, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts

#: What a phone image is launched with, and what its helpers take beside it. An estimate of ours.
_DEVICE_MB = 4096
#: What the host keeps for itself.
_HOST_MB = 1024

#: A host package and images, unpacked once for all devices; estimates of ours.
_IMAGES_MB = 12 * 1024
#: Upstream's userdata (blank_data_image_mb, sparse at first), with the logs and the file behind QEMU's memory.
_DISK_MB = 8192 + _DEVICE_MB
#: Below this not even one device writes its first files.
_LEAST_MB = 2048


def checks(facts: Facts) -> Iterator[Finding]:
    """Check memory, overcommit, the limits of a container, and the disk."""
    yield _memory(facts)
    yield from _overcommit(facts)
    yield _disk(facts)


def _memory(facts: Facts) -> Finding:
    check = "memory"
    why = f"A device takes {_gb(_DEVICE_MB)}, and this host is to serve {facts.instances}."
    help_ = "Serve fewer devices (cfctl host setup --instances N) or give them less (cfctl launch --memory-mb 2048)."
    meminfo = dict(re.findall(r"^(\w+):\s+(\d+) kB$", facts.read("proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in meminfo:
        return Finding(check, "warn", "not known: /proc/meminfo does not say", why, "free -m")
    total = int(meminfo["MemTotal"]) >> 10
    where = ""
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = facts.read(name)
        if limit.isdecimal() and int(limit) >> 20 < total:
            total, where = int(limit) >> 20, ", the limit of this container"
    fits = max(0, (total - _HOST_MB) // _DEVICE_MB)
    result: Result = "ok" if fits >= facts.instances else "warn" if total >= _LEAST_MB + _HOST_MB else "fail"
    if result == "ok":
        return Finding(check, result, f"{_gb(total)}{where}", why)
    return Finding(check, result, f"{_gb(total)}{where}: enough for {fits} at a time", why, help_)


def _overcommit(facts: Facts) -> Iterator[Finding]:
    if facts.read("proc/sys/vm/overcommit_memory") == "2":
        yield Finding(
            "overcommit",
            "warn",
            "vm.overcommit_memory is 2: the kernel sets the whole memory of each guest aside",
            "A VM asks for all of its guest's memory at once and uses it later.",
            "sudo sysctl -w vm.overcommit_memory=0",
        )


def _disk(facts: Facts) -> Finding:
    check, place = "disk", facts.devices
    need = _IMAGES_MB + facts.instances * _DISK_MB
    why = f"Images take about {_gb(_IMAGES_MB)} once, and a device grows to about {_gb(_DISK_MB)}."
    help_ = (
        "Free some (cfctl rm NAME), or keep devices elsewhere: set CFCTL_PATHS_STATE to a directory on another disk."
    )
    if facts.free_mb is None:
        return Finding(check, "warn", f"not known: {place} cannot be looked at", why, f"df -h {place}")
    fits = max(0, (facts.free_mb - _IMAGES_MB) // _DISK_MB)
    if facts.free_mb >= need:
        return Finding(check, "ok", f"{_gb(facts.free_mb)} free for {place}", why)
    result: Result = "fail" if facts.free_mb < _LEAST_MB else "warn"
    found = f"{_gb(facts.free_mb)} free for {place}: enough for {fits} full-grown devices of {facts.instances}"
    return Finding(check, result, found, why, help_)


def _gb(megabytes: int) -> str:
    return f"{megabytes / 1024:.1f} GB"
