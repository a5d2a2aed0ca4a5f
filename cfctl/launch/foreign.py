"""Devices that this user's cfctl did not make: started by cvd, by launch_cvd by hand, or by another user.

What the kernel and the files say is gathered elsewhere (``foreign_facts.py``); what follows from it and
from the logs of a boot is here.

A device is there when a launcher monitor listens, or a supervisor or a VM runs; a process that merely has the
variables of a launcher is nobody's proof, since a shell may have them too. A number that is marked as in use, or a
config without any process, is a device that was: ``stale`` if it left something that is in the way, else ``stopped``.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import paths
from cfctl.instance import MAX_INSTANCES, Instance, at_position
from cfctl.launch import boot, procs, registry
from cfctl.launch.observe import State, open_ports, same
from cfctl.launch.procs import INSTANCE, MARK, Seen, Usage
from cfctl.launch.runtime_config import InstanceConfig, RuntimeConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

#: A launcher monitor: where the sockets of its user's instances lie, and the number.
SOCKET = re.compile(r"(?P<directory>/.*)/cvd-(?P<number>[1-9]\d{0,2})/launcher_monitor\.sock")

#: What a device may be called.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,53}")

#: Set by cvd for everything that it starts.
_BY_CVD = "_STARTED_BY_CVD_SERVER_"


@dataclass(frozen=True)
class Process:
    """A process of a foreign device, with whose it is."""

    seen: Seen
    uid: int

    @property
    def home(self) -> str | None:
        """The launcher's HOME; None if it may not be read, or the process has no instance."""
        env = self.seen.env or {}
        return env.get(MARK) or (env.get("HOME") if INSTANCE in env else None) or None


@dataclass(frozen=True)
class Facts:
    """What the kernel and the files say.

    :param processes: those of no device of ours.
    :param sockets: launcher monitors that are listened on: path -> whose; None if it cannot be told.
    :param locks: numbers marked as in use -> whose the mark is.
    :param configs: HOME -> what a launcher wrote down there, and for whom.
    :param held: those of them whose lock somebody holds right now.
    :param preparing: some launcher runs of which the number is not known yet.
    """

    processes: tuple[Process, ...] = ()
    sockets: Mapping[str, int | None] = field(default_factory=dict)
    locks: Mapping[int, int] = field(default_factory=dict)
    configs: Mapping[str, tuple[RuntimeConfig, int]] = field(default_factory=dict)
    held: frozenset[int] = frozenset()
    preparing: bool = False


class ForeignRecord(registry.Record, kw_only=True):
    """What would stand in the record of a device, had it been made by us; it is written nowhere.

    :param directory: the launcher's HOME.
    """

    directory: str

    @property
    def home(self) -> Path:
        """The launcher's HOME, which somebody else has chosen."""
        return Path(self.directory)


