"""What `cfctl docker start` runs in a container, as the container's user: boots the device and tells how it goes.

One JSON document per line on standard output, in the words of ``cfctl launch --events``. It is called with one JSON
document, because what it needs has no place in a command line for people.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cfctl import config, gpu, locks, steps
from cfctl.docker import names
from cfctl.errors import CfctlError, HostLacks, NoSuchDevice, NotRunning
from cfctl.launch import launcher, manage, observe, registry, waiting
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.observe import State

#: Written by `start`, removed by `stop`: the device is to be booted again when the container is.
WANTED = Path(names.HOME) / ".cfctl-wanted.json"

#: Held by whoever boots the device: the container's first process does when it starts, and `start` right after it.
_TURN = Path(names.HOME) / ".cfctl-start.lock"

_VHOST_VSOCK = Path("/dev/vhost-vsock")
_EMULATED_VSOCK = "--vhost_user_vsock=true"


def write(document: dict[str, Any]) -> None:
    """Write one document on a line of its own."""
    print(json.dumps(document), flush=True)


def host_package(given: str | None) -> str:
    """Return the host package that the device uses: the one given, one that was pushed, or the embedded."""
    if given:
        return given
    pushed = any((Path(names.HOME) / "bin" / tool).exists() for tool in ("cvd_internal_start", "launch_cvd"))
    return names.HOME if pushed else names.EMBEDDED


def vsock_flags(package: HostPackage, flags: tuple[str, ...], *, vhost: bool) -> tuple[str, ...]:
    """Return the launcher's flags for a container with or without /dev/vhost-vsock.

    :raises HostLacks: if the VM manager can do nothing without it.
    """
    given = any(flag.lstrip("-").startswith("vhost_user_vsock") for flag in flags)
    # The embedded guest speaks no vsock.
    if vhost or given or package.embedded:
        return flags
    if package.vm_manager != gpu.CROSVM:
        raise HostLacks(
            "the engine's machine has no /dev/vhost-vsock",
            "The device talks to its VM over vsock, and only crosvm can do without the kernel's help.",
            "On that machine: sudo modprobe vhost_vsock; then make the container anew.",
        )
    return (*flags, _EMULATED_VSOCK)


def start(wish: dict[str, Any]) -> dict[str, Any]:
    """Boot the device; return it as the contract shows devices.

    :param wish: name, timeout and the fields of :class:`registry.Request`.
    """
    name, timeout, wait = wish["name"], float(wish["timeout"]), bool(wish.get("wait", True))
    package = HostPackage.open(Path(host_package(wish.get("host_package"))))
    request = registry.Request(
        host_package=os.fspath(package.path),
        images=wish.get("images"),
        gpu=wish["gpu"],
        cpus=wish.get("cpus"),
        memory_mb=wish.get("memory_mb"),
        num_instances=wish["num_instances"],
        flags=vsock_flags(package, tuple(wish.get("flags", ())), vhost=_VHOST_VSOCK.exists()),
    )
    try:
        device = observe.device(name)
        if not wish.get("again") and device.state.is_up:
            if not wait or device.state is not State.BOOTING:
                return device.as_dict()
            steps.note(f"{name} boots already")
            waiting.until_booted(name, timeout)
            return observe.device(name).as_dict()
        own = config.load()["launch.numbers"]
        if own and device.record.numbers != own:
            # The container was made anew while another had its numbers; what a launcher keeps is named by them.
            steps.note(f"{name} was instance {_words(device.record.numbers)} and is {_words(own)}: its disks are new")
            manage.remove_device(name, force=True)
            raise NoSuchDevice(name, [])
        with registry.opened(name) as record:
            # Its disks are kept, whatever is different this time.
            record.request = request
            registry.save(record)
    except NoSuchDevice:
        device = launcher.launch(name, request, timeout=timeout, wait=wait)
    else:
        device = launcher.restart(name, timeout=timeout, wait=wait)
    return device.as_dict()


def _words(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def start_in_turn(wish: dict[str, Any]) -> dict[str, Any]:
    """Boot the device unless somebody else does just now; then wait for that boot.

    Two boots at once would be one that the other stops: each sees a device that is down.

    :raises NotRunning: if it was stopped while this waited for its turn.
    """
    if wish.get("again"):
        # Whoever wants a new boot does not wait for the end of the old one, which may hang.
        return start(wish)
    waited = False

    def note() -> None:
        nonlocal waited
        waited = True

    with locks.exclusive(_TURN, on_wait=note):
        if waited and not WANTED.exists():
            raise NotRunning(f"{wish['name']} was stopped meanwhile", None, f"cfctl docker start {wish['name']}")
        return start(wish)


def main(argv: list[str]) -> int:
    """Do what the document on the command line says."""
    wish = json.loads(argv[0])
    WANTED.write_text(argv[0])
    with steps.reporting(steps.Events(write)):
        try:
            write({"event": "device", "device": start_in_turn(wish)})
        except CfctlError as error:
            write({"event": "error", "exit_code": error.exit_code, "error": error.as_dict()})
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
