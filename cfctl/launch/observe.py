"""What the kernel and the files say about a device: its processes, its sockets, how far it has booted.

Nothing is sent to a monitor for this: a client that asks and closes early can kill a VM (launcher.md section 15).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import paths
from cfctl.errors import CfctlError
from cfctl.instance import at_position
from cfctl.launch import boot, procs, registry, runtime_config
from cfctl.launch.procs import INSTANCE, Look, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

#: Set in the environment of everything that a launch starts.
MARK = procs.MARK

#: Whoever follows a boot writes down its end within this time; after it, whoever sees it first does.
_FOLLOWED_S = 5.0


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
        return procs.is_vm(self.argv)


@dataclass(frozen=True)
class Device:
    """A device as it is now.

    :param usage: what its processes take.
    :param ports: the TCP ports of this host that they listen on.
    """

    record: Record
    state: State
    processes: tuple[Process, ...] = field(default=())
    usage: Usage = field(default=Usage(), compare=False)
    ports: frozenset[int] = field(default=frozenset(), compare=False, repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    def as_dict(self) -> dict[str, Any]:
        """Return the device as the ``--json`` contract shows it."""
        record = self.record
        memory = registry.spread(record.request.memory_mb, len(record.numbers))
        failure = record.failure
        if failure is None and self.processes and is_abandoned(record):
            failure = registry.Failure(
                "after-boot", f"nobody does any more what --after-boot says: cfctl restart {record.name}"
            )
        return {
            "name": record.name,
            "state": self.state.value,
            "runtime": "host",
            "source": "cfctl",
            "home": os.fspath(record.home),
            "host_package": record.request.host_package,
            "generation": record.generation or None,
            "gpu_mode": record.gpu_mode,
            "gpu_reason": record.gpu_reason,
            "owner": record.owner,
            "created_at": record.created_at,
            "started_at": record.started_at,
            "booted_at": record.booted_at,
            "suspended_at": record.suspended_at,
            "restart": record.request.restart,
            "uptime_s": self.usage.uptime_s,
            "memory_mb": self.usage.memory_mb,
            "guest_memory_mb": same(memory),
            "instances": [
                {**self._instance(instance), "guest_memory_mb": given}
                for instance, given in zip(record.instances, memory, strict=True)
            ],
            **({"failure": msgspec.to_builtins(failure)} if failure else {}),
        }

    def _instance(self, instance: Instance) -> dict[str, Any]:
        vms = [p.pid for p in self.processes if p.is_vm and p.instance in (instance.number, None)]
        return {
            "number": instance.number,
            "adb": instance.adb,
            "webrtc_device_id": instance.id,
            "vsock_cid": instance.vsock_cid,
            "vm_pid": vms[0] if vms else None,
            "ports": open_ports(instance, self.ports) if self.processes else {},
        }


def same(values: Sequence[int | None]) -> int | None:
    """Return the value that all instances have; None if they differ."""
    return values[0] if len(set(values)) == 1 else None


def open_ports(instance: Instance, listening: frozenset[int], **other: int) -> dict[str, int]:
    """Return the ports of an instance that are listened on, by what they are for.

    :param other: those that a launcher has put elsewhere.
    """
    return {name: port for name, port in (instance.ports | other).items() if port in listening}


def processes(homes: Sequence[Path], look: Look | None = None) -> dict[Path, list[Process]]:
    """Return the living processes of each device, found by the environment that they were started with."""
    found: dict[Path, list[Process]] = {home: [] for home in homes}
    if not found:
        return found
    home_of = _finder(homes)
    for seen in (look or Look()).processes:
        env = seen.env or {}
        home = home_of(env.get(MARK) or "")
        if home is None and INSTANCE in env:
            # Tools that clean their environment keep these two; HOME alone may be somebody's shell.
            home = home_of(env.get("HOME") or "")
        if home is not None:
            number = env.get(INSTANCE, "")
            found[home].append(Process(seen.pid, seen.argv, int(number) if number.isdecimal() else None))
    return found


def _finder(homes: Sequence[Path]) -> Callable[[str], Path | None]:
    """Return what tells which of the directories a path leads to, by whatever links."""
    wanted: dict[str, Path | None] = {os.fspath(home): home for home in homes}
    names = {home.name for home in homes}
    real: dict[str, Path] = {}

    def find(path: str) -> Path | None:
        if path not in wanted:
            wanted[path] = None
            # A user's home is a link, say, and only some of the user's programs resolve it. A device's own directory
            # is none: what has no device's name is not looked at, since a dead NFS server would keep us waiting.
            if path.startswith("/") and os.path.basename(path) in names:  # noqa: PTH119 (a hot path)
                if not real:
                    real.update((os.path.realpath(home), home) for home in homes)
                wanted[path] = real.get(os.path.realpath(path))
        return wanted[path]

    return find


def monitor_socket(record: Record, instance: Instance) -> Path:
    """Return the path of the launcher monitor: where the launcher's config says, else upstream's default.

    Before June 2023 it lay in the instance's own directory (launcher.md section 4.1).
    """
    config = runtime_config.read(record.home / runtime_config.NAME)
    if config is not None and config.sockets:
        return Path(config.sockets) / instance.id / "launcher_monitor.sock"
    old = Path(instance.directory(record.home)) / "launcher_monitor.sock"
    return old if old.exists() else Path(instance.socket_directory(os.geteuid())) / old.name


def look(record: Record, alive: Sequence[Process], *, held: bool = False, at: Look | None = None) -> Device:
    """Return the device with its state, from its record and its living processes.

    :param held: the caller itself holds the device, so that nobody else is changing it.
    :param at: the moment; None is now.
    """
    at = at or Look()
    if alive and record.booted_at is None and not record.getting_ready and boot.all_booted(record):
        _remember_boot(record, held=held)
    state = _state(record, alive, changing=not held and registry.is_held(record), at=at)
    usage = procs.usage((p.pid, p.is_vm) for p in alive)
    return Device(
        record, state, tuple(alive), usage, procs.ports_of((p.pid for p in alive), at.ports if alive else {})
    )


def _state(record: Record, alive: Sequence[Process], *, changing: bool, at: Look) -> State:
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
    if record.booted_at and not record.getting_ready:
        sockets = (os.fspath(monitor_socket(record, instance)) for instance in record.instances)
        if not all(socket in at.sockets for socket in sockets):
            return State.UNREACHABLE
        return State.SUSPENDED if record.suspended_at else State.RUNNING
    return State.BOOTING


def silent(device: Device) -> list[str]:
    """Return which instances do not answer, and what is known of them, for people."""
    record, sockets = device.record, Look().sockets
    said = []
    for position, instance in enumerate(record.instances, start=1):
        if os.fspath(monitor_socket(record, instance)) in sockets:
            continue
        name = f"{record.name}/{position} ({instance.id})" if len(record.numbers) > 1 else instance.id
        alive = any(process.instance == instance.number for process in device.processes)
        said.append(f"{name}: {'its launcher monitor does not listen' if alive else 'nothing of it runs any more'}.")
    return said


def is_abandoned(record: Record) -> bool:
    """Tell whether a device waits for what is to be done after its boot, and nobody is there any more to do it."""
    return record.getting_ready and not (record.follower and procs.is_alive(record.follower))


def _remember_boot(record: Record, *, held: bool) -> None:
    """Write down when a boot ended that nobody has followed, as its log says, or else now."""
    moment = boot.completed_at(record)
    record.booted_at = moment or registry.now()
    if held or (moment and time.time() - datetime.fromisoformat(moment).timestamp() < _FOLLOWED_S):
        return
    # A full disk, or another user's device: then the next one finds out again.
    with contextlib.suppress(CfctlError), registry.held_if_free(record.name) as free:
        if free:
            current = registry.load(record.name)
            if current.booted_at is None and current.started_at == record.started_at and current.holds_numbers:
                current.booted_at = record.booted_at
                registry.save(current)


def devices(at: Look | None = None) -> list[Device]:
    """Return all devices of this user as they are at one moment, which is now unless said."""
    at = at or Look()
    records = registry.load_all()
    alive = processes([record.home for record in records], at)
    return [look(record, alive[record.home], at=at) for record in records]


def device(name: str, *, held: bool = False) -> Device:
    """Return one device as it is now.

    :param held: the caller itself holds the device.
    :raises NoSuchDevice: if there is none of that name.
    """
    record = registry.load(name)
    at = Look()
    return look(record, processes([record.home], at)[record.home], held=held, at=at)


def one_instance(name: str, position: int, *, held: bool = False) -> Device:
    """Return one instance of a device, as if it were all of it: its state, its processes, what they take.

    :param position: the first is 1.
    :param held: the caller itself holds the device.
    :raises NoSuchDevice: if there is no device of that name.
    :raises UsageError: if the device has fewer instances.
    """
    record = registry.load(name)
    number = at_position(name, record.numbers, position)
    at = Look()
    alive = [p for p in processes([record.home], at)[record.home] if p.instance in (number, None)]
    part = msgspec.structs.replace(record, numbers=(number,), request=registry.narrowed(record.request, position))
    return look(part, alive, held=held, at=at)


def salvaged(name: str) -> Device:
    """Return what is left of a device whose record is damaged: its processes, and their instance numbers."""
    home = paths.current().devices / name
    alive = processes([home])[home]
    record = registry.salvage(name, [p.instance for p in alive if p.instance is not None])
    return Device(record, State.UNREACHABLE if alive else State.STALE, tuple(alive))
