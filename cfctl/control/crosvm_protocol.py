"""crosvm's control protocol as data: what is sent for an operation, by the age of crosvm, and what comes back.

The protocol is crosvm's own JSON, one value a packet, and carries no version (vm_control.md section 1). It changed
over the years, and crosvm answers nothing at all to a request that it does not know. So the age is read from the
words that a crosvm knows: they are in its program (section 1.7, way 2), and where that cannot be read, both forms
are tried, the newer first. Fields that were only added are always sent: older ones ignore what they do not know.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cfctl.control import displays
from cfctl.control.faults import VmRefused
from cfctl.control.operations import BATTERY_HEALTH, BATTERY_STATUS, USB_PORTS, Manager

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cfctl.control.operations import Operation


class Word(StrEnum):
    """Words that came with a change of the protocol (vm_control.md section 1.7)."""

    #: 2023-06-27: Suspend became SuspendVcpus, and SuspendVm came.
    FULL_SUSPEND = "SuspendVm"
    #: 2023-07-05: Swap Disable became a struct.
    SWAP_DISABLE = "slow_file_cleanup"
    #: 2023-08-01: working set size (WSS) became working set (WS).
    WORKING_SET = "BalloonWS"
    OLD_WORKING_SET = "BalloonWSS"
    #: 2023-08-16: a balloon can be waited for.
    BALLOON_WAIT = "wait_for_success"
    #: 2022-10-11.
    ADD_DISPLAYS = "AddDisplays"
    REMOVE_DISPLAYS = "RemoveDisplays"
    #: 2024-07-25.
    VCPUS = "VcpuPidTid"
    #: 2024-10-29.
    FAKE_BATTERY = "SetFakeBatConfig"


#: In every crosvm with a control socket since 2021: a program without it is none, or hides its words.
_ANY_AGE = b"BalloonCommand"

_WORDS = frozenset((*(word.encode() for word in Word), _ANY_AGE))
_LONGEST_WORD = max(map(len, _WORDS))


@dataclass(frozen=True, slots=True)
class Age:
    """What a crosvm understands.

    :param words: those of :class:`Word` that it knows; None if nobody could tell.
    """

    words: frozenset[str] | None = None

    def knows(self, word: str) -> bool | None:
        """Tell whether it knows a word; None if that cannot be told."""
        return None if self.words is None else word in self.words


UNKNOWN = Age()


def age_of(chunks: Iterable[bytes]) -> Age:
    """Return the age of a crosvm from its program's bytes, piece by piece."""
    found: set[bytes] = set()
    end = b""
    for chunk in chunks:
        text = end + chunk
        found |= {word for word in _WORDS - found if word in text}
        # A word may lie across two pieces.
        end = text[-_LONGEST_WORD:]
    if _ANY_AGE not in found:
        return UNKNOWN
    if Word.OLD_WORKING_SET.encode() in found:
        # It has the newer word in it.
        found.discard(Word.WORKING_SET.encode())
    return Age(frozenset(word.decode() for word in found) & {word.value for word in Word})


@dataclass(frozen=True, slots=True)
class Request:
    """One packet.

    :param body: the JSON value.
    :param opens: a file whose descriptor goes with it.
    """

    body: Any
    opens: str | None = None

    @property
    def packet(self) -> bytes:
        """What is sent: compact, as serde writes it."""
        return json.dumps(self.body, separators=(",", ":"), ensure_ascii=False).encode()


# -- requests ----------------------------------------------------------------------------------------------

_PLAIN: Mapping[str, Any] = {
    "powerbtn": "Powerbtn",
    "sleepbtn": "Sleepbtn",
    "balloon.stats": {"BalloonCommand": "Stats"},
    "usb.list": {"UsbCommand": {"ListDevice": {"ports": list(range(USB_PORTS))}}},
    "swap.status": {"Swap": "Status"},
    "swap.enable": {"Swap": "Enable"},
    "swap.trim": {"Swap": "Trim"},
    "swap.out": {"Swap": "SwapOut"},
    "vcpus": "VcpuPidTid",
    "display.list": {"GpuCommand": "ListDisplays"},
}

#: By operation: the word that the newer form came with, the newer form, and the older one.
_RENAMED: Mapping[str, tuple[Word, Any, Any]] = {
    "suspend": (Word.FULL_SUSPEND, "SuspendVm", "Suspend"),
    "resume": (Word.FULL_SUSPEND, "ResumeVm", "Resume"),
    "balloon.working-set": (
        Word.WORKING_SET,
        {"BalloonCommand": "WorkingSet"},
        {"BalloonCommand": "WorkingSetSize"},
    ),
}

#: Of which words an operation that cannot be done at every age needs one.
NEEDED: Mapping[str, tuple[Word, ...]] = {
    "vcpus": (Word.VCPUS,),
    "balloon.working-set": (Word.WORKING_SET, Word.OLD_WORKING_SET),
    "display.add": (Word.ADD_DISPLAYS,),
    "display.list": (Word.ADD_DISPLAYS,),
    "display.remove": (Word.REMOVE_DISPLAYS,),
    "battery.fake": (Word.FAKE_BATTERY,),
    "battery.cancel-fake": (Word.FAKE_BATTERY,),
}


