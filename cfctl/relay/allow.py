"""What a launch from elsewhere may ask for: names of the cache, and a few of launch_cvd's flags.

Everything is allowed by name; nothing is forbidden by name. No flag here takes a path, a command, the name of a
network, or arguments for a kernel, a boot loader or a VM manager: with those a caller would have more of the host
than a device.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl.errors import UsageError
from cfctl.relay import verbs

if TYPE_CHECKING:
    from cfctl.v1 import devices_pb2

#: A device, a host package or images, as `cfctl images list` names them: no slash, so no path.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

_TRUTH = r"(true|false)(,(true|false)){0,127}"
_NUMBERS = r"\d{1,6}(,\d{1,6}){0,127}"
_SCREEN = r"(width|height|dpi|refresh_rate_hz)=\d{1,5}(,(width|height|dpi|refresh_rate_hz)=\d{1,5}){0,3}"

#: Flag -> what its value looks like; one for each instance where there are commas (launcher.md section 2.1).
FLAGS = {
    "x_res": _NUMBERS,
    "y_res": _NUMBERS,
    "dpi": _NUMBERS,
    "refresh_rate_hz": _NUMBERS,
    **{f"display{number}": _SCREEN for number in range(4)},
    "blank_data_image_mb": _NUMBERS,
    "console": _TRUTH,
    "crosvm_use_balloon": _TRUTH,
    "data_policy": r"(use_existing|create_if_missing|always_create|resize_up_to)",
    "enable_audio": _TRUTH,
    "enable_bootanimation": _TRUTH,
    "enable_minimal_mode": _TRUTH,
    "enable_modem_simulator": _TRUTH,
    "modem_simulator_count": _NUMBERS,
    "setupwizard_mode": r"(DISABLED|OPTIONAL|REQUIRED)",
}


def launch(request: devices_pb2.LaunchRequest) -> list[str]:
    """Return the verb that does a launch as it was asked for.

    :raises UsageError: for anything that a caller from elsewhere may not ask for, by its name.
    """
    argv = ["launch"]
    if request.name:
        argv.append(_matching("name", request.name, _DEVICE))
    argv += ["--events", *verbs.waiting(request)]
    for field, option in (("host_package", "--host-package"), ("images", "--images")):
        if value := getattr(request, field):
            argv += [option, _matching(field, value, _NAME)]
    for field, option in (("gpu", "--gpu"), ("restart", "--restart")):
        if value := getattr(request, field):
            argv += [option, _matching(field, value, _WORD)]
    if request.num_instances:
        argv += ["--num-instances", str(request.num_instances)]
    for field, option in (("cpus", "--cpus"), ("memory_mb", "--memory-mb")):
        if values := list(getattr(request, field)):
            argv += [option, ",".join(map(str, values))]
    flags = [_flag(flag) for flag in request.flags]
    return [*argv, "--", *flags] if flags else argv


def _matching(field: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise UsageError(
            f"{field}: {value[:100]!r} cannot be asked for from elsewhere",
            "Packages and images go by their names in the cache of the relay's host, never by paths."
            if pattern is _NAME
            else None,
            "See what there is, on the relay's host: cfctl images list" if pattern is _NAME else None,
        )
    return value


def _flag(flag: str) -> str:
    """Return a flag of launch_cvd in one form, if it is on the list."""
    name, equals, value = flag.removeprefix("--").partition("=")
    if not flag.startswith("--") or not equals or name not in FLAGS:
        raise UsageError(
            f"the flag {flag[:100]!r} cannot be asked for from elsewhere",
            f"Flags, each as --flag=value: {', '.join(sorted(FLAGS))}.",
            "Launch it on the relay's host, where every flag may be given: cfctl launch NAME -- FLAGS",
        )
    if not re.fullmatch(FLAGS[name], value):
        raise UsageError(f"--{name}={value[:100]} cannot be asked for from elsewhere", f"It takes: {FLAGS[name]}")
    return f"--{name}={value}"
