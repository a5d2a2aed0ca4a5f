"""Asking upstream's ``cvd`` to stop a device that it made, so that its database says so too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import paths, process, steps
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.launch.foreign import ForeignRecord

#: Longer than any stop that was seen; cvd's own default of 5 s kills what is still closing (launcher.md T4).
_STOP_S = 60


def ask_to_stop(record: ForeignRecord) -> list[str]:
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


def _program(record: ForeignRecord) -> Path | None:
    """Return the cvd that belongs to a device: its package's own, the distribution's, or whatever is on PATH."""
    places = [Path(record.request.host_package or "/") / "bin/cvd", paths.DEBIAN_PACKAGE / "bin/cvd"]
    return next((place for place in places if os.access(place, os.X_OK)), process.find("cvd"))


def _group(cvd: Path, record: ForeignRecord) -> str | None:
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
