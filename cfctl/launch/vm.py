"""The VM of a device's instance: where it is asked, and the table's operations on it by the device's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.control import operations, perform, sync
from cfctl.control.operations import Manager
from cfctl.control.target import VmTarget
from cfctl.errors import NotRunning
from cfctl.launch import census, manage, observe, tools, wares

if TYPE_CHECKING:
    from cfctl.control.operations import Operation
    from cfctl.instance import Instance
    from cfctl.launch.observe import Device
    from cfctl.launch.registry import Record

#: These change what cfctl remembers of a device, or concern all of its instances (lifecycle.py).
_LIFECYCLE = ("suspend", "resume")


def of(record: Record, instance: Instance) -> VmTarget:
    """Return the VM of a device's instance.

    :raises VmUnreachable: if it has no socket: it is not up, or no VM of crosvm's or QEMU's.
    """
    sockets = observe.monitor_socket(record, instance).parent
    configured = tools.vm_manager(record)
    crosvm = _crosvm(record, instance)
    if configured in tuple(Manager):
        found = VmTarget(_name(record, instance), Manager(configured), sockets, crosvm)
        if found.socket.exists():
            return found
    return VmTarget.at(sockets, _name(record, instance), crosvm=crosvm)


def find(record: Record, instance: Instance) -> VmTarget | None:
    """Return the VM of a device's instance; None if it has no socket."""
    try:
        return of(record, instance)
    except NotRunning:
        return None


def _name(record: Record, instance: Instance) -> str:
    position = record.numbers.index(instance.number) + 1
    return record.name if len(record.numbers) == 1 else f"{record.name}/{position}"


def _crosvm(record: Record, instance: Instance) -> Path:
    """Return crosvm as the launcher's config names it, else the host package's."""
    config = tools.configuration(record)
    parts = config.get("instances")
    part = parts.get(str(instance.number)) if isinstance(parts, dict) else None
    for place in (part, config):
        named = place.get("crosvm_binary") if isinstance(place, dict) else None
        if isinstance(named, str) and named.startswith("/") and "\0" not in named:
            return Path(named)
    return wares.present(record) / "bin" / "crosvm"


def target(name: str) -> tuple[Device, VmTarget]:
    """Return a device that is up, and the VM of one of its instances, whoever made it.

    :param name: ``NAME`` or ``NAME/2``.
    :raises NoSuchDevice, UsageError: as :func:`census.reachable`.
    :raises NotRunning: if it is not up.
    """
    whole, position = manage.target(name)
    device = census.reachable(whole)
    instance = manage.instance_of(device, position)
    if not device.state.is_up:
        raise NotRunning(f"{whole} is {device.state.value}", None, f"Boot it: cfctl restart {whole}")
    return device, of(device.record, instance)


def do(name: str, operation: Operation, *, seconds: float | None = None) -> dict[str, Any]:
    """Do an operation of the table on a device: what ``cfctl control`` does, and the relay.

    :param name: ``NAME`` or ``NAME/2``.
    :param seconds: how long it may take; None is as the table says.
    :return: what came of it.
    :raises CfctlError: as :func:`cfctl.control.perform.perform`, :func:`target` and, for what is remembered of a
        device, :mod:`cfctl.launch.lifecycle`.
    """
    if operation.name in _LIFECYCLE:
        from cfctl.launch import lifecycle

        whole, _ = manage.target(name)
        limit = operation.spec.seconds if seconds is None else seconds
        device = (lifecycle.suspend if operation.name == "suspend" else lifecycle.resume)(whole, seconds=limit)
        return {"state": device.state.value}
    _, vm = target(name)
    return ask(vm, operation, seconds=seconds)


def ask(vm: VmTarget, operation: Operation, *, seconds: float | None = None) -> dict[str, Any]:
    """Do an operation on a VM, as a step."""
    with steps.step(f"{' '.join(operation.spec.words)} {vm.name}"):
        return sync.run(perform.perform(vm, operation, seconds=seconds))


def simple(vm: VmTarget, name: str, *, seconds: float | None = None, **values: object) -> dict[str, Any]:
    """Do an operation by its name; see :func:`ask`."""
    return ask(vm, operations.operation(name, values), seconds=seconds)
