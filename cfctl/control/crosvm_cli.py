"""crosvm's own command line as data: what to run for an operation, and what its output means.

The running VM's own program is of the VM's age, so it is asked before the protocol is spoken. Its exit status 0 means
success for some subcommands only: those that deal with a battery, a GPU or USB print whatever came back and end with
0 (vm_control.md section 1.6). What it printed becomes the reply that it stands for, so that one reader serves both.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cfctl.control.crosvm_protocol import Word

if TYPE_CHECKING:
    from cfctl.control.crosvm_protocol import Age
    from cfctl.control.operations import Operation

#: crosvm's exit status for arguments that it does not know: it is of another age than was thought.
BAD_ARGUMENTS = 35

_ERRNO = re.compile(r"\(os error (\d{1,4})\)")
_USB_OK = re.compile(r"ok (\d{1,3})")

#: What a battery that was set is answered with, and one that is not there.
_BATTERY = {"Setting battery property successfully": "Ok", "No battery device created": "NoBatDevice"}

_PLAIN = {
    "powerbtn": ("powerbtn",),
    "sleepbtn": ("sleepbtn",),
    "balloon.stats": ("balloon_stats",),
    "usb.list": ("usb", "list"),
    "swap.status": ("swap", "status"),
    "swap.enable": ("swap", "enable"),
    "swap.trim": ("swap", "trim"),
    "swap.out": ("swap", "out"),
    "display.list": ("gpu", "list-displays"),
}
_BATTERY_WORDS = {"ac": "aconline", "fake": "set_fake_bat_config", "cancel-fake": "cancel_fake_bat_config"}


def arguments(operation: Operation, age: Age, socket: str) -> list[str] | None:
    """Return the arguments of crosvm for an operation; None if its command line has none for it, at this age."""
    name, values = operation.name, operation.values
    if name in _PLAIN:
        return [*_PLAIN[name], socket]
    if name in ("suspend", "resume"):
        if (full := age.knows(Word.FULL_SUSPEND)) is None:
            return None
        return [name, socket, *(["--full"] if full else [])]
    if name == "balloon.working-set":
        if (now := age.knows(Word.WORKING_SET)) is None:
            return None
        return ["balloon_ws" if now else "balloon_wss", socket]
    if name == "balloon.set":
        if values["wait"] and not age.knows(Word.BALLOON_WAIT):
            return None
        return ["balloon", str(values["bytes"]), socket, *(["--wait"] if values["wait"] else [])]
    if name == "usb.attach":
        # The first word is read and not used.
        return ["usb", "attach", "0:0:0:0", values["path"], socket]
    if name == "usb.detach":
        return ["usb", "detach", str(values["port"]), socket]
    if name == "disk.resize":
        return ["disk", "resize", str(values["index"]), str(values["bytes"]), socket]
    if name == "swap.disable":
        return ["swap", "disable", *(["--slow-file-cleanup"] if values["slow-file-cleanup"] else []), socket]
    if name == "display.add":
        mode = f"mode=windowed[{values['width']},{values['height']}]"
        rest = f"dpi=[{values['dpi']},{values['dpi']}],refresh-rate={values['refresh-rate']}"
        return ["gpu", "add-displays", "--gpu-display", f"{mode},{rest}", socket]
    if name == "display.remove":
        return ["gpu", "remove-displays", "--display-id", str(values["display"]), socket]
    if name.startswith("battery."):
        what = name.partition(".")[2]
        return ["battery", "goldfish", _BATTERY_WORDS.get(what, what), _battery(values), socket]
    return None


def _battery(values: Any) -> str:
    """Return the only value of a battery's operation; what has none is given a word that is not read."""
    (value,) = values.values() or ("0",)
    return str(int(value)) if isinstance(value, bool) else str(value)


def reply(operation: Operation, status: int, stdout: str, stderr: str) -> Any:
    """Return the reply that crosvm's command line stands for by its exit status and what it printed."""
    text = stdout.strip()
    if operation.name.startswith(("balloon.stats", "balloon.working-set")):
        # The whole reply as JSON, errors too, which also end with status 1.
        if (found := _json(text)) is not None:
            return found
    elif status == 0:
        found = _printed(operation, text)
        return {"ErrString": text or stderr.strip() or "nothing"} if found is None else found
    if match := _ERRNO.search(text) or _ERRNO.search(stderr):
        return {"Err": int(match[1])}
    return {"ErrString": text or stderr.strip() or f"it ended with status {status}"}


def _printed(operation: Operation, text: str) -> Any:
    """Return the reply behind what was printed with exit status 0; None if it is no success."""
    name = operation.name
    if name.startswith("battery."):
        return {"BatResponse": _BATTERY[text]} if text in _BATTERY else None
    if name == "usb.list":
        return _usb_list(text)
    if name in ("usb.attach", "usb.detach"):
        return {"UsbResponse": {"Ok": {"port": int(match[1])}}} if (match := _USB_OK.fullmatch(text)) else None
    if name == "display.list":
        return None if (found := _json(text)) is None else {"GpuResponse": {"DisplayList": found}}
    if name.startswith("display."):
        return {"GpuResponse": "DisplaysUpdated"} if text == "displays updated" else None
    if name == "swap.status":
        found = _json(text)
        return found if found is None or "SwapStatus" in found else {"SwapStatus": found}
    return "Ok"


def _usb_list(text: str) -> Any:
    words = text.split()
    if not words or words[0] != "devices" or len(words) % 3 != 1:
        return None
    try:
        found = [
            {"port": int(port), "vendor_id": int(vendor, 16), "product_id": int(product, 16)}
            for port, vendor, product in zip(words[1::3], words[2::3], words[3::3], strict=True)
        ]
    except ValueError:
        return None
    return {"UsbResponse": {"Devices": found}}


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
