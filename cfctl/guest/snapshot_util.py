"""``snapshot_util_cvd``: suspends, resumes and saves all instances of a launch (launcher.md section 5)."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch
from cfctl.errors import CfctlError, UsageError
from cfctl.guest import client, hostflags, snapshot, vm
from cfctl.guest.configuration import Configuration
from cfctl.guest.monitor import Extended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEFAULTS: dict[str, str | bool] = {
    "subcmd": "",
    "wait_for_launcher": "30",
    "snapshot_path": "",
    "cleanup_snapshot_path": True,
    "force": False,
    "auto_suspend": False,
}

_SUSPEND, _RESUME = bytes((Extended.SUSPEND << 3 | 2, 0)), bytes((Extended.RESUME << 3 | 2, 0))


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``snapshot_util_cvd``; return 0 if every instance did what was asked for, else 1."""
    values = hostflags.parse(_DEFAULTS, argv, program="snapshot_util_cvd")
    patience = hostflags.number(values, "wait_for_launcher")
    try:
        configuration = Configuration.read(environ)
        if values["subcmd"] in ("suspend", "resume"):
            _broadcast(configuration, _SUSPEND if values["subcmd"] == "suspend" else _RESUME, patience)
        elif values["subcmd"] == "snapshot_take":
            _take(configuration, values, patience)
        else:
            raise UsageError(f"--subcmd={values['subcmd']} is not one of: suspend, resume, snapshot_take")
    except (CfctlError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _take(configuration: Configuration, values: Mapping[str, str | bool], patience: int) -> None:
    """Save all instances; what is there of a snapshot that failed is removed."""
    if not values["snapshot_path"]:
        raise UsageError("--snapshot_path is needed")
    target = Path(str(values["snapshot_path"])).absolute()
    if os.path.lexists(target):
        if not values["force"]:
            raise UsageError(f"{target} is there already", None, "Delete it first, or give --force.")
        # Upstream deletes whatever it is.
        if target.is_symlink() or not (target / snapshot.META).is_file():
            raise UsageError(f"{target} is not a snapshot, and was not touched")
        shutil.rmtree(target)
    if values["auto_suspend"]:
        _broadcast(configuration, _SUSPEND, patience)
    try:
        meta = snapshot.prepare(
            target, configuration, configuration.instances, snapshot.qemu_version(vm.qemu(arch.host()))
        )
        path = os.fsencode(meta)
        inner = b"\x0a" + _varint(len(path)) + path
        _broadcast(configuration, bytes((Extended.SNAPSHOT << 3 | 2,)) + _varint(len(inner)) + inner, patience)
    except BaseException:
        if values["cleanup_snapshot_path"]:
            shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        if values["auto_suspend"]:
            _broadcast(configuration, _RESUME, patience)


def _broadcast(configuration: Configuration, message: bytes, patience: int) -> None:
    for instance in configuration.instances:
        request = b"A" + struct.pack("=I", len(message)) + message
        answer = client.ask(configuration.places.monitor(instance), request, patience=patience)
        if answer != b"S":
            log = configuration.places.instance(instance) / "logs" / "launcher.log"
            raise CfctlError(f"{instance.id} did not do it", f"Its launcher says why in {log}.")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
