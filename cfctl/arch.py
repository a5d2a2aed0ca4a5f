"""What depends on the processor, in one table: x86_64 and aarch64 are equals."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cfctl.errors import HostLacks


@dataclass(frozen=True, slots=True)
class Arch:
    """A processor architecture as the kernel, Debian and QEMU each call it.

    :param name: ``uname -m``.
    :param debian: Debian's name of the port.
    :param triplet: the multiarch library directory.
    :param qemu: the system emulator. RHEL has it as /usr/libexec/qemu-kvm instead.
    :param machine: QEMU's ``-machine``.
    :param tcg_cpu: QEMU's ``-cpu`` without hardware help.
    :param console: the kernel's first serial port.
    :param kernel_package: Debian's kernel for virtual machines.
    :param elf_machine: ``e_machine`` of its ELF files (elf.h), to refuse programs for the wrong processor.
    """

    name: str
    debian: str
    triplet: str
    qemu: str
    machine: str
    tcg_cpu: str
    console: str
    kernel_package: str
    elf_machine: int


ARCHES = {
    arch.name: arch
    for arch in (
        Arch(
            name="x86_64",
            debian="amd64",
            triplet="x86_64-linux-gnu",
            qemu="qemu-system-x86_64",
            machine="pc",
            tcg_cpu="qemu64",
            console="ttyS0",
            kernel_package="linux-image-cloud-amd64",
            elf_machine=62,
        ),
        Arch(
            name="aarch64",
            debian="arm64",
            triplet="aarch64-linux-gnu",
            qemu="qemu-system-aarch64",
            machine="virt",
            tcg_cpu="cortex-a57",
            console="ttyAMA0",
            kernel_package="linux-image-cloud-arm64",
            elf_machine=183,
        ),
    )
}


def by_name(name: str) -> Arch:
    """Return the architecture that ``uname -m`` calls ``name``.

    :raises HostLacks: for one that Cuttlefish does not run on.
    """
    try:
        return ARCHES[name]
    except KeyError:
        raise HostLacks(
            f"processor architecture {name!r} is not supported",
            f"Cuttlefish runs on: {', '.join(sorted(ARCHES))}.",
        ) from None


def host() -> Arch:
    """Return the architecture of this host."""
    return by_name(os.uname().machine)
