"""Devices that upstream's ``cvd`` made: shown beside ours, and stopped through ``cvd``, whose database they are in.

They are found by what cvd puts into the environment of all that it starts (launcher.md section 1); nothing of them is
remembered here. Each is called ``cvd:N`` after its first number, a name that no device of ours can have.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import paths, process, steps
from cfctl.errors import CfctlError, NoSuchDevice
from cfctl.instance import MAX_INSTANCES
from cfctl.launch import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The mark of a launch by cvd.
_MARK = "_STARTED_BY_CVD_SERVER_"

_NAME = re.compile(r"cvd:[1-9]\d{0,2}")

#: Longer than any stop that was seen; cvd's own default of 5 s kills what is still closing (launcher.md T4).
_STOP_S = 60


class CvdRecord(registry.Record, kw_only=True):
    """A device of cvd's, as far as it can be known from outside.

    :param directory: the group's home.
    """

    directory: str

    @property
    def home(self) -> Path:
        """The group's home, which cvd has chosen."""
        return Path(self.directory)

    @property
    def runtime(self) -> str:
        """What runs it."""
        return "cvd"


def is_name(name: str) -> bool:
    """Tell whether a name is one of cvd's devices."""
    return bool(_NAME.fullmatch(name))


def records(environments: Mapping[int, Mapping[str, str]]) -> list[CvdRecord]:
    """Return this user's devices of cvd's.

    :param environments: of all processes, by their ids.
    """
    homes: dict[str, dict[int, int]] = {}
    hosts: dict[str, str] = {}
    for pid, env in environments.items():
        home, number = env.get("HOME", ""), env.get("CUTTLEFISH_INSTANCE", "")
        if env.get(_MARK) != "true" or not home.startswith("/") or not number.isdecimal() or not _is_ours(pid):
            continue
        if 1 <= int(number) <= MAX_INSTANCES:
            homes.setdefault(home, {}).setdefault(int(number), pid)
            hosts[home] = env.get("ANDROID_HOST_OUT", "")
    return [_record(home, numbers, hosts[home]) for home, numbers in sorted(homes.items())]


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    return False


def _record(home: str, pids: Mapping[int, int], host_package: str) -> CvdRecord:
    numbers = tuple(sorted(pids))
    started = registry.now()
    with contextlib.suppress(OSError):
        seconds = Path(f"/proc/{pids[numbers[0]]}").stat().st_mtime
        started = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return CvdRecord(
        name=f"cvd:{numbers[0]}",
        owner=registry.owner(),
        created_at=started,
        started_at=started,
        request=registry.Request(host_package=host_package, num_instances=len(numbers)),
        numbers=numbers,
        gpu_mode=gpu_mode(Path(home) / ".cuttlefish_config.json", numbers[0]),
        gpu_reason="chosen by cvd",
        directory=home,
    )


def gpu_mode(config: Path, number: int) -> str:
    """Return the GPU mode that a launcher's config names for an instance; empty if it cannot be read."""
    mode: Any = None
    with contextlib.suppress(OSError, msgspec.DecodeError, LookupError, TypeError):
        mode = msgspec.json.decode(config.read_bytes())["instances"][str(number)]["gpu_mode"]
    return mode if isinstance(mode, str) else ""


def find(name: str, environments: Mapping[int, Mapping[str, str]]) -> CvdRecord:
    """Return one of cvd's devices.

    :raises NoSuchDevice: if there is none of that name.
    """
    known = records(environments)
    for record in known:
        if record.name == name:
            return record
    raise NoSuchDevice(name, [record.name for record in [*registry.load_all(), *known]])


def ask_to_stop(record: CvdRecord) -> list[str]:
    """Let cvd stop a device, so that its database says so too. Whether it did is for the caller to look at.

    :return: what was unusual.
    """
    cvd = _program(record)
    if cvd is None:
        return ["There is no cvd on this host that could stop it; its database will still call it running."]
    said = []
    try:
        group = _group(cvd, record)
        selector = [f"--group_name={group}"] if group else []
        steps.note(f"{record.name}: asking {cvd} to stop {f'group {group}' if group else 'it'} ...")
        done = process.run(
            [cvd, *selector, "stop", f"--wait_for_launcher={_STOP_S}"], timeout=_STOP_S + 30, success=None
        )
        if done.returncode:
            said.append(f"cvd stop ended with status {done.returncode}: {last_line(done.stderr)}")
    except CfctlError as error:
        said.append(f"cvd stop failed: {error.brief}.")
    return said


def last_line(text: str) -> str:
    """Return the last line with something in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _program(record: CvdRecord) -> Path | None:
    """Return the cvd that belongs to a device: its package's own, the distribution's, or whatever is on PATH."""
    places = [Path(record.request.host_package or "/") / "bin/cvd", paths.DEBIAN_PACKAGE / "bin/cvd"]
    return next((place for place in places if os.access(place, os.X_OK)), process.find("cvd"))


def _group(cvd: Path, record: CvdRecord) -> str | None:
    """Ask cvd for the group of a device; None if it does not say."""
    fleet = process.run([cvd, "fleet"], timeout=_STOP_S, success=None).stdout
    ports = {instance.adb_port for instance in record.instances}
    return next((name for name, found in groups(fleet) if found & ports), None)


def groups(fleet: str) -> Iterator[tuple[str, set[int]]]:
    """Yield the groups that ``cvd fleet`` printed, with the ADB ports of each; nothing from what is no such text."""
    start = fleet.find("{")
    try:
        document = msgspec.json.decode(fleet[start:] if start >= 0 else "")
    except msgspec.DecodeError:
        return
    listed = document.get("groups") if isinstance(document, dict) else None
    for group in listed if isinstance(listed, list) else []:
        if isinstance(group, dict) and isinstance(name := group.get("group_name"), str):
            yield name, set(_ports(group.get("instances")))


def _ports(instances: object) -> Iterator[int]:
    for instance in instances if isinstance(instances, list) else []:
        if not isinstance(instance, dict):
            continue
        if isinstance(port := instance.get("adb_port"), int):
            yield port
        # "0.0.0.0:6520" before 2026, "127.0.0.1:6520" since (launcher.md T9): only the port counts.
        tail = str(instance.get("adb_serial", "")).rpartition(":")[2]
        if tail.isdecimal() and len(tail) <= 5:
            yield int(tail)
