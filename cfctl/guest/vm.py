"""The virtual machine as QEMU's command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import arch as arches
from cfctl import distro, process
from cfctl.errors import MissingCommand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.arch import Arch
    from cfctl.guest.layout import Places
    from cfctl.instance import Instance, PointToPoint

#: RHEL and CentOS have their only emulator here, under this name.
_RHEL_QEMU = Path("/usr/libexec/qemu-kvm")

#: What saves time at boot: no self tests, no waiting for grace periods, no protection of a guest from itself. The
#: test of the timer does harm besides: it counts the host's time, and a guest without a processor meanwhile panics.
_FAST_BOOT = (
    "panic=-1 loglevel=6 printk.devkmsg=on mitigations=off cryptomgr.notests random.trust_cpu=on no_timer_check "
    "rcupdate.rcu_expedited=1"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a VM runs on.

    :param arch: the processor.
    :param accelerator: ``kvm`` or ``tcg``.
    """

    arch: Arch
    accelerator: str

    def base(self) -> list[str]:
        """Return the options that any VM of ours starts with."""
        kvm = self.accelerator == "kvm"
        machine = self.arch.machine
        if self.arch.machine == "virt":
            machine += ",gic-version=max"
        return [
            *("-machine", f"{machine},usb=off" if machine == "pc" else machine),
            *("-accel", "kvm" if kvm else "tcg,thread=multi"),
            # Not `host` nor `max` on x86: where the host is itself a guest, QEMU aborts on registers (MSRs) that it
            # cannot set. ARM's KVM knows no other than the host's.
            *("-cpu", "max" if kvm and self.arch.machine == "virt" else self.arch.tcg_cpu),
            "-nodefaults",
            *("-display", "none"),
            # The firmware of network cards is only for booting from the network.
            *("-boot", "strict=on"),
        ]

    def cmdline(self) -> str:
        """Return the kernel's arguments that any VM of ours starts with."""
        # The kernel's first stage on x86 would ask the firmware for disks.
        x86 = " edd=off" if self.arch.machine == "pc" else ""
        return f"console={self.arch.console} {_FAST_BOOT}{x86}"


def qemu(arch: Arch) -> str:
    """Return the emulator.

    :raises MissingCommand: if it is not installed.
    """
    if found := process.find(arch.qemu):
        return os.fspath(found)
    if arch != arches.host():
        raise MissingCommand(arch.qemu, distro.install_command(f"{arch.qemu} for emulation"))
    if _RHEL_QEMU.is_file():
        return os.fspath(_RHEL_QEMU)
    raise MissingCommand(arch.qemu, distro.install_command(arch.qemu))


def command(
    machine: Machine,
    instance: Instance,
    part: Mapping[str, Any],
    places: Places,
    network: PointToPoint,
    *,
    incoming: int | None = None,
) -> list[str]:
    """Return the command that runs an instance.

    :param part: the instance's part of the config.
    :param network: its mobile network, as the host has it.
    :param incoming: a descriptor to read a saved VM from, instead of booting.
    """
    internal = places.instance(instance) / "internal"
    log = places.instance(instance) / "console_log"
    arguments = [
        machine.cmdline(),
        f"cfctl.mobile={network.guest}/{network.network.prefixlen},{network.gateway.ip}",
        f"cfctl.serial={part['serial_number']}",
        part["extra_kernel_cmdline"],
    ]
    argv = [
        qemu(machine.arch),
        *("-name", f"guest={instance.id}"),
        *machine.base(),
        *("-uuid", part["uuid"]),
        *("-smp", str(part["cpus"])),
        *("-m", str(part["memory_mb"])),
        *("-kernel", part["kernel_path"]),
        *("-initrd", part["initramfs_path"]),
        *("-append", " ".join(filter(None, arguments))),
        *("-chardev", f"file,id=kernel,path={_escaped(internal / 'kernel-log-pipe')}"),
        *("-serial", "chardev:kernel"),
        *("-chardev", f"pipe,id=console,path={_escaped(internal / 'console')},logfile={_escaped(log)},logappend=on"),
        *("-device", "virtio-serial-pci,id=ports,max_ports=1,addr=5"),
        *("-device", "virtconsole,bus=ports.0,chardev=console"),
        *_tap("ethernet", instance.ethernet_tap, instance.ethernet_mac, 3),
        *_tap("mobile", network.tap, instance.mobile_mac, 4),
        *("-drive", f"if=none,id=disk,format=raw,file={_escaped(places.disk(instance))}"),
        *("-device", "virtio-blk-pci,drive=disk,addr=6"),
        # As upstream's, of which the monitor is asked by these names (cfctl/control/qemu.py). Not its xhci: the
        # firmware looks for keyboards behind it, 0.3 s at each boot, and this guest's kernel has no USB.
        *("-device", "virtio-balloon-pci,id=balloon0,addr=7"),
        *("-device", "virtio-keyboard-pci,addr=8"),
        *("-qmp", f"unix:{_escaped(places.qmp(instance))},server=on,wait=off"),
    ]
    if part["gpu_mode"] != "none":
        argv += ["-device", "VGA,id=screen,addr=2" if machine.arch.machine == "pc" else "ramfb,id=screen"]
        argv += ["-vnc", f"unix:{_escaped(places.vnc(instance))}"]
        # Where viewers point. The last one that the guest's drivers find gets the buttons: a finger is a button.
        argv += ["-device", "virtio-mouse-pci,addr=10", "-device", "virtio-tablet-pci,addr=11"]
        argv += ["-qmp", f"unix:{_escaped(places.input(instance))},server=on,wait=off"]
    if incoming is not None:
        argv += ["-incoming", f"fd:{incoming}"]
    return argv


def _tap(name: str, tap: str, mac: str, slot: int) -> list[str]:
    return [
        *("-netdev", f"tap,id={name},ifname={tap},script=no,downscript=no,vhost=off"),
        *("-device", f"virtio-net-pci,netdev={name},mac={mac},romfile=,addr={slot}"),
    ]


def _escaped(path: Path) -> str:
    """Return a path as QEMU's options want it: a comma is written twice."""
    return os.fspath(path).replace(",", ",,")
