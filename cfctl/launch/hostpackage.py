"""A host package: the directory whose ``bin/`` holds the launcher. It is the only contract with a launcher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cfctl import gpu
from cfctl.arch import ARCHES
from cfctl.errors import CfctlError, UsageError

#: For each tool the names to look for, first match wins, in the order of upstream's ``cvd`` (launcher.md section 1).
_TOOLS = {
    "start": ("cvd_internal_start", "launch_cvd"),
    "stop": ("cvd_internal_stop", "stop_cvd"),
}


@dataclass(frozen=True, slots=True)
class HostPackage:
    """An unpacked host package.

    :param path: its root, absolute.
    :param start: the launcher.
    :param stop: the tool that stops, where the package has one.
    """

    path: Path
    start: Path
    stop: Path | None

    @property
    def vm_manager(self) -> str:
        """The VM manager that its launcher takes by default: crosvm, where the package brings one."""
        places = (self.path / "bin", *(self.path / "bin" / arch.triplet for arch in ARCHES.values()))
        return gpu.CROSVM if any((place / "crosvm").is_file() for place in places) else gpu.QEMU

    @classmethod
    def open(cls, path: Path) -> HostPackage:
        """Look into a directory.

        :raises UsageError: if it is not a host package.
        """
        path = path.absolute()
        hint = "Give the directory into which cvd-host_package.tar.gz was unpacked, or none for the embedded guest."
        if not path.is_dir():
            what = "is not a directory" if path.exists() else "does not exist"
            raise UsageError(f"host package {path} {what}", None, hint)
        start = _find(path, "start")
        if start is None:
            names = " nor ".join(f"bin/{name}" for name in _TOOLS["start"])
            raise UsageError(f"{path} is not a host package", f"It has neither {names}.", hint)
        return cls(path, start, _find(path, "stop"))


def _find(path: Path, tool: str) -> Path | None:
    for name in _TOOLS[tool]:
        candidate = path / "bin" / name
        if candidate.is_file():
            if not os.access(candidate, os.X_OK):
                raise CfctlError(f"{candidate} is not executable", None, f"Make it so: chmod +x {path}/bin/*")
            return candidate
    return None
