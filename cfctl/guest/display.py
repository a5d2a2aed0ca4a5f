"""``cvd_internal_display``: lists the displays of an instance, and saves what one shows.

The output of ``list`` is crosvm's (``crosvm gpu list-displays``), which is what upstream's tool hands on.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError, UsageError
from cfctl.guest import client, hostflags
from cfctl.guest.configuration import Configuration
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMANDS = ("add", "list", "remove", "screenshot")
_DEFAULTS: dict[str, str | bool] = {"instance_num": "1", "display": "0", "screenshot_path": ""}
_PATIENCE_S = 30


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``cvd_internal_display``; return the exit status."""
    command, words = (argv[0], argv[1:]) if argv else ("help", argv)
    if command not in _COMMANDS:
        print(f"cvd_internal_display {'|'.join(_COMMANDS)} [--instance_num=N]", file=sys.stderr)
        return 0 if command == "help" else 1
    values = hostflags.parse(_DEFAULTS, words, program="cvd_internal_display")
    try:
        configuration = Configuration.read(environ)
        instance = Instance(hostflags.number(values, "instance_num"))
        if instance not in configuration.instances:
            raise UsageError(f"this launch has no {instance.id}")
        if command in ("add", "remove"):
            # crosvm's GPU can; QEMU's screens are fixed when it starts.
            raise CfctlError("the VM manager (QEMU) cannot add or remove displays of a running VM")
        if command == "list":
            print(json.dumps(displays(configuration.instance(instance)), indent=2))
        else:
            _screenshot(configuration, instance, hostflags.number(values, "display"), str(values["screenshot_path"]))
    except (CfctlError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def displays(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the displays of an instance as crosvm lists them: VGA has one, whatever was asked for."""
    if part["gpu_mode"] == "none":
        return {"displays": {}}
    config = part["display_configs"][0]
    return {
        "displays": {
            "0": {
                "mode": {"windowed": [config["x_res"], config["y_res"]]},
                "hidden": False,
                "refresh-rate": config["refresh_rate_hz"],
                "dpi": [config["dpi"], config["dpi"]],
            }
        }
    }


def _screenshot(configuration: Configuration, instance: Instance, number: int, path: str) -> None:
    if not path:
        raise UsageError("--screenshot_path is needed")
    raw = os.fsencode(Path(path).absolute())
    if len(raw) > 0x7F - 8:
        raise UsageError(f"the path is too long: {path}")
    inner = b"\x08" + bytes((number & 0x7F,)) + b"\x12" + bytes((len(raw),)) + raw
    message = b"\x52" + bytes((len(inner),)) + inner
    request = b"A" + struct.pack("=I", len(message)) + message
    if client.ask(configuration.places.monitor(instance), request, patience=_PATIENCE_S) != b"S":
        log = configuration.places.instance(instance) / "logs" / "launcher.log"
        raise CfctlError(f"{instance.id} did not do it", f"Its launcher says why in {log}.")
