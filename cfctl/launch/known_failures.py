"""What launchers, VMMs and guests say when a boot fails for a known reason, what that means, and what mends it.

Each text is one that a named project prints (``source``); the order is the order of certainty: the first entry that
matches any log is the best guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Log(Enum):
    """The logs of a device, with what people call them."""

    LAUNCH = "the launcher"
    SUPERVISOR = "run_cvd"
    KERNEL = "the guest's console"


#: What runs on the host says it in either of these.
_HOST = (Log.LAUNCH, Log.SUPERVISOR)


@dataclass(frozen=True, slots=True)
class Known:
    """A known failure.

    :param key: its name, for tests and scripts.
    :param patterns: texts in a line of a log, any of them.
    :param logs: where they stand.
    :param cause: what happened, a clause.
    :param mend: the command that mends it, with ``{name}``, ``{number}``, ``{adb_port}``, ``{cid}`` and ``{home}``.
    :param source: who prints it.
    :param host_lacks: the host lacks a package, a group or a right.
    """

    key: str
    patterns: tuple[re.Pattern[str], ...]
    logs: tuple[Log, ...]
    cause: str
    mend: str
    source: str
    host_lacks: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A known failure that a log speaks of.

    :param line: the line that says so; empty where something else does.
    """

    known: Known
    line: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Which instance it is about, for the command that mends it."""

    name: str
    number: int
    adb_port: int
    cid: int
    home: str

    def mend(self, known: Known) -> str:
        """Return the command that mends a failure here."""
        return known.mend.format(
            name=self.name, number=self.number, adb_port=self.adb_port, cid=self.cid, home=self.home
        )


def _any(*texts: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(text) for text in texts)


DISK_FULL = Known(
    "disk-full",
    _any(r"No space left on device", r"Not enough space remaining in fs", r"Disk quota exceeded"),
    _HOST,
    "the disk is full",
    "Make room: df -h {home}",
    "strerror(3) of ENOSPC and EDQUOT; assemble_cvd before it makes the data image (launcher.md 9)",
)

BOOT_LOOP = Known(
    "boot-loop",
    (),
    (),
    "the guest starts again and again: a boot loop",
    "See why it gives up each time: cfctl logs {name}\n"
    "If its disks are from other images, make it anew: cfctl rm --force {name}",
    "counted: a guest that boots starts once (launcher.md 8: crosvm ends with 32 and is started again)",
)

KNOWN: tuple[Known, ...] = (
    Known(
        "group-missing",
        _any(
            r"to the cvdnetwork group",
            r"Unable to open tun device",
            r"Unable to connect to tap interface.*Operation not permitted",
        ),
        _HOST,
        "this user is not in group cvdnetwork",
        "Become a member: sudo usermod -aG cvdnetwork $USER, then log in again.",
        "run_cvd validate.cpp, host_configuration.cpp (launcher.md 9)",
        host_lacks=True,
    ),
    Known(
        "no-kvm",
        _any(
            r"to the kvm group",
            r"Could not access KVM kernel module",
            r"failed to initialize kvm",
            r"failed to open KVM device",
            r"CPU model 'host' requires KVM",
        ),
        _HOST,
        "KVM cannot be used",
        "See why, and what helps: cfctl host doctor",
        "host_configuration.cpp (launcher.md 9); QEMU accel/kvm/kvm-all.c; crosvm src/crosvm/sys/linux.rs",
        host_lacks=True,
    ),
    Known(
        "tap-missing",
        _any(r"Tap interface does not exist"),
        _HOST,
        "the host network does not serve this instance",
        "Make the taps: sudo cfctl host setup --instances {number}",
        "run_cvd validate.cpp (launcher.md 9)",
        host_lacks=True,
    ),
    Known(
        "tap-busy",
        _any(
            r"Unable to connect to tap interface",
            r"could not configure /dev/net/tun .*(?:Device or resource busy|Invalid argument)",
        ),
        _HOST,
        "another program has the tap of this instance open",
        "See who uses the tap: cfctl ps, and fuser /dev/net/tun",
        "run_cvd validate.cpp (launcher.md 9); QEMU net/tap-linux.c",
        host_lacks=True,
    ),
    Known(
        "cid-in-use",
        _any(r"(?i)unable to set guest cid: Address (?:already )?in use", r"(?i)failed to set CID for guest"),
        _HOST,
        "another VM on this host, perhaps in a container, has vsock CID {cid}",
        "See who has it: cfctl ps, and ps -eo pid,user,args | grep -E 'cid[=,]{cid}'",
        "QEMU hw/virtio/vhost-vsock.c; crosvm devices/src/virtio/vhost/mod.rs",
    ),
    Known(
        "port-in-use",
        _any(
            r"Address already in use",
            r"port \d+ on 127\.0\.0\.1 cannot be used",
            r"Failed to find an available port",
        ),
        _HOST,
        "another program listens on a port of this instance",
        "See who has it: ss -ltnp 'sport = :{adb_port}'",
        "strerror(3) of EADDRINUSE; QEMU ui/vnc.c; the embedded run_cvd",
    ),
    DISK_FULL,
    Known(
        "wrong-image",
        _any(
            r"Bad Linux ARM64 Image magic",
            r"Bad Linux RISCV Image magic",
            r"execute (?:it|/\S+) \(error -8\)",
            r"Exec format error",
        ),
        (Log.KERNEL, Log.SUPERVISOR, Log.LAUNCH),
        "an image or a program is made for another kind of processor",
        "Use images and a host package for this host's processor: uname -m",
        "U-Boot arch/arm/lib/image.c; Linux init/main.c; strerror(3) of ENOEXEC",
    ),
    Known(
        "bootloader-missing",
        _any(r"etc/bootloader_\w+/bootloader\.\S+"),
        _HOST,
        "the host package has no bootloader for this kind of processor",
        "Use a host package for this host's processor: uname -m",
        "assemble_cvd (launcher.md 9)",
    ),
    Known(
        "no-images",
        _any(r"(?i)no images found"),
        _HOST,
        "there are no guest images where the launcher looks for them",
        "Name their directory: cfctl launch {name} --images DIR",
        "assemble_cvd (launcher.md 9)",
    ),
    Known(
        "crosvm-panic",
        _any(r"thread '.*' (?:\(\d+\) )?panicked at"),
        _HOST,
        "crosvm itself has crashed",
        "Read what it said before: cfctl logs {name} --which launcher\n"
        "Try without acceleration: cfctl launch --gpu guest_swiftshader",
        "Rust's standard library, std/src/panicking.rs",
    ),
    Known(
        "guest-panic",
        _any(r"Kernel panic - not syncing", r"Unable to mount root fs"),
        (Log.KERNEL,),
        "the guest's kernel has panicked",
        "Read what it said before: cfctl logs {name}",
        "Linux kernel/panic.c, init/do_mounts.c",
    ),
)


#: Failures of which the text also has what a more general one is known by.
_PART_OF = {"group-missing": "tap-busy", "cid-in-use": "port-in-use"}


def match(texts: Mapping[Log, Sequence[str]]) -> list[Found]:
    """Return the known failures that the lines of logs speak of, the most certain first."""
    found = []
    for known in KNOWN:
        lines = (line for log in known.logs for line in texts.get(log, ()))
        said = next((line for line in lines if any(pattern.search(line) for pattern in known.patterns)), None)
        if said is not None:
            found.append(Found(known, said))
    hidden = {_PART_OF.get(entry.known.key) for entry in found}
    return [entry for entry in found if entry.known.key not in hidden]
