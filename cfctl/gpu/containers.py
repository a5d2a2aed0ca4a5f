"""Whether containers on this host can be given its GPU: the engine, NVIDIA's runtime, and CDI devices.

CDI is the Container Device Interface: files that say which device files and libraries a name stands for. Docker knows
it from 25 on, podman from 4.1 on.
"""

from __future__ import annotations

import contextlib
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.errors import CfctlError
from cfctl.gpu.child import Child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.gpu.child import Ended

#: A Docker daemon that is there answers at once.
_DEADLINE_S = 5.0

_CDI = ("etc/cdi", "var/run/cdi", "run/cdi")
_CDI_LIMIT = 1 << 20

#: What is asked of each engine, and of NVIDIA's toolkit.
_PROGRAMS = {
    "docker": ("info", "--format", "{{json .}}"),
    "podman": ("version", "--format", "{{.Client.Version}}"),
    "nvidia-ctk": ("--version",),
}


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine.

    :param name: ``docker`` or ``podman``.
    :param version: of the daemon, or of podman; empty if unknown.
    :param nvidia_runtime: Docker has NVIDIA's runtime configured.
    :param problem: why it cannot be asked; None if it answered.
    """

    name: str
    version: str = ""
    nvidia_runtime: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Containers:
    """What containers can be given.

    :param engines: those that are installed.
    :param cdi: the kinds of CDI devices that are registered, for example ``nvidia.com/gpu``.
    :param toolkit: the version of NVIDIA's container toolkit; None if it is not installed.
    """

    engines: tuple[Engine, ...] = ()
    cdi: tuple[str, ...] = ()
    toolkit: str | None = None

    @property
    def nvidia(self) -> bool:
        """Tell whether an engine that works can give an NVIDIA GPU to a container."""
        by_name = any(kind.endswith(("/gpu", "/gpu-podcvd")) for kind in self.cdi)
        return any(
            engine.problem is None and (engine.nvidia_runtime or (by_name and _knows_cdi(engine)))
            for engine in self.engines
        )


def _knows_cdi(engine: Engine) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", engine.version)[:2]]
    return numbers >= ([25] if engine.name == "docker" else [4, 1])


def read(
    sysroot: Path = Path("/"), *, env: Mapping[str, str] | None = None, deadline: float = _DEADLINE_S
) -> Containers:
    """Return what containers can be given; never raises for what a program does.

    :param sysroot: where ``etc`` and ``run`` are; another one in tests.
    :param env: the programs' environment; without it, the caller's.
    """
    with ExitStack() as stack:
        asked: dict[str, Child] = {}
        for program, arguments in _PROGRAMS.items():
            with contextlib.suppress(CfctlError):
                if process.find(program):
                    asked[program] = stack.enter_context(Child([program, *arguments], deadline=deadline, env=env))
        ended = {program: child.ended() for program, child in asked.items()}
    engines = [_docker(ended["docker"])] if "docker" in ended else []
    engines += [_podman(ended["podman"])] if "podman" in ended else []
    toolkit = re.search(r"\d+(\.\d+)+", ended["nvidia-ctk"].output) if "nvidia-ctk" in ended else None
    return Containers(tuple(engines), _cdi(sysroot), toolkit[0] if toolkit else None)


def _docker(ended: Ended) -> Engine:
    if ended.problem is not None:
        return Engine("docker", problem=f"docker info {ended.problem}")
    for line in ended.output.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            document: Any = json.loads(line)
            # Without a daemon the client answers too, with an empty version.
            if isinstance(document, dict) and document.get("ServerVersion"):
                runtimes = document.get("Runtimes")
                nvidia = isinstance(runtimes, dict) and "nvidia" in runtimes
                return Engine("docker", str(document["ServerVersion"]), nvidia)
    said = re.search(r"Cannot connect[^\"\\]*|permission denied[^\"\\]*", ended.output)
    return Engine("docker", problem=said[0].strip()[:200] if said else f"no daemon answers: {ended.last_line}")


def _podman(ended: Ended) -> Engine:
    if ended.problem is not None:
        return Engine("podman", problem=f"podman version {ended.problem}")
    version = re.search(r"^\d+(\.\d+)+", ended.output, re.MULTILINE)
    if ended.status != 0 or version is None:
        return Engine("podman", problem=ended.last_line)
    return Engine("podman", version[0])


def _cdi(sysroot: Path) -> tuple[str, ...]:
    """Return the kinds of all CDI files; YAML and JSON write the line alike enough."""
    kinds = []
    for directory in _CDI:
        for file in sorted((sysroot / directory).glob("*")):
            if file.suffix not in (".json", ".yaml", ".yml"):
                continue
            with contextlib.suppress(OSError), file.open(errors="replace") as text:
                if kind := re.search(r"""["']?\bkind["']?\s*:\s*["']?([\w.-]+/[\w.-]+)""", text.read(_CDI_LIMIT)):
                    kinds.append(kind[1])
    return tuple(dict.fromkeys(kinds))
