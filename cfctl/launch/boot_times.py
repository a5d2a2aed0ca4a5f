"""How long the phases of a boot usually take: on this host, with this host package and these images.

Nothing is assumed: a package may bring times that were measured with it, and the boots of this host, kept in the
cache, speak louder. Without either nobody knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import disk, paths
from cfctl.artifacts import entries
from cfctl.launch import boot
from cfctl.launch.runtime_config import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.launch.registry import Request

#: In a host package: seconds by the name of a phase.
BROUGHT = Path("etc") / "cfctl-boot-times.json"

#: So many boots are remembered; their median is what is typical.
_KEPT = 9
_LARGEST = 64 << 10


def typical(request: Request) -> dict[str, float]:
    """Return how many seconds each phase takes to come, after the one before it; empty where nobody knows."""
    brought = _times(_read(Path(request.host_package) / BROUGHT))
    boots = [_times(entry) for entry in _boots(_file(request))]
    names = {name for entry in boots for name in entry}
    return brought | {name: statistics.median(b[name] for b in boots if name in b) for name in names}


def remember(request: Request, took: Mapping[str, float]) -> None:
    """Keep the times of a boot that went well; a cache that cannot be written is no failure."""
    file = _file(request)
    kept = [*_boots(file), {name: round(seconds, 3) for name, seconds in took.items()}][-_KEPT:]
    with contextlib.suppress(OSError):
        entries.make_directory(file.parent)
        document = {"host_package": request.host_package, "boots": kept}
        disk.replace(file, msgspec.json.encode(document), wait=False)


def _file(request: Request) -> Path:
    key = hashlib.sha256(f"{request.host_package}\0{request.images}".encode()).hexdigest()[:16]
    return paths.current().boot_times / f"{key}.json"


def _read(file: Path) -> Any:
    try:
        return msgspec.json.decode(read_file(file, largest=_LARGEST) or b"null")
    except (msgspec.DecodeError, RecursionError):
        return None


def _boots(file: Path) -> list[Any]:
    document = _read(file)
    boots = document.get("boots") if isinstance(document, dict) else None
    return boots if isinstance(boots, list) else []


def _times(entry: Any) -> dict[str, float]:
    """Return what is a time of a phase; the files are anybody's to damage."""
    names = {phase.name for phase in boot.PHASES}
    pairs = entry.items() if isinstance(entry, dict) else ()
    return {
        name: float(value)
        for name, value in pairs
        if name in names and isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }
