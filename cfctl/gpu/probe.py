"""Ask this host what it can draw with: the kernel's files, and each driver stack in a child process of its own.

A graphics driver may crash or hang whoever loads it, so cfctl never loads one. The children (``ask_vulkan.py``,
``ask_egl.py``) run side by side under one deadline; what becomes of them is part of the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.gpu import facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.gpu.facts import Facts

#: Seconds that the drivers get, as in upstream's graphics_detector.
DEADLINE_S = 15.0

_HERE = Path(__file__).parent

#: The children, by the name of what they ask.
PROGRAMS: Mapping[str, Path] = {"Vulkan": _HERE / "ask_vulkan.py", "EGL": _HERE / "ask_egl.py"}


@dataclass(frozen=True, slots=True)
class VulkanDevice:
    """A device that the Vulkan loader lists.

    :param type: ``discrete``, ``integrated``, ``virtual``, ``cpu`` or ``other``.
    :param graphics: it has a queue that draws.
    """

    name: str
    type: str
    vendor_id: int = 0
    driver_version: str = ""
    api_version: str = ""
    graphics: bool = True


@dataclass(frozen=True, slots=True)
class GlesDisplay:
    """An EGL display that gave an OpenGL ES context.

    :param display: ``default``, ``surfaceless`` or ``device N``.
    :param renderer: GL_RENDERER: who draws.
    """

    display: str
    vendor: str
    renderer: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Vulkan:
    """What the Vulkan loader says.

    :param library: ``libvulkan.so.1`` can be loaded.
    :param problem: why there is no or not the whole answer.
    """

    library: bool = True
    devices: tuple[VulkanDevice, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Egl:
    """What EGL says.

    :param library: ``libEGL.so.1`` can be loaded.
    :param problem: why there is no or not the whole answer.
    """

    library: bool = True
    displays: tuple[GlesDisplay, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """All that was found on a host."""

    facts: Facts
    vulkan: Vulkan = field(default_factory=Vulkan)
    egl: Egl = field(default_factory=Egl)


def probe(
    sysroot: Path = Path("/"),
    *,
    programs: Mapping[str, Path] = PROGRAMS,
    deadline: float = DEADLINE_S,
    env: Mapping[str, str] | None = None,
) -> Probe:
    """Find out what this host can draw with; never raises for what a driver does.

    :param sysroot: where the kernel's files are; another one in tests.
    :param programs: the children to ask.
    :param deadline: seconds until a child that has not answered is killed.
    :param env: the children's environment; without it, the caller's.
    """
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(_Child(name, program, env)) for name, program in programs.items()}
        found = facts.read(sysroot, environ=os.environ if env is None else env)
        until = time.monotonic() + deadline
        answers = {name: child.answer(until, deadline) for name, child in asked.items()}
    return Probe(found, _vulkan(answers["Vulkan"]), _egl(answers["EGL"]))


class _Child:
    """One child and what it printed; killed at the end of the block, whatever it does."""

    def __init__(self, name: str, program: Path, env: Mapping[str, str] | None) -> None:
        self._name = name
        self._argv = [sys.executable, "-I", os.fspath(program)]
        self._env = env

    def __enter__(self) -> _Child:
        # A pipe could fill up or be kept open by a helper of the driver, and a file would need room on a disk.
        self._output = os.memfd_create("cfctl-gpu-probe")
        self._file = Path(f"/proc/self/fd/{self._output}")
        try:
            self._process = process.start(self._argv, output=self._file, env=self._env)
        except BaseException:
            os.close(self._output)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The whole session: a driver may have started programs of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Not for ever: a process that hangs inside the kernel's part of a driver cannot be killed.
        until = time.monotonic() + 1
        while self._process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.close(self._output)

    def answer(self, until: float, deadline: float) -> dict[str, Any]:
        """Wait for the child's document; without one, return a document that says what became of the child."""
        while (status := self._process.poll()) is None:
            if time.monotonic() > until:
                return self._failed(f"hangs: it gave no answer within {deadline:g} s")
            time.sleep(0.002)
        output = self._file.read_text(errors="replace")
        if status < 0:
            return self._failed(f"crashed: signal {-status}{_signal_name(-status)}")
        for line in reversed(output.splitlines()):
            with contextlib.suppress(ValueError):
                document = json.loads(line)
                if isinstance(document, dict) and "library" in document:
                    return document
        return self._failed(f"ended with status {status} and no answer:{_last_line(output)}")

    def _failed(self, what: str) -> dict[str, Any]:
        # The library is there: without it no driver would have been loaded.
        return {"library": True, "devices": [], "displays": [], "error": f"the {self._name} driver {what}"}


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return ""


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return f" {lines[-1][:200]}" if lines else " it printed nothing"


def _vulkan(document: dict[str, Any]) -> Vulkan:
    devices = tuple(
        VulkanDevice(
            name=device["name"],
            type=device["type"],
            vendor_id=device["vendor_id"],
            driver_version=_driver_version(device["vendor_id"], device["driver_version"]),
            api_version=_version(device["api_version"]),
            graphics=device["graphics"],
        )
        for device in document["devices"]
    )
    problem = document["error"]
    if problem is None and not devices:
        problem = "the Vulkan loader lists no device"
    return Vulkan(document["library"], devices, problem)


def _egl(document: dict[str, Any]) -> Egl:
    good = [display for display in document["displays"] if not display["error"]]
    problem = document["error"]
    if problem is None and not good:
        errors = list(dict.fromkeys(item["error"] for item in document["displays"]))
        problem = f"no EGL display can be used: {', '.join(errors)}" if errors else "EGL has no display"
    return Egl(
        document["library"],
        tuple(GlesDisplay(item["display"], item["vendor"], item["renderer"], item["version"]) for item in good),
        problem,
    )


def _version(number: int) -> str:
    """Return a packed Vulkan version as text (VK_API_VERSION_MAJOR and its siblings)."""
    return f"{number >> 22 & 0x7F}.{number >> 12 & 0x3FF}.{number & 0xFFF}"


def _driver_version(vendor_id: int, number: int) -> str:
    """Return a driver's version as its maker writes it: NVIDIA packs 10, 8, 8 and 6 bits."""
    if vendor_id == 0x10DE:
        parts = (number >> 22, number >> 14 & 0xFF, number >> 6 & 0xFF)
        return ".".join(str(part) if index != 2 else f"{part:02d}" for index, part in enumerate(parts))
    return _version(number)
