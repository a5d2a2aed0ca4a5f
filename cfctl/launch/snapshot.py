"""A device on disk: taken while it is suspended, and a device that goes on where it was taken.

The host package's own program writes the directory, so what is in it is the package's business; what is looked at
here is its description, ``snapshot_meta_info.json`` (launcher.md section 5).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from cfctl import steps
from cfctl.control import launcher_monitor, sync
from cfctl.control.faults import VmCannot
from cfctl.control.launcher_monitor import Action
from cfctl.control.operations import Manager
from cfctl.errors import CfctlError, UsageError
from cfctl.launch import census, launcher, lifecycle, observe, registry, tools
from cfctl.launch.observe import State

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.launch.observe import Device
    from cfctl.launch.registry import Record

META = "snapshot_meta_info.json"

#: The memory of a phone is some GiB, and is written at the speed of the disk.
TAKE_S = 600.0
#: For run_cvd to say that it is there, which it does at once.
_ANSWER_S = 30.0


def take(name: str, path: Path, *, force: bool = False, seconds: float = TAKE_S) -> Device:
    """Save a device in a new directory. A running one is suspended for it and goes on; a suspended one stays so.

    :param path: absolute.
    :param force: an older snapshot that is there is deleted first; nothing else ever is.
    :raises NotRunning: if the device is not up.
    :raises VmCannot: if its launcher cannot save its VM.
    :raises HostLacks: if the host package has no program for it.
    :raises UsageError: if something is there already.
    :raises CfctlError: if it could not be done; the device is as it was, and no directory is left.
    """
    with census.opened(name) as record:
        device = lifecycle.up(name)
        _require_saving(record)
        tool = tools.require(record, tools.SNAPSHOT)
        _make_room(path, force=force)
        was_running = device.state is State.RUNNING
        if was_running:
            lifecycle.suspend_held(record, seconds=lifecycle.SUSPEND_S)
        try:
            with steps.step(f"save {name}"):
                tools.run(
                    record,
                    record.instances[0],
                    tool,
                    "--subcmd=snapshot_take",
                    f"--snapshot_path={path}",
                    f"--wait_for_launcher={seconds:.0f}",
                    seconds=seconds + 10,
                )
        except BaseException:
            # A program that was killed could not clean up; nothing was there before.
            shutil.rmtree(path, ignore_errors=True)
            raise
        finally:
            if was_running:
                lifecycle.resume_held(record, seconds=lifecycle.SUSPEND_S)
        _check(record, path)
    return observe.device(name)


def restore(name: str, path: Path, *, timeout: float) -> Device:
    """Let a device go on where a snapshot of it was taken: it is stopped if it is up, and started from there.

    :param path: absolute.
    :param timeout: seconds that it may take.
    :raises UsageError: if it is no snapshot, or one of other instance numbers: a guest keeps its addresses.
    :raises CfctlError: as :func:`launcher.restart`, or if it does not answer.
    """
    with census.ours(name):
        _check(registry.load(name), path)
    device = launcher.restart(name, timeout=timeout, snapshot=path)
    # No log tells that it goes on, as one tells that it has booted: whether it answers does.
    for instance in device.record.instances:
        socket = observe.monitor_socket(device.record, instance)
        sync.run(launcher_monitor.request(socket, Action.STATUS, seconds=_ANSWER_S))
    return device


def _require_saving(record: Record) -> None:
    """See that the launcher can save the VM at all: upstream's cannot save QEMU's, the embedded one can.

    :raises VmCannot: if it cannot; nothing was changed.
    """
    config = tools.configuration(record)
    if config.get("vm_manager") == Manager.QEMU and not any(key.startswith("cfctl_") for key in config):
        raise VmCannot(
            f"the launcher of {record.name} cannot save a VM of QEMU's",
            "Upstream's launcher saves crosvm's only, and could not start QEMU from a snapshot. Nothing was changed.",
            f"Launch it with crosvm: cfctl rm --force {record.name}; "
            f"cfctl launch {record.name} -- --vm_manager=crosvm --snapshot_compatible=true",
        )


def _make_room(path: Path, *, force: bool) -> None:
    if not path.is_symlink() and not path.exists():
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is not a directory")
        return
    if not force:
        raise UsageError(
            f"{path} is there already", None, "Name a new directory, or replace a snapshot with --force."
        )
    if path.is_symlink() or not (path / META).is_file():
        raise UsageError(f"{path} is not a snapshot, and was not touched", f"It has no {META}.")
    try:
        shutil.rmtree(path)
    except OSError as exc:
        raise CfctlError(f"{path} could not be deleted", str(exc)) from exc


def _check(record: Record, path: Path) -> None:
    """See that a directory is a snapshot of this device's instances."""
    try:
        document = msgspec.json.decode((path / META).read_bytes())
        numbers = {int(number) for number in document["guest_snapshot"]}
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise UsageError(f"{path} is not a snapshot", f"{META}: {exc}") from exc
    if numbers != set(record.numbers):
        raise UsageError(
            f"{path} is a snapshot of instance {_listed(numbers)}, not of {_listed(set(record.numbers))}",
            "The guest keeps the addresses of its instance numbers.",
        )


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
