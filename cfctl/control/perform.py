"""One way to ask a VM for anything of the table, whoever asks and whatever runs the VM.

Where run_cvd has an action, run_cvd is asked: else it would go on believing what it last did itself
(vm_control.md section 4.2). It has none for a VM of QEMU's unless it is the embedded guest's; then the VM is asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.control import crosvm, launcher_actions, launcher_monitor, operations, qemu, vm_lock, waiting
from cfctl.control.launcher_monitor import MonitorRefused
from cfctl.control.operations import Manager
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from cfctl.control.launcher_actions import Extended
    from cfctl.control.operations import Operation
    from cfctl.control.target import VmTarget


async def perform(target: VmTarget, operation: Operation, *, seconds: float | None = None) -> dict[str, Any]:
    """Do an operation of the table.

    :param seconds: how long it may take, waiting for others included; None is as the table says.
    :return: what came of it, for ``--json``.
    :raises UsageError: for a value that this VM cannot have; nothing was done.
    :raises VmCannot: if the VM manager cannot do it; nothing was sent to it.
    :raises VmBusy: if others ask the VM something all the time; nothing was sent.
    :raises VmUnreachable: if the VM is not there.
    :raises VmRefused, MonitorRefused, QmpFailed: if it was not done.
    :raises VmSilent, DeadlinePassed: if there was no answer; whether it is done is not known.
    """
    check(target, operation)
    loop = asyncio.get_running_loop()
    seconds = operation.spec.seconds if seconds is None else seconds
    deadline = loop.time() + seconds
    async with vm_lock.held(target, seconds=seconds):
        left = max(deadline - loop.time(), 0.1)
        if await _by_run_cvd(target, operation, left):
            return {}
        if operation.name == "display.screenshot":
            return await _screenshot(target, operation, deadline)
        work = crosvm.perform if target.manager is Manager.CROSVM else qemu.perform
        return await work(target, operation, seconds=max(deadline - loop.time(), 0.1))


def check(target: VmTarget, operation: Operation) -> None:
    """See that an operation can be asked for at all.

    :raises VmCannot: if the VM manager cannot do it.
    :raises UsageError: if a raw request is no JSON.
    """
    if error := operations.refusal(operation.spec, target.manager, target.name):
        raise error
    if operation.name == "raw":
        try:
            json.loads(operation["request"])
        except (ValueError, RecursionError) as exc:
            raise UsageError("the request is not JSON", str(exc)) from exc


async def _by_run_cvd(target: VmTarget, operation: Operation, seconds: float) -> bool:
    """Ask run_cvd, where it has an action and is there; return whether it has done it."""
    action = launcher_actions.BY_NAME.get(operation.name)
    return action is not None and await _asked(target, action, seconds)


async def _asked(target: VmTarget, action: Extended, seconds: float) -> bool:
    if not target.monitor.exists():
        return False
    try:
        # A client that closes before its answer kills the VM of older launchers (launcher.md section 15).
        await waiting.to_its_end(launcher_actions.ask(target.monitor, action, seconds=seconds))
    except MonitorRefused:
        # A VM of crosvm's that run_cvd could not suspend must not be suspended behind its back.
        if target.manager is Manager.CROSVM and launcher_monitor.listening(target.monitor):
            raise
        return False
    return True


async def _screenshot(target: VmTarget, operation: Operation, deadline: float) -> dict[str, Any]:
    """Have a display's picture made: by run_cvd's streamer, or by QEMU."""
    left = max(deadline - asyncio.get_running_loop().time(), 0.1)
    number = operation["display"]
    with qemu.scratch(target, ".png") as path:
        action = launcher_actions.screenshot(number, Path(target.as_the_vm_sees(path)))
        if await _asked(target, action, left):
            return {"format": "png", "picture": base64.b64encode(path.read_bytes()).decode()}
    if target.manager is Manager.CROSVM:
        raise CfctlError(
            f"{target.name} has no run_cvd that could take a picture", "crosvm cannot: the streamer has the pictures."
        )
    return await qemu.perform(target, operation, seconds=left)
