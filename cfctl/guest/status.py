"""``cvd_status``: asks the supervisors whether they are there (launcher.md section 6)."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError
from cfctl.guest import client, hostflags
from cfctl.guest.configuration import Configuration
from cfctl.guest.options import default_number
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEFAULTS: dict[str, str | bool] = {
    "wait_for_launcher": "5",
    "instance_name": "",
    "print": False,
    "all_instances": False,
}


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``cvd_status``; return 0 if every instance that was asked for answers, else 1."""
    values = hostflags.parse(_DEFAULTS, argv, program="cvd_status")
    patience = hostflags.number(values, "wait_for_launcher")
    try:
        configuration = Configuration.read(environ)
        instances = _chosen(configuration, values, environ)
        answers = [_status(configuration, instance, patience) for instance in instances]
    except (CfctlError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    if values["print"]:
        print(json.dumps(answers, indent=8))
    return 0


def _chosen(
    configuration: Configuration, values: Mapping[str, str | bool], environ: Mapping[str, str]
) -> list[Instance]:
    """Return the instances to ask.

    :raises CfctlError: for one that the launch does not have. Upstream asks the socket of that number all the same,
        which may be another launch's.
    """
    if values["all_instances"]:
        return configuration.instances
    name = str(values["instance_name"])
    word = re.sub(r"^(cvd|vsoc)-", "", name)
    if word and not word.isdecimal():
        raise CfctlError(f"--instance_name: {name!r} is no instance", None, "Write cvd-N or N.")
    instance = Instance(int(word) if word else default_number(environ))
    if instance not in configuration.instances:
        names = ", ".join(known.id for known in configuration.instances)
        raise CfctlError(f"this launch has no {instance.id}", f"It has {names}.")
    return [instance]


def _status(configuration: Configuration, instance: Instance, patience: int) -> dict[str, Any]:
    """Return what is told of an instance that answers.

    :raises OSError: if it does not.
    """
    answer = client.ask(configuration.places.monitor(instance), b"I", patience=patience)
    if answer != b"S":
        raise ConnectionError(f"the launcher of {instance.id} answered {answer!r}")
    part = configuration.instance(instance)
    port = part.get("adb_host_port", instance.adb_port)
    device_id = part.get("webrtc_device_id") or instance.id
    document: dict[str, Any] = {
        "adb_serial": f"127.0.0.1:{port}",
        "assembly_dir": os.fspath(configuration.places.assembly),
        "instance_dir": os.fspath(configuration.places.instance(instance)),
        "status": "Running",
        "web_access": _web_access(configuration.document, device_id),
        "webrtc_device_id": device_id,
    }
    displays = [f"{d['x_res']} x {d['y_res']} ( {d['dpi']} )" for d in part.get("display_configs", [])]
    if displays:
        document["displays"] = displays
    return dict(sorted(document.items()))


def _web_access(document: Mapping[str, Any], device_id: str) -> str:
    """Return where a browser finds the device, if the host's operator is there."""
    operator = Path(document.get("webrtc_sig_server_addr") or "/nonexistent")
    try:
        there = stat.S_ISSOCK(operator.stat().st_mode)
    except OSError:
        there = False
    return f"https://localhost:1443/devices/{device_id}/files/client.html" if there else ""