@dataclass(frozen=True)
class Foreign:
    """A device that this user's cfctl did not make.

    :param source: who made it: ``cvd``, ``launch_cvd``, ``cfctl`` (another user's), or ``unknown``.
    :param uid: whose it is; None if it cannot be told.
    :param home: the launcher's HOME; None if it may not be read.
    :param sockets: the launcher monitors that listen, by number.
    """

    name: str
    state: State
    source: str
    uid: int | None
    home: str | None
    numbers: tuple[int, ...]
    processes: tuple[Seen, ...] = ()
    config: RuntimeConfig | None = None
    sockets: Mapping[int, str] = field(default_factory=dict)
    host_package: str = ""
    usage: Usage = field(default=Usage(), compare=False)
    ports: frozenset[int] = field(default=frozenset(), compare=False, repr=False)

    @property
    def owner(self) -> str:
        """The user's name, or number; empty if it cannot be told."""
        return "" if self.uid is None else user_name(self.uid)

    @property
    def record(self) -> ForeignRecord:
        """The device as a record, for what works on every device whose HOME is known."""
        since = self.usage.started_at or registry.now()
        return ForeignRecord(
            name=self.name,
            owner=self.owner,
            created_at=since,
            started_at=since,
            request=registry.Request(host_package=self.host_package, num_instances=len(self.numbers)),
            numbers=self.numbers,
            gpu_mode=self._config(self.numbers[0]).gpu_mode,
            gpu_reason=f"chosen by {self.source}",
            directory=self.home or "",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the device as the ``--json`` contract shows it; what cannot be known is empty or null."""
        first = self._config(self.numbers[0])
        return {
            "name": self.name,
            "state": self.state.value,
            "runtime": "host",
            "source": self.source,
            "home": self.home or "",
            "host_package": self.host_package,
            "generation": None,
            "gpu_mode": first.gpu_mode,
            "gpu_reason": "",
            "owner": self.owner,
            "started_at": self.usage.started_at,
            "booted_at": None,
            "uptime_s": self.usage.uptime_s,
            "memory_mb": self.usage.memory_mb,
            "guest_memory_mb": same([self._config(number).memory_mb for number in self.numbers]),
            "instances": [self._instance(number) for number in self.numbers],
        }

    def _config(self, number: int) -> InstanceConfig:
        return (self.config.instances.get(number) if self.config else None) or InstanceConfig()

    def _instance(self, number: int) -> dict[str, Any]:
        instance, config = Instance(number), self._config(number)
        adb = config.adb_port or instance.adb_port
        vms = [p.pid for p in self.processes if p.is_vm and p.number in (number, None)]
        return {
            "number": number,
            "adb": f"127.0.0.1:{adb}",
            "webrtc_device_id": config.webrtc_device_id or instance.id,
            "vsock_cid": config.vsock_cid or instance.vsock_cid,
            "vm_pid": vms[0] if vms else None,
            "ports": open_ports(instance, self.ports, adb=adb) if self.state.is_up else {},
            "guest_memory_mb": config.memory_mb,
        }


def user_name(uid: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def one_instance(device: Foreign, position: int) -> Foreign:
    """Return one instance of a device, as if it were all of it.

    :raises UsageError: if it has fewer instances.
    """
    number = at_position(device.name, device.numbers, position)
    part = tuple(seen for seen in device.processes if seen.number in (number, None))
    usage = procs.usage((seen.pid, seen.is_vm) for seen in part)
    return replace(device, numbers=(number,), processes=part, usage=usage)


# -- what follows ------------------------------------------------------------------------------------------


@dataclass
class _Group:
    """The evidence for one device, while it is put together."""

    uid: int | None
    home: str | None
    numbers: set[int] = field(default_factory=set)
    sockets: dict[int, str] = field(default_factory=dict)
    processes: list[Seen] = field(default_factory=list)
    config: RuntimeConfig | None = None


def find(facts: Facts, *, taken: Collection[str] = (), own_numbers: Collection[int] = ()) -> list[Foreign]:
    """Return the devices that the facts speak of.

    :param taken: names of devices of ours.
    :param own_numbers: instance numbers that devices of ours hold.
    """
    groups = _living(facts, own_numbers)
    known = {number for group in groups for number in group.numbers} | set(own_numbers)
    found = [(_up_state(group, facts), group) for group in groups]
    for home, (config, uid) in facts.configs.items():
        numbers = set(config.instances) - known
        if not numbers or any(group.home == home for group in groups):
            continue
        known |= numbers
        # Its sockets prove nothing: upstream leaves them behind at a regular stop too.
        left = any(number in facts.locks for number in numbers)
        found.append((State.STALE if left else State.STOPPED, _Group(uid, home, numbers, config=config)))
    for number, uid in sorted(facts.locks.items()):
        if number not in known:
            soon = facts.preparing or number in facts.held
            found.append((State.PREPARING if soon else State.STALE, _Group(uid, None, {number})))
    names = set(taken)
    devices = []
    for state, group in sorted(found, key=lambda entry: min(entry[1].numbers)):
        device = _device(state, group, names)
        names.add(device.name)
        devices.append(device)
    return devices


def _living(facts: Facts, own_numbers: Collection[int]) -> list[_Group]:
    """Return the devices of which something runs, one for each launch."""
    homes: dict[tuple[int, int], str] = {}
    for one in facts.processes:
        if one.home and one.seen.number is not None and one.seen.is_core:
            homes.setdefault((one.uid, one.seen.number), one.home)
    groups: dict[tuple[Any, ...], _Group] = {}

    def group(uid: int | None, number: int) -> _Group:
        home = homes.get((uid, number)) if uid is not None else None
        key = (uid, home) if home else (uid, number)
        made = groups.setdefault(key, _Group(uid, home))
        made.numbers.add(number)
        return made

    for path, uid in facts.sockets.items():
        match = SOCKET.fullmatch(path)
        number = int(match["number"]) if match else 0
        if 1 <= number <= MAX_INSTANCES and number not in own_numbers:
            group(uid, number).sockets[number] = path
    listening = {(made.uid, number) for made in groups.values() for number in made.sockets}
    for one in facts.processes:
        number = one.seen.number or 0
        # Of another user's VM it cannot be told whether it runs in a container: then a socket here must speak for it.
        sure = one.seen.env is not None or (one.uid, number) in listening
        if one.seen.is_core and sure and 1 <= number <= MAX_INSTANCES:
            group(one.uid, number)
    for made in groups.values():
        entry = facts.configs.get(made.home or "")
        made.config = entry[0] if entry else _config_of(made, facts)
        made.processes = [p.seen for p in facts.processes if p.uid == made.uid and _belongs(p, made)]
    return list(groups.values())


def _belongs(one: Process, group: _Group) -> bool:
    if one.home is not None and group.home is not None:
        return one.home == group.home
    return one.seen.is_core and one.seen.number in group.numbers


def _config_of(group: _Group, facts: Facts) -> RuntimeConfig | None:
    """Return the config of a device whose HOME may not be read: that of the same user with the same sockets."""
    for config, uid in facts.configs.values():
        if uid == group.uid and group.numbers <= set(config.instances):
            return config
    return None


def _up_state(group: _Group, facts: Facts) -> State:
    """Return the state of a device of which something runs."""
    directory = group.config.root if group.config else None
    if directory is None and group.home:
        directory = f"{group.home}/cuttlefish"
    listening = set(group.sockets) >= group.numbers
    booted = _all_booted(directory, group.numbers) if directory else None
    if booted is False:
        return State.BOOTING
    # Whose logs may not be read is up as far as anybody can tell: its supervisor answers.
    return State.RUNNING if listening else State.UNREACHABLE


def _all_booted(root: str, numbers: Iterable[int]) -> bool | None:
    """Tell whether the logs say that all instances have booted; None if they may not be read."""
    for number in numbers:
        logs = Path(root) / "instances" / f"cvd-{number}" / "logs"
        try:
            if not os.access(logs, os.R_OK | os.X_OK):
                return None
            files = [logs / "launcher.log", logs / "kernel.log"]
            if not any(boot.find(file, boot.PHASES[-1].tokens[0]) for file in files):
                return False
        except ValueError:
            return None
    return True


def _device(state: State, group: _Group, taken: Collection[str]) -> Foreign:
    envs = [seen.env for seen in group.processes if seen.env]
    mark = next((env[MARK] for env in envs if env.get(MARK)), None)
    package = next((env["ANDROID_HOST_OUT"] for env in envs if env.get("ANDROID_HOST_OUT")), "")
    numbers = tuple(sorted(group.numbers))
    if mark:
        source = "cfctl"
    elif any(env.get(_BY_CVD) == "true" for env in envs) or (group.home or "").startswith(_cvd_state()):
        source = "cvd"
    else:
        source = "launch_cvd" if group.home else "unknown"
    name = Path(mark).name if mark else f"cvd-{numbers[0]}"
    if not _NAME.fullmatch(name):
        name = f"cvd-{numbers[0]}"
    # Whose it is says more than that it is not ours; of this user's own there is nothing else to say.
    owner = "" if group.uid in (None, os.geteuid()) else user_name(group.uid)
    if name in taken and _NAME.fullmatch(f"{owner}-{name}"):
        name = f"{owner}-{name}"
    while name in taken:
        name = f"foreign-{name}"
    return Foreign(
        name=name,
        state=state,
        source=source,
        uid=group.uid,
        home=group.home,
        numbers=numbers,
        processes=tuple(group.processes),
        config=group.config,
        sockets=group.sockets,
        host_package=package,
    )


def _cvd_state() -> tuple[str, ...]:
    """Return what the homes begin with that cvd makes."""
    return tuple(f"{directory}/" for directory in paths.cvd_state_directories())
