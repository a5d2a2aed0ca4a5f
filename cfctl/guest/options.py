"""What a launch is to be: flags become plain data, per instance where the launcher has it so."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.errors import UsageError
from cfctl.guest.gflags import FlagError, truth
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.guest.gflags import Values

GPU_MODES = (
    "auto",
    "custom",
    "drm_virgl",
    "gfxstream",
    "gfxstream_guest_angle",
    "gfxstream_guest_angle_host_lavapipe",
    "gfxstream_guest_angle_host_swiftshader",
    "guest_lavapipe",
    "guest_swiftshader",
    "none",
)

#: What this guest can do: a screen that the host's processor draws. ``auto`` becomes the first.
SOFTWARE_GPU_MODES = ("guest_swiftshader", "guest_lavapipe", "none")

#: Of the guest, when ``--memory_mb`` and ``--cpus`` are not given. Its shell and adbd keep no second processor busy,
#: with which a boot under emulation takes a quarter more of the host's time (measured: 4.8 s against 3.8 s).
DEFAULT_MEMORY_MB = 256
DEFAULT_CPUS = 1

#: With 64 MiB its kernel does not come to its first word (measured, x86); with 96 it boots.
LEAST_MEMORY_MB = 96

#: The launcher's preset ``phone`` (etc/cvd_config/cvd_config_phone.json).
_PHONE = {"width": 720, "height": 1348, "dpi": 280}


@dataclass(frozen=True, slots=True)
class Display:
    """A screen, as recorded in the config."""

    width: int
    height: int
    dpi: int
    refresh_rate_hz: int


@dataclass(frozen=True, slots=True)
class InstanceOptions:
    """One instance of the launch."""

    instance: Instance
    cpus: int
    memory_mb: int
    gpu_mode: str
    kernel: str
    initramfs: str
    extra_kernel_cmdline: str
    webrtc_device_id: str
    serial_number: str
    uuid: str
    vsock_cid: int
    fail_fast: bool
    console: bool
    displays: tuple[Display, ...]


def numbers(values: Values, environ: Mapping[str, str]) -> list[int]:
    """Return the instance numbers that the flags select.

    :raises UsageError: for numbers that contradict each other, occur twice or are out of range.
    """
    listed = values["instance_nums"]
    if listed:
        if "base_instance_num" in values.given:
            raise UsageError("--instance_nums and --base_instance_num cannot be used together")
        found = [_integer("instance_nums", word) for word in listed.split(",")]
        if "num_instances" in values.given and values.number("num_instances") != len(found):
            raise UsageError("--num_instances does not match the number of --instance_nums")
        if len(set(found)) != len(found):
            raise UsageError("--instance_nums names an instance twice")
    else:
        base = values.number("base_instance_num") if "base_instance_num" in values.given else default_number(environ)
        found = list(range(base, base + values.number("num_instances")))
    if not found:
        raise UsageError("--num_instances must be at least 1")
    for number in found:
        Instance(number)
    return found


def default_number(environ: Mapping[str, str]) -> int:
    """Return the number that the environment names: ``CUTTLEFISH_INSTANCE``, a user ``vsoc-NN``, or 1.

    :raises UsageError: if ``CUTTLEFISH_INSTANCE`` is no number.
    """
    word = environ.get("CUTTLEFISH_INSTANCE", "")
    if not word and re.fullmatch(r"vsoc-\d+", environ.get("USER", "")):
        word = environ["USER"]
    return max(1, _integer("CUTTLEFISH_INSTANCE", re.sub(r"^(cvd|vsoc)-", "", word))) if word else 1


def instance_options(values: Values, instances: Sequence[int]) -> list[InstanceOptions]:
    """Return the options of each instance.

    :raises UsageError: for a value that makes no sense.
    """
    modes = [_gpu_mode(word) for word in vector(values, "gpu_mode", len(instances))]
    columns = {
        name: vector(values, name, len(instances))
        for name in (
            *("cpus", "memory_mb", "kernel_path", "initramfs_path", "extra_kernel_cmdline"),
            *("fail_fast", "console", "uuid", "x_res", "y_res", "dpi", "refresh_rate_hz"),
        )
    }
    found = []
    for index, number in enumerate(instances):
        value = {name: column[index] for name, column in columns.items()}
        instance = Instance(number)
        memory = _integer("memory_mb", value["memory_mb"]) or DEFAULT_MEMORY_MB
        if memory < LEAST_MEMORY_MB:
            raise UsageError(f"--memory_mb={memory}: this guest needs {LEAST_MEMORY_MB} MiB at least")
        try:
            switches = {name: truth(name, value[name]) for name in ("fail_fast", "console")}
        except FlagError as exc:
            raise UsageError(str(exc)) from exc
        found.append(
            InstanceOptions(
                instance=instance,
                cpus=_integer("cpus", value["cpus"]) if "cpus" in values.given else DEFAULT_CPUS,
                memory_mb=memory,
                gpu_mode=modes[index],
                kernel=value["kernel_path"],
                initramfs=value["initramfs_path"],
                extra_kernel_cmdline=value["extra_kernel_cmdline"],
                webrtc_device_id=_device_ids(values, instances)[index],
                serial_number=_serial_number(values, instance, several=len(instances) > 1),
                uuid=value["uuid"] if "uuid" in values.given else instance.uuid,
                vsock_cid=_integer("vsock_guest_cid", values["vsock_guest_cid"]) + number - instances[0]
                if "vsock_guest_cid" in values.given
                else instance.vsock_cid,
                displays=_displays(values, index, len(instances), value),
                **switches,
            )
        )
    return found


def vector(values: Values, name: str, count: int) -> list[str]:
    """Return a flag's value for each instance: a comma list, whose first value fills up what is missing.

    With one instance the value is taken whole, commas and all; ``unset`` is the default.
    """
    default = values.flags[name].default
    words = values[name].split(",") if count > 1 else [values[name]]
    words = [default if word == "unset" else word for word in words]
    return (words + [words[0]] * count)[:count]


def _gpu_mode(word: str) -> str:
    if word not in GPU_MODES:
        raise UsageError(f"Invalid gpu_mode provided: {word}", f"Modes: {', '.join(GPU_MODES)}.")
    return SOFTWARE_GPU_MODES[0] if word == "auto" else word


def _device_ids(values: Values, instances: Sequence[int]) -> list[str]:
    words = values["webrtc_device_id"].split(",")
    if len(words) not in (1, len(instances)) or (len(words) < len(instances) and "{num}" not in words[0]):
        raise UsageError("--webrtc_device_id needs one id per instance, or one with {num} in it")
    ids = [
        word.replace("{num}", str(number))
        for word, number in zip(words * len(instances) if len(words) == 1 else words, instances, strict=False)
    ]
    for device_id in ids:
        # It becomes part of an address and of file names elsewhere.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", device_id):
            raise UsageError(f"--webrtc_device_id: {device_id!r} is not an id")
    return ids


def _serial_number(values: Values, instance: Instance, *, several: bool) -> str:
    if "serial_number" not in values.given:
        return instance.serial_number
    serial = values["serial_number"] + (str(instance.number) if several else "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", serial):
        raise UsageError(f"--serial_number: {serial!r} is not a serial number")
    return serial


def _displays(values: Values, index: int, count: int, value: Mapping[str, str]) -> tuple[Display, ...]:
    given = list(values.lists.get("display", []))
    given += [
        vector(values, name, count)[index]
        for name in ("display0", "display1", "display2", "display3")
        if values[name]
    ]
    if given:
        return tuple(_display(text) for text in given if text)
    sizes = {name: _integer(name, value[name]) for name in ("x_res", "y_res", "dpi", "refresh_rate_hz")}
    return (
        Display(
            sizes["x_res"] or _PHONE["width"],
            sizes["y_res"] or _PHONE["height"],
            sizes["dpi"] or _PHONE["dpi"],
            sizes["refresh_rate_hz"],
        ),
    )


def _display(text: str) -> Display:
    """Read ``width=W,height=H[,dpi=D][,refresh_rate_hz=R]``."""
    pairs = dict(word.partition("=")[::2] for word in text.split(","))
    if not {"width", "height"} <= pairs.keys():
        raise UsageError(f"--display={text}: width and height are needed")
    return Display(
        _integer("display", pairs["width"]),
        _integer("display", pairs["height"]),
        _integer("display", pairs.get("dpi", "320")),
        _integer("display", pairs.get("refresh_rate_hz", "60")),
    )


def _integer(name: str, word: str) -> int:
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", word):
        raise UsageError(f"--{name}: {word!r} is not a whole number")
    return int(word)


def check_files(options: InstanceOptions) -> None:
    """Look for the files that the flags name.

    :raises UsageError: if one cannot be read.
    """
    for name in (options.kernel, options.initramfs):
        if name and not os.access(name, os.R_OK):
            raise UsageError(f"{Path(name)} cannot be read")
