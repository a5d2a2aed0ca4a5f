"""What a launcher wrote down about its devices: ``cuttlefish_config.json`` (launcher.md section 4.1), read warily.

The file may be half-written, from any version, or another user's: whatever is wrong in it is as if it were not there.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl.instance import MAX_INSTANCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Android's has about 200 kB.
_LARGEST = 8 << 20

#: In a launcher's HOME (launcher.md section 4).
NAME = ".cuttlefish_config.json"


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """One instance, as far as the launcher says.

    :param adb_port: on this host.
    """

    adb_port: int | None = None
    gpu_mode: str = ""
    memory_mb: int | None = None
    webrtc_device_id: str = ""
    vsock_cid: int | None = None


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """A launcher's config.

    :param root: where the instances' directories lie.
    :param sockets: where their sockets do; None if it does not say.
    """

    root: str | None = None
    sockets: str | None = None
    instances: Mapping[int, InstanceConfig] = field(default_factory=dict)


def read(path: Path) -> RuntimeConfig | None:
    """Return the config at a path; None if there is none that can be made sense of."""
    raw = read_file(path)
    return None if raw is None else parse(raw)


def read_file(path: Path, *, largest: int = _LARGEST) -> bytes | None:
    """Return what is in a regular file; None for anything else, which may be another user's trap."""
    try:
        # Without waiting: it could be a FIFO that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with os.fdopen(os.dup(fd), "rb") as file:
            raw = file.read(largest + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return raw if len(raw) <= largest else None


def parse(raw: bytes) -> RuntimeConfig | None:
    """Return what a config says; None if it is not one."""
    try:
        document: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    listed = document.get("instances")
    instances = {}
    for key, value in listed.items() if isinstance(listed, dict) else ():
        if key.isascii() and key.isdigit() and len(key) <= 3 and 1 <= int(key) <= MAX_INSTANCES:
            instances[int(key)] = _instance(value if isinstance(value, dict) else {})
    return RuntimeConfig(_path(document, "root_dir"), _path(document, "instances_uds_dir"), instances)


def _instance(part: dict[str, Any]) -> InstanceConfig:
    return InstanceConfig(
        _number(part, "adb_host_port", 65535),
        _text(part, "gpu_mode"),
        _number(part, "memory_mb", 1 << 30),
        _text(part, "webrtc_device_id"),
        _number(part, "vsock_guest_cid", (1 << 32) - 1, least=3),
    )


def _path(part: dict[str, Any], key: str) -> str | None:
    value = part.get(key)
    return value if isinstance(value, str) and value.startswith("/") and "\0" not in value else None


def _number(part: dict[str, Any], key: str, most: int, *, least: int = 1) -> int | None:
    value = part.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key)
    return value[:200] if isinstance(value, str) and value.isprintable() else ""
