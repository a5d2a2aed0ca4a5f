"""What the kernel and the files say about a device: its processes, its sockets, how far it has booted.

Nothing is sent to a monitor for this: a client that asks and closes early can kill a VM (launcher.md section 15).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import paths, process
from cfctl.control import launcher_monitor
from cfctl.launch import boot, registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

#: Set in the environment of everything that a launch starts; HOME serves for tools that clean their environment.
MARK = "CFCTL_DEVICE"

_VMMS = ("qemu-system", "qemu-kvm", "crosvm")


class State(Enum):
    """The states of a device (a contract: docs/schema/device.json)."""

    PREPARING = "preparing"
    BOOTING = "booting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    STALE = "stale"

    @property
    def is_up(self) -> bool:
        """Whether processes of it are running."""
        return self not in (State.STOPPED, State.FAILED, State.STALE)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a device.

    :param instance: the number of the instance that it works for; None if it did not say.
    """

    pid: int
    argv: tuple[str, ...]
    instance: int | None

    @property
    def is_vm(self) -> bool:
        """Whether it is the virtual machine itself."""
        return Path(self.argv[0]).name.startswith(_VMMS)


@dataclass(frozen=True)
class Device:
    """A device as it is now."""

    record: Record
    state: State
    processes: tuple[Process, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the device as the ``--json`` contract shows it."""
        record = self.record
        failure = {"failure": msgspec.to_builtins(record.failure)} if record.failure else {}
        return {
            "name": record.name,
            "state": self.state.value,
            "runtime": "host",
            "home": os.fspath(record.home),
            "host_package": record.request.host_package,
            "gpu_mode": record.gpu_mode,
            "gpu_reason": record.gpu_reason,
            "owner": record.owner,
            "created_at": record.created_at,
            "started_at": record.started_at,
            "booted_at": record.booted_at,
            "suspended_at": record.suspended_at,
            "restart": record.request.restart,
            "instances": [self._instance(instance) for instance in record.instances],
            **failure,
        }

    def _instance(self, instance: Instance) -> dict[str, Any]:
        vms = [p.pid for p in self.processes if p.is_vm and p.instance in (instance.number, None)]
        return {
            "number": instance.number,
            "adb": instance.adb,
            "webrtc_device_id": instance.id,
            "vsock_cid": instance.vsock_cid,
            "vm_pid": vms[0] if vms else None,
        }


def processes(homes: Sequence[Path]) -> dict[Path, list[Process]]:
    """Return the living processes of each device, found by the environment that they were started with."""
    wanted = {os.fspath(home): home for home in homes}
    found: dict[Path, list[Process]] = {home: [] for home in homes}
    if not wanted:
        return found
    for pid in process.pids():
        env = process.environment(pid)
        home = wanted.get(env.get(MARK) or "")
        if home is None and "CUTTLEFISH_INSTANCE" in env:
            # Tools that clean their environment keep these two; HOME alone may be somebody's shell.
            home = wanted.get(env.get("HOME") or "")
        if home is None:
            continue
        # A zombie has no command line any more.
        if argv := process.command_line(pid):
            number = env.get("CUTTLEFISH_INSTANCE", "")
            found[home].append(Process(pid, argv, int(number) if number.isdecimal() else None))
    return found


def monitor_socket(record: Record, instance: Instance) -> Path:
    """Return the path of the launcher monitor: where the launcher's config says, else upstream's default."""
    directory: Any = None
    try:
        raw = (record.home / ".cuttlefish_config.json").read_bytes()
        directory = msgspec.json.decode(raw).get("instances_uds_dir")
    except (OSError, msgspec.DecodeError, AttributeError):
        pass
    if isinstance(directory, str) and directory.startswith("/"):
        return Path(directory) / instance.id / "launcher_monitor.sock"
    return Path(instance.socket_directory(os.geteuid())) / "launcher_monitor.sock"


def look(record: Record, alive: Sequence[Process], *, held: bool = False) -> Device:
    """Return the device with its state, from its record and its living processes.

    :param held: the caller itself holds the device, so that nobody else is changing it.
    """
    return Device(record, _state(record, alive, changing=not held and registry.is_held(record)), tuple(alive))


def _state(record: Record, alive: Sequence[Process], *, changing: bool) -> State:
    if record.stopping and (alive or changing):
        return State.STOPPING
    if not alive:
        if record.failure:
            return State.FAILED
        if record.stopped_at:
            return State.STOPPED
        if changing:
            return State.PREPARING
        # It should be up: it died after it had booted, or its launcher gave up with nobody watching.
        return State.STALE if record.booted_at or boot.all_booted(record) else State.FAILED
    if not record.getting_ready and (record.booted_at or boot.all_booted(record)):
        listening = all(launcher_monitor.listening(monitor_socket(record, instance)) for instance in record.instances)
        if not listening:
            return State.UNREACHABLE
        return State.SUSPENDED if record.suspended_at else State.RUNNING
    return State.BOOTING


def devices() -> list[Device]:
    """Return all devices of this user as they are now."""
    records = registry.load_all()
    alive = processes([record.home for record in records])
    return [look(record, alive[record.home]) for record in records]


def device(name: str, *, held: bool = False) -> Device:
    """Return one device as it is now.

    :param held: the caller itself holds the device.
    :raises NoSuchDevice: if there is none of that name.
    """
    record = registry.load(name)
    return look(record, processes([record.home])[record.home], held=held)


def salvaged(name: str) -> Device:
    """Return what is left of a device whose record is damaged: its processes, and their instance numbers."""
    home = paths.current().devices / name
    alive = processes([home])[home]
    record = registry.salvage(name, [p.instance for p in alive if p.instance is not None])
    return Device(record, State.UNREACHABLE if alive else State.STALE, tuple(alive))
