"""A crosvm to talk to: its control socket and its command line, in three ages of the protocol, and with its manners.

Written from vm_control.md sections 1 and 2. Like the original it says nothing to what it does not understand, does
what was asked even when the asker has gone, and ends with status 0 for much that went wrong. ``crosvm run`` serves;
every other subcommand asks a server, without ever giving up.

What the socket is to do wrong is read from the file ``FAULT`` beside the program before each request.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

#: Which requests each age knows beside those that all do, by where they stand in the request.
AGES: dict[str, dict[str, Any]] = {
    "2022": {
        "words": ["Suspend", "Resume", "AddDisplays", "RemoveDisplays", "BalloonCommand"],
        "suspend": {"Suspend": True, "Resume": False},
        "disable": "unit",
        "adjust": ["num_bytes"],
        "working_set": "",
        "attach": ["bus", "addr", "vid", "pid", "file"],
        "vcpus": False,
        "battery": ["SetStatus", "SetHealth", "SetPresent", "SetCapacity", "SetACOnline"],
        "displays_strict": False,
    },
    "2023": {
        "words": [
            *("SuspendVcpus", "SuspendVm", "ResumeVm", "AddDisplays", "RemoveDisplays", "BalloonCommand"),
            *("slow_file_cleanup", "wait_for_success", "BalloonWS"),
        ],
        "suspend": {"SuspendVcpus": True, "ResumeVcpus": False, "SuspendVm": True, "ResumeVm": False},
        "disable": "struct",
        "adjust": ["num_bytes", "wait_for_success"],
        "working_set": "WorkingSet",
        "attach": ["file"],
        "vcpus": False,
        "battery": ["SetStatus", "SetHealth", "SetPresent", "SetCapacity", "SetACOnline"],
        "displays_strict": False,
    },
    "2026": {
        "words": [
            *("SuspendVcpus", "SuspendVm", "ResumeVm", "AddDisplays", "RemoveDisplays", "BalloonCommand"),
            *("slow_file_cleanup", "wait_for_success", "BalloonWS", "VcpuPidTid", "SetFakeBatConfig"),
        ],
        "suspend": {"SuspendVcpus": True, "ResumeVcpus": False, "SuspendVm": True, "ResumeVm": False},
        "disable": "struct",
        "adjust": ["num_bytes", "wait_for_success"],
        "working_set": "WorkingSet",
        "attach": ["file"],
        "vcpus": True,
        "battery": ["SetStatus", "SetHealth", "SetPresent", "SetCapacity", "SetACOnline", "SetFakeBatConfig"],
        "displays_strict": True,
    },
}

STATUSES = ["Unknown", "Charging", "DisCharging", "NotCharging", "Full"]
HEALTHS = [
    *("Unknown", "Good", "Overheat", "Dead", "OverVoltage", "UnexpectedFailure", "Cold", "WatchdogTimerExpire"),
    *("SafetyTimerExpire", "OverCurrent"),
]


class NotUnderstood(Exception):
    """serde could not read the request: the original logs it, and answers nothing."""


class Vm:
    """What the VM is like, and what requests make of it.

    :param age: of :data:`AGES`.
    :param lacks: what it does not have, of ``balloon``, ``battery``, ``usb``, ``gpu``, ``acpi`` and ``swap``.
    """

    def __init__(self, age: str, lacks: list[str]) -> None:
        self.age = AGES[age]
        self.lacks = lacks
        self.state: dict[str, Any] = {
            "suspended": False,
            "buttons": [],
            "balloon": 0,
            "battery": {},
            "disk": 1 << 30,
            "swap": "Ready",
            "usb": {},
        }
        self.displays = {"0": self._display(720, 1280)}
        self.ports: dict[int, tuple[int, int]] = {3: (0x18D1, 0x4EE7)}

    @staticmethod
    def _display(width: int, height: int) -> dict[str, Any]:
        return {"mode": {"windowed": [width, height]}, "hidden": False, "refresh-rate": 60, "dpi": [320, 320]}

    def answer(self, request: Any, fds: list[int]) -> Any:
        """Do a request and return the reply.

        :raises NotUnderstood: for one that its age does not know.
        """
        if isinstance(request, str):
            return self._unit(request)
        if not isinstance(request, dict) or len(request) != 1:
            raise NotUnderstood
        ((name, value),) = request.items()
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is None or name not in (
            "BalloonCommand",
            "DiskCommand",
            "UsbCommand",
            "GpuCommand",
            "BatCommand",
            "Swap",
        ):
            raise NotUnderstood
        try:
            return handler(value, fds) if name == "UsbCommand" else handler(value)
        except (KeyError, TypeError, ValueError, IndexError) as exc:
            raise NotUnderstood from exc

    def _unit(self, name: str) -> Any:
        if name in self.age["suspend"]:
            self.state["suspended"] = self.age["suspend"][name]
            return "Ok"
        if name in ("Powerbtn", "Sleepbtn"):
            if "acpi" in self.lacks:
                return {"Err": 95}
            self.state["buttons"].append(name)
            return "Ok"
        if name == "VcpuPidTid" and self.age["vcpus"]:
            return {"VcpuPidTidResponse": {"pid_tid_map": {"1": [os.getpid(), 102], "0": [os.getpid(), 101]}}}
        raise NotUnderstood

    def _ballooncommand(self, value: Any) -> Any:
        if "balloon" in self.lacks:
            return {"Err": 95}
        if value == "Stats":
            stats = {"free_memory": 11, "total_memory": 22, "swap_in": None}
            return {"BalloonStats": {"stats": stats, "balloon_actual": self.state["balloon"]}}
        if value == self.age["working_set"]:
            inner = {"ws": [{"age": 5, "bytes": [1, 2]}, {"age": 9, "bytes": [3, 4]}]}
            return {"BalloonWS": {"ws": inner, "balloon_actual": self.state["balloon"]}}
        adjust = value["Adjust"]
        for field in self.age["adjust"]:
            if type(adjust[field]) is not {"num_bytes": int, "wait_for_success": bool}[field]:
                raise TypeError
        self.state["balloon"] = adjust["num_bytes"]
        return "Ok"

    def _diskcommand(self, value: Any) -> Any:
        size = value["command"]["Resize"]["new_size"]
        if value["disk_index"] != 0:
            return {"Err": 19}
        self.state["disk"] = size
        return "Ok"

    def _usbcommand(self, value: Any, fds: list[int]) -> Any:
        if "usb" in self.lacks:
            return {"Err": 5}
        if "ListDevice" in value:
            found = [{"port": 0, "vendor_id": 0, "product_id": 0} for _ in value["ListDevice"]["ports"]]
            for index, (port, (vendor, product)) in enumerate(self.ports.items()):
                found[index] = {"port": port, "vendor_id": vendor, "product_id": product}
            return {"UsbResponse": {"Devices": found}}
        if "AttachDevice" in value:
            for field in self.age["attach"]:
                int(value["AttachDevice"][field])
            if len(fds) <= value["AttachDevice"]["file"]:
                raise ValueError
            free = [port for port in range(1, 16) if port not in self.ports]
            if not free:
                return {"UsbResponse": "NoAvailablePort"}
            port = free[0]
            self.state["usb"][str(port)] = str(Path(f"/proc/self/fd/{fds[0]}").readlink())
            self.ports[port] = (1, 2)
            return {"UsbResponse": {"Ok": {"port": port}}}
        port = value["DetachDevice"]["port"]
        if self.ports.pop(port, None) is None:
            return {"UsbResponse": "NoSuchPort"}
        return {"UsbResponse": {"Ok": {"port": port}}}

    def _gpucommand(self, value: Any) -> Any:
        if "gpu" in self.lacks:
            return {"Err": 5}
        if value == "ListDisplays":
            return {"GpuResponse": {"DisplayList": {"displays": self.displays}}}
        if "AddDisplays" in value:
            wanted = value["AddDisplays"]["displays"]
            if len(self.displays) + len(wanted) > 16:
                return {
                    "GpuResponse": {"TooManyDisplays": {"allowed": 16, "requested": len(self.displays) + len(wanted)}}
                }
            for display in wanted:
                unknown = set(display) - {"mode", "hidden", "refresh-rate", "dpi"}
                if unknown and self.age["displays_strict"]:
                    raise ValueError
                width, height = display["mode"]["windowed"]
                # Without dpi the GPU device of 2022-11 to 2025-11 panics.
                across, down = display["dpi"]
                number = next(str(n) for n in range(16) if str(n) not in self.displays)
                self.displays[number] = {**self._display(width, height), **display, "dpi": [across, down]}
            return {"GpuResponse": "DisplaysUpdated"}
        for number in value["RemoveDisplays"]["display_ids"]:
            if self.displays.pop(str(number), None) is None:
                return {"GpuResponse": {"NoSuchDisplay": {"display_id": number}}}
        return {"GpuResponse": "DisplaysUpdated"}

    def _batcommand(self, value: Any) -> Any:
        kind, command = value
        if kind != "goldfish":
            raise NotUnderstood
        if command == "CancelFakeConfig" and "SetFakeBatConfig" in self.age["battery"]:
            name, setting = "SetFakeBatConfig", None
        else:
            ((name, setting),) = command.items()
            if name not in self.age["battery"]:
                raise NotUnderstood
            if name in ("SetStatus", "SetHealth"):
                (STATUSES if name == "SetStatus" else HEALTHS).index(setting)
            elif type(setting) is not int:
                raise TypeError
        if "battery" in self.lacks:
            return {"BatResponse": "NoBatDevice"}
        self.state["battery"][name] = setting
        return {"BatResponse": "Ok"}

    def _swap(self, value: Any) -> Any:
        if isinstance(value, dict):
            if self.age["disable"] != "struct" or type(value["Disable"]["slow_file_cleanup"]) is not bool:
                raise NotUnderstood
            value = "Disable"
        elif value == "Disable" and self.age["disable"] != "unit":
            raise NotUnderstood
        if "swap" in self.lacks:
            return {"Err": 95}
        if value == "Status":
            metrics = {"resident_pages": 7, "swap_pages": 0}
            transition = {"pages": 0, "time_ms": 0}
            return {"SwapStatus": {"state": self.state["swap"], "metrics": metrics, "state_transition": transition}}
        self.state["swap"] = {"Enable": "Pending", "Trim": "Pending", "SwapOut": "Active", "Disable": "Ready"}[value]
        return "Ok"


# -- the server --------------------------------------------------------------------------------------------


def serve(path: str, vm: Vm, directory: Path, backlog: int) -> None:
    """Serve the control socket for ever; what arrives and what the VM is like are written down in ``directory``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    # As soon as it can be connected to, everything about it is true.
    (directory / "state.json").write_text(json.dumps(vm.state))
    listener.listen(backlog)
    (directory / "pid").write_text(str(os.getpid()))
    clients: set[socket.socket] = set()
    while True:
        # A VM manager that is stuck does not accept either.
        accepts = not (directory / "STUCK").exists()
        ready, _, _ = select.select([*clients, *([listener] if accepts else [])], [], [], 0.02)
        for source in ready:
            if source is listener:
                clients.add(listener.accept()[0])
            elif not one(source, vm, directory):
                clients.discard(source)
                source.close()