def too_old(operation: Operation, age: Age) -> bool:
    """Tell whether a crosvm of a known age cannot be asked for an operation."""
    words = NEEDED.get(operation.name, ())
    return bool(words) and age.words is not None and not age.words.intersection(words)


def requests(operation: Operation, age: Age) -> list[Request]:
    """Return what to send for an operation: one form, or where the age is not known, each, the likelier first.

    Whoever gets no answer to one sends the next: a crosvm that does not know a request does nothing on it.
    """
    name = operation.name
    if name in _PLAIN:
        return [Request(_PLAIN[name])]
    if name in _RENAMED:
        return _forms(age, *_RENAMED[name])
    if name == "swap.disable":
        newer = {"Swap": {"Disable": {"slow_file_cleanup": operation["slow-file-cleanup"]}}}
        return _forms(age, Word.SWAP_DISABLE, newer, {"Swap": "Disable"})
    if name == "raw":
        return [Request(json.loads(operation["request"]))]
    if name == "usb.attach":
        # Older ones (before 2022-06-17) need the four numbers, which they only log.
        old = {"bus": 0, "addr": 0, "vid": 0, "pid": 0}
        return [Request({"UsbCommand": {"AttachDevice": {"file": 0, **old}}}, operation["path"])]
    return [Request(_built(operation))]


def _forms(age: Age, word: Word, newer: Any, older: Any) -> list[Request]:
    known = age.knows(word)
    forms = [newer, older] if known is None else [newer if known else older]
    return [Request(form) for form in forms]


def _built(operation: Operation) -> Any:
    """Return the request of an operation with values that was never renamed."""
    name, values = operation.name, operation.values
    if name == "balloon.set":
        return {"BalloonCommand": {"Adjust": {"num_bytes": values["bytes"], "wait_for_success": values["wait"]}}}
    if name == "usb.detach":
        return {"UsbCommand": {"DetachDevice": {"port": values["port"]}}}
    if name == "disk.resize":
        resize = {"Resize": {"new_size": values["bytes"]}}
        return {"DiskCommand": {"disk_index": values["index"], "command": resize}}
    if name == "display.add":
        # `dpi` is never left out: crosvm of 2022-11 to 2025-11 panics without it.
        mode = {"windowed": [values["width"], values["height"]]}
        display = {"mode": mode, "hidden": False, "refresh-rate": values["refresh-rate"], "dpi": [values["dpi"]] * 2}
        return {"GpuCommand": {"AddDisplays": {"displays": [display]}}}
    if name == "display.remove":
        return {"GpuCommand": {"RemoveDisplays": {"display_ids": [values["display"]]}}}
    if name.startswith("battery."):
        return {"BatCommand": ["goldfish", _battery(name.partition(".")[2], values)]}
    raise KeyError(name)


def _battery(name: str, values: Mapping[str, Any]) -> Any:
    if name == "status":
        return {"SetStatus": BATTERY_STATUS[values["status"]]}
    if name == "health":
        return {"SetHealth": BATTERY_HEALTH[values["health"]]}
    if name == "present":
        return {"SetPresent": int(values["present"])}
    if name == "capacity":
        return {"SetCapacity": values["percent"]}
    if name == "ac":
        return {"SetACOnline": int(values["online"])}
    if name == "fake":
        return {"SetFakeBatConfig": values["percent"]}
    return "CancelFakeConfig"


# -- replies -----------------------------------------------------------------------------------------------

#: Why crosvm answers an operation with an error (vm_control.md section 1.5): by operation or its first word.
_WHY: Mapping[tuple[str, int], str] = {
    ("powerbtn", errno.EOPNOTSUPP): "This VM has no ACPI power management; ARM's and RISC-V's never have.",
    ("sleepbtn", errno.EOPNOTSUPP): "This VM has no ACPI power management; ARM's and RISC-V's never have.",
    ("resume", errno.EINVAL): "Its devices sleep: it was suspended in another way.",
    ("balloon", errno.EOPNOTSUPP): "This VM has no balloon.",
    ("balloon", errno.ENOTCONN): "The guest's balloon driver is not active.",
    ("disk", errno.ENODEV): "There is no disk of that index.",
    ("display", errno.EIO): "This VM's GPU is not in crosvm's own process, or it has none.",
    ("usb", errno.ENODEV): "This crosvm was built without USB.",
    ("usb", errno.EIO): "This VM has no USB.",
    ("battery", errno.EINVAL): "This VM's battery is of another type.",
    ("swap", errno.EOPNOTSUPP): "This VM cannot be swapped out.",
}

_NESTED_WHY: Mapping[str, str] = {
    "NoBatDevice": "This VM has no battery.",
    "NoAvailablePort": "All USB ports are taken.",
    "NoSuchPort": "There is nothing on that port.",
    "NoSuchDevice": "There is no such USB device.",
    "FailedToOpenDevice": "The USB device could not be opened.",
    "FailedToInitHostDevice": "The USB device could not be set up.",
}


