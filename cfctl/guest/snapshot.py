"""A device on disk: a directory with its VM's memory, its disk, and what kind of machine it was.

The layout is upstream's (launcher.md section 5): ``snapshot_meta_info.json`` names the directory of each instance; it
is written last, so a directory that has it is whole, and may be deleted by us.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.control import qmp
from cfctl.errors import CfctlError, UsageError
from cfctl.guest import disk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.guest.configuration import Configuration
    from cfctl.instance import Instance

META = "snapshot_meta_info.json"
_MEMORY = "guest_vm"

#: Memory is written at the speed of the disk: some seconds for a guest of a few hundred MiB.
_SAVE_S = 300.0
_TICK_S = 0.05

#: What must be the same where a snapshot is restored: the machine's devices and the addresses that the guest has.
_SAME = (
    "cpus",
    "memory_mb",
    "gpu_mode",
    "kernel_path",
    "initramfs_path",
    "mobile_mac",
    "ethernet_mac",
    "serial_number",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was taken, or is being taken.

    :param meta: its ``snapshot_meta_info.json``.
    """

    meta: Path
    document: Mapping[str, Any]

    @classmethod
    def read(cls, meta: Path) -> Snapshot:
        """Read a snapshot's description.

        :raises UsageError: if it is none.
        """
        try:
            document = json.loads(meta.read_text())
            directories = document["guest_snapshot"]
            if not all(isinstance(inside, str) and ".." not in Path(inside).parts for inside in directories.values()):
                raise ValueError("a directory lies outside of it")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
            raise UsageError(f"{meta.parent} is not a snapshot", f"{meta.name}: {exc}") from exc
        return cls(meta, document)

    def directory(self, instance: Instance) -> Path:
        """Return where the parts of an instance lie.

        :raises UsageError: if it is no part of the snapshot.
        """
        inside = self.document["guest_snapshot"].get(str(instance.number))
        if inside is None:
            numbers = ", ".join(f"cvd-{number}" for number in self.document["guest_snapshot"])
            raise UsageError(f"the snapshot {self.meta.parent} has no {instance.id}", f"It is of {numbers}.")
        return self.meta.parent / str(inside)

    def memory(self, instance: Instance) -> Path:
        """Return the file with the VM's memory and processors."""
        return self.directory(instance) / _MEMORY

    def check(self, configuration: Mapping[str, Any], qemu: str) -> None:
        """See that a launch is of the machine that was saved.

        :param configuration: the config of the launch.
        :param qemu: the emulator's version.
        :raises UsageError: if it is another, naming what differs.
        """
        ours = {str(number) for number in configuration["instances"]}
        theirs = set(self.document["guest_snapshot"])
        if ours != theirs:
            raise UsageError(
                f"the snapshot is of instance {_listed(theirs)}, and this launch of {_listed(ours)}",
                "The guest keeps its addresses, which follow from the number.",
            )
        machine = self.document.get("cfctl")
        if not isinstance(machine, dict):
            raise UsageError(f"{self.meta.parent} is a snapshot of another launcher's device")
        now = _machine(configuration, qemu)
        for what, value in now.items():
            was = machine.get(what)
            if was != value:
                raise UsageError(f"the snapshot has {what} {was}, and this launch {value}")


def _listed(numbers: set[str]) -> str:
    return ", ".join(sorted(numbers, key=lambda number: (len(number), number)))


def _machine(configuration: Mapping[str, Any], qemu: str) -> dict[str, str]:
    """Return what must not differ, by a name for people."""
    found = {"the processor": str(configuration.get("cfctl_arch")), "QEMU": qemu}
    found["the accelerator"] = str(configuration.get("cfctl_accelerator"))
    for number, part in configuration["instances"].items():
        # Packages are moved, and the same files have the same names.
        found |= {f"{key} of cvd-{number}": os.path.basename(str(part.get(key))) for key in _SAME}  # noqa: PTH119
    return found


def qemu_version(program: str) -> str:
    """Return what an emulator says it is."""
    return process.run([program, "--version"], timeout=10).stdout.partition("\n")[0]


def prepare(target: Path, configuration: Configuration, instances: Sequence[Instance], qemu: str) -> Path:
    """Make a snapshot's directory, with the disks of VMs that are paused; their memory is added by their run_cvd.

    :return: its description's path.
    :raises OSError: if it cannot be written.
    """
    places = configuration.places
    inside = {str(instance.number): f"{places.instance(instance).relative_to(places.root)}" for instance in instances}
    # Not for others: what the guest had in its memory is in it.
    target.mkdir(mode=0o700, parents=True)
    for instance in instances:
        directory = target / inside[str(instance.number)]
        directory.mkdir(parents=True)
        disk.copy(places.instance(instance) / disk.NAME, directory / disk.NAME)
    meta = target / META
    document = {
        "snapshot_path": os.fspath(target),
        "HOME": os.fspath(places.home),
        "guest_snapshot": inside,
        "cfctl": _machine(configuration.document, qemu),
    }
    meta.write_text(json.dumps(document, indent=1) + "\n")
    return meta


async def save(monitor: Path, target: Path) -> None:
    """Write the memory of a paused VM to a file; the VM stays paused.

    :param monitor: QEMU's.
    :raises CfctlError: if it does not come to an end; the VM is as it was.
    """
    try:
        file = target.open("xb")
    except OSError as exc:
        raise CfctlError(f"{target} cannot be written", exc.strerror) from exc
    with file:
        async with qmp.session(monitor, "migrate", patience=_SAVE_S) as talk:
            # 0 is no limit at all in some versions and nothing in others.
            await talk.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            await talk.give("snapshot", file.fileno())
            await talk.execute("migrate", uri="fd:snapshot")
            while (state := await talk.execute("query-migrate"))["status"] not in (
                "completed",
                "failed",
                "cancelled",
            ):
                await asyncio.sleep(_TICK_S)
    if state["status"] != "completed":
        target.unlink(missing_ok=True)
        raise CfctlError(f"QEMU did not save the VM: {state['status']}", state.get("error-desc"))


async def restored(monitor: Path) -> None:
    """Wait until a VM has read its memory back, and let it go on.

    :raises CfctlError: if it does not; it may be gone by then.
    """
    deadline = asyncio.get_running_loop().time() + _SAVE_S
    while True:
        # Before QEMU has made its monitor there is nothing to ask.
        if monitor.exists():
            status = await qmp.execute(monitor, "query-status")
            if status["status"] != "inmigrate":
                break
        if asyncio.get_running_loop().time() > deadline:
            raise CfctlError("QEMU did not read the snapshot back")
        await asyncio.sleep(_TICK_S)
    await qmp.execute(monitor, "cont")