def one(client: socket.socket, vm: Vm, directory: Path) -> bool:
    """Take one packet of a client and answer it; return whether the client stays."""
    packet, extra, _, _ = client.recvmsg(1 << 20, socket.CMSG_SPACE(32 * 4))
    fds = array.array("i", extra[0][2]).tolist() if extra else []
    note(directory, "end" if not packet else packet.decode(errors="replace"))
    try:
        # An empty packet is the end of a connection.
        return bool(packet) and reply(client, packet, vm, directory, fds)
    finally:
        for fd in fds:
            os.close(fd)


def note(directory: Path, text: str) -> None:
    with (directory / "requests").open("a") as log:
        log.write(json.dumps(text) + "\n")


def reply(client: socket.socket, packet: bytes, vm: Vm, directory: Path, fds: list[int]) -> bool:
    fault = (directory / "FAULT").read_text() if (directory / "FAULT").exists() else ""
    try:
        answer = vm.answer(json.loads(packet), fds)
    except (NotUnderstood, ValueError, RecursionError):
        return True
    (directory / "state.json").write_text(json.dumps(vm.state))
    text = json.dumps(answer, separators=(",", ":")).encode()
    if fault == "silent":
        return True
    if fault == "end":
        return False
    if fault == "garbage":
        text = b"\xff\x00not json"
    elif fault == "unknown":
        text = b'{"FromTheFuture":{"answer":42}}'
    elif fault.startswith("late "):
        time.sleep(float(fault.split()[1]))
    elif fault.startswith("long "):
        text = json.dumps({"ErrString": "x" * int(fault.split()[1])}).encode()
    elif fault.startswith("fds"):
        with Path(os.devnull).open() as null:
            socket.send_fds(client, [text], [null.fileno()] * 3)
        return True
    try:
        client.send(text, socket.MSG_NOSIGNAL)
    except OSError:
        note(directory, "nobody waits")
    return True


