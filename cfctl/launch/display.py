"""The displays of a device: what there is, more of them or fewer, and what one shows.

Upstream's program ends with status 0 even when crosvm refuses (launcher.md section 8), so what it did is looked at
afterwards. Displays come and go only where the VM manager can do that while a guest runs: crosvm.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.control import launcher_actions
from cfctl.control.displays import Display, read
from cfctl.control.faults import VmCannot
from cfctl.control.launcher_monitor import MonitorRefused
from cfctl.control.operations import Manager
from cfctl.errors import CfctlError, UsageError
from cfctl.launch import census, lifecycle, manage, tools, vm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.control.target import VmTarget
    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

ANSWER_S = 15.0
SCREENSHOT_S = 30.0

#: crosvm's limit of scanouts (vm_control.md section 1.4).
_MOST = 16
_SUFFIXES = (".png", ".jpg", ".webp")


def displays(target: str) -> list[Display]:
    """Return the displays of an instance.

    :param target: ``NAME`` or ``NAME/2``.
    :raises NotRunning: if the device is not running.
    :raises HostLacks: if the host package has no program for it.
    :raises CfctlError: if it does not say.
    """
    with _opened(target) as (record, instance):
        return _displays(record, instance)


def add(target: str, width: int, height: int, *, dpi: int = 320, refresh_rate_hz: int = 60) -> list[Display]:
    """Add a display to an instance; return all that it has then.

    :raises VmCannot: if the VM manager cannot; nothing was asked of it.
    :raises CfctlError: if it did not.
    """
    if min(width, height, dpi, refresh_rate_hz) < 1:
        raise UsageError("width, height, dpi and refresh rate must be 1 or more")
    with _opened(target) as (record, instance):
        target_vm = _require_hotplug(record, instance, "add")
        before = _displays(record, instance)
        if len(before) >= _MOST:
            raise UsageError(f"{target} has {len(before)} displays, and a VM can have {_MOST}")
        if target_vm is not None:
            values = {"width": width, "height": height, "dpi": dpi, "refresh-rate": refresh_rate_hz}
            vm.simple(target_vm, "display.add", **values)
            return _displays(record, instance)
        words = f"--display=width={width},height={height},dpi={dpi},refresh_rate_hz={refresh_rate_hz}"
        said = _tool(record, instance, "add", words)
        after = _displays(record, instance)
        if len(after) <= len(before):
            raise CfctlError(f"no display was added to {target}", said or "The host package's program said nothing.")
        return after


def remove(target: str, number: int) -> list[Display]:
    """Remove a display from an instance; return all that it has then.

    :raises VmCannot, UsageError: if the VM manager cannot, or there is no such display; nothing was asked of it.
    :raises CfctlError: if it did not.
    """
    with _opened(target) as (record, instance):
        target_vm = _require_hotplug(record, instance, "remove")
        _require(target, _displays(record, instance), number)
        if target_vm is not None:
            vm.simple(target_vm, "display.remove", display=number)
            return _displays(record, instance)
        said = _tool(record, instance, "remove", f"--display={number}")
        after = _displays(record, instance)
        if any(display.id == number for display in after):
            raise CfctlError(
                f"display {number} of {target} was not removed", said or "The host package's program said nothing."
            )
        return after


def screenshot(target: str, path: Path, *, number: int = 0, seconds: float = SCREENSHOT_S) -> int:
    """Save what a display shows; run_cvd writes the file.

    :param path: absolute, with the ending png, jpg or webp; a file that is there is replaced.
    :return: the size of the picture in bytes.
    :raises UsageError: for another ending or a directory that is not there.
    :raises CfctlError: if no picture came of it.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path.name}: a screenshot ends in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written", f"{path.parent} is not yours to write to.")
    with _opened(target) as (record, instance):
        if number and tools.find(record, tools.DISPLAY):
            _require(target, _displays(record, instance), number)
        before = _stamp(path)
        try:
            lifecycle.ask(record, instance, launcher_actions.screenshot(number, path), seconds=seconds)
        except MonitorRefused:
            # Upstream's run_cvd has no pictures without its streamer; QEMU has its own.
            found = vm.find(record, instance)
            if found is None or found.manager is not Manager.QEMU or path.suffix.lower() != ".png":
                raise
            taken = vm.simple(found, "display.screenshot", display=number, seconds=seconds)
            try:
                path.write_bytes(base64.b64decode(taken["picture"]))
            except OSError as exc:
                raise CfctlError(f"{path} cannot be written", exc.strerror) from exc
    if (after := _stamp(path)) is None or after == before or not after[1]:
        raise CfctlError(f"{path} was not written", "run_cvd said that it had done it.")
    return after[1]


def picture(target: str, *, number: int = 0, seconds: float = SCREENSHOT_S) -> bytes:
    """Return what a display shows, as a PNG.

    :raises CfctlError: if no picture came of it.
    """
    with tempfile.TemporaryDirectory(prefix="cfctl-") as directory:
        path = Path(directory) / "screen.png"
        screenshot(target, path, number=number, seconds=seconds)
        return path.read_bytes()


def parse(raw: str) -> list[Display]:
    """Read crosvm's list of displays (vm_control.md section 1.3).

    :raises ValueError: if it is none.
    """
    return read(json.loads(raw))


# -- the program ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(target: str) -> Iterator[tuple[Record, Instance]]:
    """Hold a running device for the block, and give its record and the instance."""
    name, position = manage.target(target)
    with census.opened(name) as record:
        yield record, lifecycle.instance_up(record, position)


def _displays(record: Record, instance: Instance) -> list[Display]:
    found = vm.find(record, instance)
    # crosvm knows best; QEMU knows less of its screens than the launcher has written down.
    if found is not None and (found.manager is Manager.CROSVM or tools.find(record, tools.DISPLAY) is None):
        return [Display(**display) for display in vm.simple(found, "display.list")["displays"]]
    said = _tool(record, instance, "list")
    try:
        return parse(said)
    except (ValueError, TypeError) as exc:
        raise CfctlError(f"{instance.id} does not tell its displays", f"{exc}: {said[-500:] or 'nothing'}") from exc


def _tool(record: Record, instance: Instance, *words: str) -> str:
    tool = tools.require(record, tools.DISPLAY)
    done = tools.run(record, instance, tool, *words, f"--instance_num={instance.number}", seconds=ANSWER_S)
    return done.stdout.strip() or done.stderr.strip()


def _require_hotplug(record: Record, instance: Instance, what: str) -> VmTarget | None:
    """Return the VM, if displays can come and go; None if only the host package's program reaches it.

    :raises VmCannot: if they cannot.
    """
    found = vm.find(record, instance)
    manager = found.manager if found else tools.vm_manager(record)
    if manager != Manager.CROSVM:
        raise VmCannot(
            f"the VM manager of {record.name} ({manager or 'unknown'}) cannot {what} displays while a guest runs",
            "Only crosvm can. Nothing was changed.",
            "Give the displays at the launch: cfctl launch NAME -- --display0=width=1280,height=800",
        )
    return found


def _require(target: str, found: list[Display], number: int) -> None:
    if not any(display.id == number for display in found):
        numbers = ", ".join(str(display.id) for display in found) or "none"
        raise UsageError(f"{target} has no display {number}", f"Displays: {numbers}.")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written: its time, its size, and which file it is."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
