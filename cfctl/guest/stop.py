"""``stop_cvd``: asks each supervisor to stop, and kills what does not (launcher.md section 5.1)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, NotRunning
from cfctl.guest import client, hostflags
from cfctl.guest.configuration import Configuration
from cfctl.guest.gflags import FlagError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.instance import Instance

_DEFAULTS: dict[str, str | bool] = {"wait_for_launcher": "5", "clear_instance_dirs": False, "instance_nums": ""}

#: Bits of the exit status.
_BAD_INSTANCE, _KILL_FAILED = 1, 4


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``stop_cvd``; return the exit status.

    As upstream's: 0 does not prove that a device was running, nor that one answered.
    """
    values = hostflags.parse(_DEFAULTS, argv, program="stop_cvd")
    patience = hostflags.number(values, "wait_for_launcher")
    home = Path(environ.get("HOME") or "/")
    try:
        configuration = Configuration.read(environ)
    except NotRunning as exc:
        print(exc, file=sys.stderr)
        return 0 if not _kill(home, None) else _KILL_FAILED
    except CfctlError as exc:
        print(exc, file=sys.stderr)
        return _BAD_INSTANCE
    try:
        chosen = _chosen(configuration, str(values["instance_nums"]))
    except FlagError as exc:
        print(exc, file=sys.stderr)
        return _BAD_INSTANCE
    status: dict[int, int] = {}

    def stop(instance: Instance) -> None:
        status[instance.number] = _stop(configuration, instance, home, patience)

    threads = [threading.Thread(target=stop, args=(instance,)) for instance in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if values["clear_instance_dirs"]:
        for instance in chosen:
            shutil.rmtree(configuration.places.instance(instance), ignore_errors=True)
    return max(status.values(), default=0)


def _chosen(configuration: Configuration, wanted: str) -> list[Instance]:
    """Return the instances to stop.

    :raises FlagError: for one that the launch does not have, or its first one without the others.
    """
    known = {instance.number: instance for instance in configuration.instances}
    if not wanted:
        return list(known.values())
    try:
        numbers = [int(word) for word in wanted.split(",")]
        chosen = [known[number] for number in numbers]
    except (ValueError, KeyError):
        raise FlagError(f"--instance_nums={wanted}: this launch has {', '.join(map(str, known))}") from None
    if min(known) in numbers and len(set(numbers)) < len(known):
        raise FlagError(f"instance {min(known)} is the first of the launch and cannot be stopped before the others")
    return chosen


def _stop(configuration: Configuration, instance: Instance, home: Path, patience: int) -> int:
    """Stop one instance; return its bits of the exit status."""
    places = configuration.places
    socket = places.monitor(instance)
    try:
        answer = client.ask(socket, b"X", patience=patience, until_gone=True)
        if answer != b"S":
            raise ConnectionError(f"the launcher answered {answer!r}")
    except OSError as exc:
        print(f"{instance.id}: the launcher did not stop it: {exc}", file=sys.stderr)
        survivors = _kill(home, instance)
        for left in (socket, places.qmp(instance), places.input(instance), places.vnc(instance)):
            with contextlib.suppress(OSError):
                left.unlink()
        return _KILL_FAILED if survivors else 0
    address = configuration.instance(instance).get("adb_ip_and_port", instance.adb)
    print(f"Successfully stopped device {instance.id}: {address}", file=sys.stderr)
    return 0


def _kill(home: Path, instance: Instance | None) -> list[int]:
    """Kill the launchers and VMs that were started with this HOME; return the processes that survived.

    Upstream kills every process group that has a file open in the device's directories, your shell too. Ours looks
    for what the launcher put into the environment of its own, and at the programs' names.

    :param instance: only this one's.
    """
    found = []
    for pid in process.pids():
        environment = process.environment(pid)
        number = environment.get("CUTTLEFISH_INSTANCE", "")
        if (
            number
            and environment.get("HOME") == os.fspath(home)
            and (instance is None or number == str(instance.number))
            and _is_ours(pid)
        ):
            found.append(pid)
    for pid in found:
        print(f"killing {pid}: {' '.join(process.command_line(pid))[:100]}", file=sys.stderr)
    return process.end(found, patience=0, by=signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith(("run_cvd", "qemu-", "webRTC"))
    return False