# -- the command line --------------------------------------------------------------------------------------


def ask(path: str, request: Any, fds: list[int] | None = None) -> Any:
    """Send a request and wait for its reply, however long that takes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode()], fds or [])
        return json.loads(server.recv(1 << 20))


def unexpected(answer: Any) -> int:
    if isinstance(answer, dict) and "Err" in answer:
        print(f"unexpected response: error: {os.strerror(answer['Err'])} (os error {answer['Err']})")
    else:
        print(f"unexpected response: {answer}")
    return 1


def plain(path: str, request: Any) -> int:
    answer = ask(path, request)
    return 0 if answer == "Ok" else unexpected(answer)


def nested(answer: Any, key: str) -> Any:
    """Print a nested result as the original does: with status 0, whatever it is."""
    if not isinstance(answer, dict) or key not in answer:
        return None
    return answer[key]


def main(argv: list[str], directory: Path, age: str) -> int:
    """Be crosvm; return the exit status."""
    words = [word for word in argv if not word.startswith("--") or word == "--"]
    flags = [word for word in argv if word.startswith("--")]
    about = AGES[age]
    allowed: list[str] = []
    if not words:
        return 35
    with (directory / "commands").open("a") as log:
        log.write(json.dumps(argv) + "\n")
    match words:
        case ["run", path, backlog, *lacks]:
            serve(path, Vm(age, lacks), directory, int(backlog))
        case ["suspend" | "resume" as verb, path]:
            full = "SuspendVm" in about["suspend"]
            allowed = ["--full"] if full else []
            if set(flags) <= set(allowed):
                name = verb.capitalize()
                return plain(path, name + ("Vm" if flags else "Vcpus") if full else name)
        case ["powerbtn" | "sleepbtn" as verb, path]:
            return plain(path, verb.capitalize())
        case ["balloon", size, path]:
            allowed = ["--wait"] if len(about["adjust"]) == 2 else []
            if set(flags) <= set(allowed):
                values = {"num_bytes": int(size), "wait_for_success": bool(flags)}
                return plain(path, {"BalloonCommand": {"Adjust": {key: values[key] for key in about["adjust"]}}})
        case ["balloon_stats" | "balloon_ws" as verb, path]:
            if verb == "balloon_stats" or about["working_set"]:
                answer = ask(path, {"BalloonCommand": "Stats" if verb == "balloon_stats" else "WorkingSet"})
                print(json.dumps(answer, indent=2))
                return 1 if "Err" in answer else 0
        case ["battery", "goldfish", key, value, path]:
            return battery(path, key, value, about)
        case ["usb", verb, *rest, path] if verb in ("list", "attach", "detach"):
            return usb(path, verb, rest, about)
        case ["disk", "resize", index, size, path]:
            command = {"Resize": {"new_size": int(size)}}
            return plain(path, {"DiskCommand": {"disk_index": int(index), "command": command}})
        case ["swap", "status", path]:
            answer = ask(path, {"Swap": "Status"})
            if (status := nested(answer, "SwapStatus")) is None:
                return unexpected(answer)
            print(json.dumps(status))
            return 0
        case ["swap", "disable", path]:
            if not flags or about["disable"] == "struct":
                struct = {"Disable": {"slow_file_cleanup": bool(flags)}}
                return plain(path, {"Swap": struct if about["disable"] == "struct" else "Disable"})
        case ["swap", "enable" | "trim" | "out" as verb, path]:
            return plain(path, {"Swap": {"enable": "Enable", "trim": "Trim", "out": "SwapOut"}[verb]})
        case ["gpu", "list-displays", path]:
            answer = ask(path, {"GpuCommand": "ListDisplays"})
            if (found := nested(answer, "GpuResponse")) is None:
                return unexpected(answer)
            print(json.dumps(found["DisplayList"], indent=2))
            return 0
        case ["gpu", "add-displays" | "remove-displays" as verb, value, path]:
            return gpu(path, verb, value)
    print(f"crosvm: unrecognized arguments {argv}", file=sys.stderr)
    return 35


def battery(path: str, key: str, value: str, about: dict[str, Any]) -> int:
    commands: dict[str, Any] = {
        "status": lambda: {"SetStatus": next(s for s in STATUSES if s.lower() == value)},
        "health": lambda: {"SetHealth": next(s for s in HEALTHS if s.lower() == value)},
        "present": lambda: {"SetPresent": int(value)},
        "capacity": lambda: {"SetCapacity": min(int(value), 100)},
        "aconline": lambda: {"SetACOnline": int(value)},
    }
    if "SetFakeBatConfig" in about["battery"]:
        commands["set_fake_bat_config"] = lambda: {"SetFakeBatConfig": int(value)}
        commands["cancel_fake_bat_config"] = lambda: "CancelFakeConfig"
    if key not in commands:
        print("Battery doesn't have such property. Only support: status/health/present/capacity/aconline")
        return 0
    answer = ask(path, {"BatCommand": ["goldfish", commands[key]()]})
    said = {"Ok": "Setting battery property successfully", "NoBatDevice": "No battery device created"}
    print(said[answer["BatResponse"]])
    return 0


def usb(path: str, verb: str, rest: list[str], about: dict[str, Any]) -> int:
    if verb == "list":
        answer = ask(path, {"UsbCommand": {"ListDevice": {"ports": list(range(16))}}})
        if (found := nested(answer, "UsbResponse")) is None:
            return unexpected(answer)
        taken = [d for d in found["Devices"] if d["port"]]
        print("devices", *(f"{d['port']} {d['vendor_id']:04x} {d['product_id']:04x}" for d in taken))
        return 0
    if verb == "attach":
        fd = os.open(rest[1], os.O_RDWR)
        values = dict.fromkeys(about["attach"], 0)
        answer = ask(path, {"UsbCommand": {"AttachDevice": values}}, [fd])
    else:
        answer = ask(path, {"UsbCommand": {"DetachDevice": {"port": int(rest[0])}}})
    if (found := nested(answer, "UsbResponse")) is None:
        return unexpected(answer)
    said = {"NoSuchPort": "no_such_port", "NoAvailablePort": "no_available_port"}
    print(said[found] if isinstance(found, str) else f"ok {found['Ok']['port']}")
    return 0


def gpu(path: str, verb: str, value: str) -> int:
    if verb == "add-displays":
        width, height = value.partition("windowed[")[2].partition("]")[0].split(",")
        dpi = [int(part) for part in value.partition("dpi=[")[2].partition("]")[0].split(",")]
        rate = int(value.partition("refresh-rate=")[2])
        display = {"mode": {"windowed": [int(width), int(height)]}, "hidden": False, "refresh-rate": rate, "dpi": dpi}
        answer = ask(path, {"GpuCommand": {"AddDisplays": {"displays": [display]}}})
    else:
        answer = ask(path, {"GpuCommand": {"RemoveDisplays": {"display_ids": [int(value)]}}})
    if (found := nested(answer, "GpuResponse")) is None:
        return unexpected(answer)
    if found == "DisplaysUpdated":
        print("displays updated")
    else:
        ((name, about),) = found.items()
        print({"TooManyDisplays": "too_many_displays", "NoSuchDisplay": "no_such_display"}[name] + f": {about}")
    return 0
