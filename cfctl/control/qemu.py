"""What the table's operations are in QEMU's words (vm_control.md section 5).

Each takes a few short sessions with the monitor; where something has to be waited for, the monitor is let go between
two looks, so that a stop gets its turn.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from cfctl.control import keyboard, picture, qmp
from cfctl.control.displays import Display
from cfctl.control.faults import VmRefused, VmSilent, VmUnreachable
from cfctl.control.qmp import QmpFailed, QmpRefused
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from cfctl.control.operations import Operation
    from cfctl.control.target import VmTarget

#: Between two looks at what the guest does by and by.
_TICK_S = 0.1

#: The guest's balloon driver works in pages, and stops when it is near.
_NEAR_BYTES = 1 << 20

#: As launchers call them: upstream's (qemu_manager.cpp) and the embedded guest's.
_BALLOON = "/machine/peripheral/balloon0"
_USB_BUS = "xhci.0"

#: Devices that were attached here, by port: only these are taken away again.
_OURS = "cfctl-usb-"

#: A line of ``info usb``: bus and address, port, product and the device's id.
_USB_LINE = re.compile(r"\s*Device (\d+)\.(\d+), Port ([\d.]+), Speed [^,]*, Product (.*?)(?:, ID: (\S+))?\s*")

#: What is typed in one session; a longer text lets others have their turn in between.
_KEYS_AT_ONCE = 16
#: Between two keys: a guest's keyboard driver has few buffers, and what finds none is lost.
_KEY_S = 0.02

_BALLOON_STATS = {
    "stat-swap-in": "swap_in",
    "stat-swap-out": "swap_out",
    "stat-major-faults": "major_faults",
    "stat-minor-faults": "minor_faults",
    "stat-free-memory": "free_memory",
    "stat-total-memory": "total_memory",
    "stat-available-memory": "available_memory",
    "stat-disk-caches": "disk_caches",
    "stat-htlb-pgalloc": "hugetlb_allocations",
    "stat-htlb-pgfail": "hugetlb_failures",
}
#: What QEMU has for a number that the guest did not tell.
_NOT_TOLD = (1 << 64) - 1


async def perform(target: VmTarget, operation: Operation, *, seconds: float) -> dict[str, Any]:
    """Do one operation; the caller holds the VM's lock.

    :raises VmUnreachable, VmRefused, VmSilent: as :mod:`cfctl.control.faults` says.
    """
    work = _WORK[operation.name]
    try:
        async with asyncio.timeout(seconds):
            return await work(target, operation)
    except TimeoutError as exc:
        raise VmSilent(
            f"{' '.join(operation.spec.words)} on {target.name} did not end within {seconds:g} s",
            "What was begun may still be done.",
        ) from exc
    except QmpRefused as exc:
        needs = operation.spec.needs.get(target.manager)
        raise VmRefused(
            f"QEMU did not do {' '.join(operation.spec.words)} on {target.name}",
            exc.said,
            f"The device must have been launched with {needs}." if needs and exc.kind != "GenericError" else None,
            reply={"class": exc.kind, "desc": exc.said},
        ) from exc
    except QmpFailed as exc:
        if target.socket.exists():
            raise
        raise VmUnreachable(
            f"{target.name} has no VM that could be asked",
            f"{target.socket} is not there.",
            f"See what it does: cfctl status {target.name}",
        ) from exc


def _one(command: str) -> Callable[[VmTarget, Operation], Awaitable[dict[str, Any]]]:
    """Return the work that is one command without arguments."""

    async def work(target: VmTarget, _operation: Operation) -> dict[str, Any]:
        await qmp.execute(target.socket, command)
        return {}

    return work


# -- memory ------------------------------------------------------------------------------------------------


async def _balloon_stats(target: VmTarget, _operation: Operation) -> dict[str, Any]:
    stats: dict[str, int] = {}
    # The guest tells only while it is asked every so often, which is left off otherwise.
    try:
        await _poll_stats(target, 1)
        deadline = asyncio.get_running_loop().time() + 3
        while not stats and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_TICK_S)
            found = await qmp.execute(target.socket, "qom-get", path=_BALLOON, property="guest-stats")
            if found.get("last-update"):
                told = found["stats"]
                stats = {
                    name: told[key] for key, name in _BALLOON_STATS.items() if told.get(key, _NOT_TOLD) != _NOT_TOLD
                }
    except QmpRefused:
        pass  # It has another name, or there is none: the next command says so.
    finally:
        with contextlib.suppress(QmpFailed):
            await _poll_stats(target, 0)
    async with qmp.session(target.socket, "query-balloon") as talk:
        return {
            "balloon_bytes": await _memory(talk) - (await talk.execute("query-balloon"))["actual"],
            "stats": stats,
        }


async def _poll_stats(target: VmTarget, seconds: int) -> None:
    await qmp.execute(target.socket, "qom-set", path=_BALLOON, property="guest-stats-polling-interval", value=seconds)


async def _memory(talk: qmp.Session) -> int:
    found: int = (await talk.execute("query-memory-size-summary"))["base-memory"]
    return found


async def _balloon_set(target: VmTarget, operation: Operation) -> dict[str, Any]:
    async with qmp.session(target.socket, "balloon") as talk:
        wanted = await _memory(talk) - int(operation["bytes"])
        if wanted <= 0:
            raise UsageError(
                f"{target.name} has less memory than that", f"It has {wanted + operation['bytes']} bytes."
            )
        await talk.execute("balloon", value=wanted)
    while operation["wait"]:
        actual = (await qmp.execute(target.socket, "query-balloon"))["actual"]
        if abs(actual - wanted) <= _NEAR_BYTES:
            break
        await asyncio.sleep(_TICK_S)
    return {}


# -- disks, processors -------------------------------------------------------------------------------------


async def _disk_resize(target: VmTarget, operation: Operation) -> dict[str, Any]:
    async with qmp.session(target.socket, "block_resize") as talk:
        disks = [disk for disk in await talk.execute("query-block") if disk.get("inserted") and not disk["removable"]]
        if operation["index"] >= len(disks):
            raise UsageError(f"{target.name} has {len(disks)} disk(s), and the first is 0")
        disk = disks[operation["index"]]
        named = {"device": disk["device"]} if disk.get("device") else {"node-name": disk["inserted"]["node-name"]}
        await talk.request("block_resize", {**named, "size": operation["bytes"]})
    return {}


async def _vcpus(target: VmTarget, _operation: Operation) -> dict[str, Any]:
    async with qmp.session(target.socket, "query-cpus-fast") as talk:
        found = await talk.execute("query-cpus-fast")
        return {"vcpus": [{"index": c["cpu-index"], "pid": talk.pid, "tid": c["thread-id"]} for c in found]}


# -- USB ---------------------------------------------------------------------------------------------------


def usb_devices(text: str) -> list[dict[str, Any]]:
    """Return what ``info usb`` of QEMU's monitor for people tells: port, product, and the device's id."""
    found = []
    for line in text.splitlines():
        if match := _USB_LINE.fullmatch(line):
            port = match[3]
            found.append({"port": int(port.partition(".")[0]), "product": match[4], "id": match[5]})
    return found


async def _info_usb(talk: qmp.Session) -> list[dict[str, Any]]:
    text = await talk.request("human-monitor-command", {"command-line": "info usb"})
    # Failures of that monitor are text too.
    if "not available" in text or "not enabled" in text or "unknown command" in text:
        raise QmpRefused("info usb", "DeviceNotFound", text.strip().removeprefix("Error: "))
    return usb_devices(text)


async def _usb_list(target: VmTarget, _operation: Operation) -> dict[str, Any]:
    async with qmp.session(target.socket, "info usb") as talk:
        return {"devices": await _info_usb(talk)}


async def _usb_attach(target: VmTarget, operation: Operation) -> dict[str, Any]:
    _, bus, address = operation["path"].rsplit("/", 2)
    name = f"{_OURS}{bus}-{address}"
    host = {"hostbus": int(bus), "hostaddr": int(address)}
    async with qmp.session(target.socket, "device_add") as talk:
        await talk.request("device_add", {"driver": "usb-host", "id": name, "bus": _USB_BUS, **host})
        taken = [device for device in await _info_usb(talk) if device["id"] == name]
    if not taken:
        raise VmRefused(
            f"{operation['path']} was not attached to {target.name}", "QEMU does not list it.", reply=None
        )
    return {"port": taken[0]["port"]}


async def _usb_detach(target: VmTarget, operation: Operation) -> dict[str, Any]:
    async with qmp.session(target.socket, "device_del") as talk:
        there = [device for device in await _info_usb(talk) if device["port"] == operation["port"]]
        if not there:
            raise UsageError(f"{target.name} has nothing on USB port {operation['port']}")
        if not there[0]["id"]:
            raise UsageError(f"USB port {operation['port']} of {target.name} has a device that came with the VM")
        await talk.execute("device_del", id=there[0]["id"])
    return {"port": operation["port"]}


# -- keys --------------------------------------------------------------------------------------------------


#: What it says to a name that none of its keys has: older versions, and 7.2.
_UNKNOWN_KEY = re.compile(r"(?:Invalid parameter|does not accept value) '([^']*)'")


async def _key(target: VmTarget, operation: Operation) -> dict[str, Any]:
    keys = [{"type": "qcode", "data": key} for key in operation["keys"].split("-")]
    try:
        await qmp.execute(target.socket, "send-key", keys=keys, hold_time=operation["hold-ms"])
    except QmpRefused as error:
        # QEMU reads a whole command before it presses anything.
        if (unknown := _UNKNOWN_KEY.search(error.said)) is None:
            raise
        raise UsageError(
            f"QEMU knows no key {unknown[1]!r}",
            "Keys are called as in QEMU's QKeyCode: a, 1, ret, spc, ctrl, shift, alt, meta_l, f1, power, volumeup.",
        ) from error
    return {}


async def _text(target: VmTarget, operation: Operation) -> dict[str, Any]:
    strokes = keyboard.strokes(operation["text"])
    for first in range(0, len(strokes), _KEYS_AT_ONCE):
        async with qmp.session(target.socket, "input-send-event") as talk:
            for stroke in strokes[first : first + _KEYS_AT_ONCE]:
                await talk.execute("input-send-event", events=_events(stroke, down=True))
                await talk.execute("input-send-event", events=_events(stroke[::-1], down=False))
                await asyncio.sleep(_KEY_S)
    return {"keys": len(strokes)}


def _events(keys: tuple[str, ...], *, down: bool) -> list[dict[str, Any]]:
    return [{"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}} for key in keys]


# -- screens -----------------------------------------------------------------------------------------------


async def _display_list(target: VmTarget, _operation: Operation) -> dict[str, Any]:
    found: list[Display] = []
    with contextlib.suppress(QmpRefused):
        width, height = picture.size(await _dump(target, 0))
        found.append(Display(0, width, height, None, None))
    return {"displays": [display.as_dict() for display in found]}


async def _screenshot(target: VmTarget, operation: Operation) -> dict[str, Any]:
    png = await asyncio.to_thread(picture.png, await _dump(target, operation["display"]))
    return {"format": "png", "picture": base64.b64encode(png).decode()}


async def _dump(target: VmTarget, display: int) -> bytes:
    """Return what a display shows as PPM, which QEMU writes beside its sockets."""
    if display:
        raise UsageError(f"{target.name} has no display {display}", "QEMU shows its first one.")
    with scratch(target, ".ppm") as path:
        await qmp.execute(target.socket, "screendump", filename=target.as_the_vm_sees(path))
        return path.read_bytes()


@contextlib.contextmanager
def scratch(target: VmTarget, suffix: str) -> Iterator[Path]:
    """Give a path beside a VM's sockets that its processes write to; what is there at the end is deleted."""
    path = target.internal / f"cfctl-{secrets.token_hex(4)}{suffix}"
    try:
        yield path
    except OSError as exc:
        raise CfctlError(f"{path} cannot be read", exc.strerror) from exc
    finally:
        path.unlink(missing_ok=True)


# -- raw ---------------------------------------------------------------------------------------------------


async def _raw(target: VmTarget, operation: Operation) -> dict[str, Any]:
    request = json.loads(operation["request"])
    if not isinstance(request, dict) or not isinstance(request.get("execute"), str):
        raise UsageError("a raw request of QEMU's names a command", 'For example: {"execute": "query-status"}')
    arguments = request.get("arguments", {})
    if not isinstance(arguments, dict):
        raise UsageError("the arguments of a raw request are an object")
    async with qmp.session(target.socket, request["execute"]) as talk:
        return {"reply": await talk.request(request["execute"], arguments)}


_WORK = {
    "suspend": _one("stop"),
    "resume": _one("cont"),
    "powerbtn": _one("system_powerdown"),
    "balloon.stats": _balloon_stats,
    "balloon.set": _balloon_set,
    "usb.list": _usb_list,
    "usb.attach": _usb_attach,
    "usb.detach": _usb_detach,
    "disk.resize": _disk_resize,
    "vcpus": _vcpus,
    "key": _key,
    "text": _text,
    "display.list": _display_list,
    "display.screenshot": _screenshot,
    "raw": _raw,
}

#: What QEMU can be asked for; a test holds it equal to the table.
NAMES = frozenset(_WORK)
