"""A host package: the directory whose ``bin/`` holds the launcher. It is the only contract with a launcher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cfctl import arch, elf, gpu, paths
from cfctl.arch import ARCHES
from cfctl.artifacts import content
from cfctl.errors import CfctlError, UsageError, WrongProcessor
from cfctl.launch import generation
from cfctl.launch.generation import Generation

#: For each tool the names to look for, first match wins, in the order of upstream's ``cvd`` (launcher.md section 1).
_TOOLS = {
    "start": content.LAUNCHERS,
    "stop": ("cvd_internal_stop", "stop_cvd"),
}


#: As Android calls processors in the names of its builds.
_TARGETS = {"x86_64": "x86_64", "aarch64": "arm64"}

#: Besides the launcher, what runs on this host in every package.
_OTHERS = ("assemble_cvd", "run_cvd")

#: In every package of the embedded guest.
_EMBEDDED = Path("etc") / "cfctl-guest.json"

#: Of a program, what is looked through for what it hands over to; upstream's launchers have some MiB.
_LARGEST_LAUNCHER = 256 << 20


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

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded guest's, which brings its own kernel and disk."""
        return (self.path / _EMBEDDED).is_file()

    @property
    def generation(self) -> Generation:
        """How its launcher and ``cvd`` stand to each other."""
        programs = {path.name for path in (self.path / "bin").iterdir()}
        with self.start.open("rb") as file:
            return generation.detect(programs, file.read(_LARGEST_LAUNCHER))

    def check_processor(self) -> None:
        """Look whether this host can run its programs.

        :raises WrongProcessor: if they were made for another.
        """
        ours = arch.host()
        # The launcher may be a script around the others.
        for machine in (_machine(path) for path in (self.start, *(self.path / "bin" / name for name in _OTHERS))):
            if machine in (None, ours.elf_machine):
                continue
            names = {known.elf_machine: known.name for known in ARCHES.values()}
            theirs = names.get(int(machine or 0), f"another processor (ELF machine {machine})")
            raise WrongProcessor(
                f"host package {self.path}",
                theirs,
                ours.name,
                f"Take the package of a build for {ours.name}: aosp_cf_{_TARGETS[ours.name]}_phone.",
            )

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


def _machine(program: Path) -> int | None:
    """Return the ELF machine of a program; None for a script, and for what is not there."""
    try:
        with program.open("rb") as file:
            head = file.read(64)
    except OSError:
        return None
    return elf.machine(head) if elf.is_elf(head) else None


def _mended(path: Path) -> tuple[str | None, str]:
    """Return why a package's programs cannot be run, and what mends it."""
    if any(path.is_relative_to(cache) for cache in (paths.current().artifacts, paths.SYSTEM_CACHE)):
        # What lies in the cache is never changed: the next launch would take it for tampered with.
        return (
            "It was packed so.",
            "Unpack it by hand, chmod +x bin/*, and give the directory: --host-package DIRECTORY",
        )
    return None, f"Make it so: chmod +x {path}/bin/*"


def _find(path: Path, tool: str) -> Path | None:
    for name in _TOOLS[tool]:
        candidate = path / "bin" / name
        if candidate.is_file():
            if not os.access(candidate, os.X_OK):
                raise CfctlError(f"{candidate} is not executable", *_mended(path))
            return candidate
    return None