def parse(packet: bytes) -> Any:
    """Return the value of a reply; text that is no JSON stays a text, so that nothing is lost."""
    try:
        return json.loads(packet)
    except (ValueError, RecursionError):
        return packet.decode(errors="replace")


def result(operation: Operation, reply: Any, name: str) -> dict[str, Any]:
    """Return what came of an operation.

    :param reply: crosvm's, parsed.
    :param name: the device, for people.
    :raises VmRefused: if it was not done; also for a reply that is not understood, which is kept in it.
    """
    if operation.name == "raw":
        return {"reply": reply}
    said = _refusal(operation, reply)
    if said is None:
        found = _read(operation, reply)
        if found is not None:
            return found
        said = "Its answer is not understood."
    needs = operation.spec.needs.get(Manager.CROSVM)
    raise VmRefused(
        f"crosvm did not do {' '.join(operation.spec.words)} on {name}",
        f"{said} Its answer: {json.dumps(reply)[:1000]}",
        f"The device must have been launched with {needs}." if needs else None,
        reply=reply,
    )


def _refusal(operation: Operation, reply: Any) -> str | None:
    """Return why it was not done, if the reply says that."""
    variant, value = _variant(reply)
    if variant == "ErrString":
        return f"{value}."
    if variant == "Err":
        first = operation.spec.words[0]
        why = isinstance(value, int) and (_WHY.get((operation.name, value)) or _WHY.get((first, value)))
        return why or (os.strerror(value) + "." if isinstance(value, int) else str(value))
    if variant in ("BatResponse", "UsbResponse", "GpuResponse"):
        inner, told = _variant(value)
        if inner == "ErrString":
            return f"{told}."
        if inner == "TooManyDisplays":
            # Before 2024-04-17 a bare number, since then what was allowed and what was asked for.
            return f"It can have no more displays ({json.dumps(told)})."
        if inner == "NoSuchDisplay":
            return "There is no such display."
        if inner.startswith(("No", "Failed", "StringParse")):
            return _NESTED_WHY.get(inner, f"{inner}.")
    return None


def _variant(reply: Any) -> tuple[str, Any]:
    """Split an enum as serde writes it: a word, or an object of one key."""
    if isinstance(reply, str):
        return reply, None
    if isinstance(reply, dict) and len(reply) == 1:
        (pair,) = reply.items()
        return pair
    return "", None


def _read(operation: Operation, reply: Any) -> dict[str, Any] | None:
    """Return what a reply says that is no refusal; None if it is not understood."""
    name = operation.name
    variant, value = _variant(reply)
    if name in _READERS:
        wanted, reader = _READERS[name]
        if variant not in wanted:
            return None
        try:
            found: dict[str, Any] = reader(value)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            return None
        return found
    if name.startswith("battery."):
        return {} if variant == "BatResponse" and value == "Ok" else None
    if name in ("display.add", "display.remove"):
        return {} if variant == "GpuResponse" and value == "DisplaysUpdated" else None
    return {} if variant == "Ok" else None


def _balloon(value: Any) -> dict[str, Any]:
    stats = {key: number for key, number in value["stats"].items() if number is not None}
    return {"balloon_bytes": value["balloon_actual"], "stats": stats}


def _working_set(value: Any) -> dict[str, Any]:
    inner = value.get("ws", value.get("wss"))
    bins = inner.get("ws", inner.get("wss"))
    found = [{"age": b["age"], "file_bytes": b["bytes"][0], "anonymous_bytes": b["bytes"][1]} for b in bins]
    return {"balloon_bytes": value["balloon_actual"], "working_set": found}


def _usb_list(value: Any) -> dict[str, Any]:
    taken = [d for d in value["Devices"] if d["port"]]
    keys = ("port", "vendor_id", "product_id")
    return {"devices": [{key: int(device[key]) for key in keys} for device in taken]}


def _usb_port(value: Any) -> dict[str, Any]:
    return {"port": int(value["Ok"]["port"])}


def _swap(value: Any) -> dict[str, Any]:
    return {"state": str(value["state"]), "metrics": dict(value["metrics"]), "transition": value["state_transition"]}


def _vcpus(value: Any) -> dict[str, Any]:
    pairs = sorted((int(index), *map(int, ids)) for index, ids in value["pid_tid_map"].items())
    return {"vcpus": [{"index": index, "pid": pid, "tid": tid} for index, pid, tid in pairs]}


def _displays(value: Any) -> dict[str, Any]:
    return {"displays": [display.as_dict() for display in displays.read(value["DisplayList"])]}


#: By operation: under which variants its answer comes, and what reads it.
_READERS: Mapping[str, tuple[Collection[str], Any]] = {
    "balloon.stats": (("BalloonStats",), _balloon),
    "balloon.working-set": (("BalloonWS", "BalloonWSS"), _working_set),
    "usb.list": (("UsbResponse",), _usb_list),
    "usb.attach": (("UsbResponse",), _usb_port),
    "usb.detach": (("UsbResponse",), _usb_port),
    "swap.status": (("SwapStatus",), _swap),
    "vcpus": (("VcpuPidTidResponse",), _vcpus),
    "display.list": (("GpuResponse",), _displays),
}
