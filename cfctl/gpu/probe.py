"""Ask this host what it can draw with: the kernel's files, and each driver stack in a child process of its own.

A graphics driver may crash or hang whoever loads it, so cfctl never loads one. The children (``ask_vulkan.py``,
``ask_egl.py``, and the host package's graphics_detector) run side by side, each with a deadline; what becomes of them
is part of the answer.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch
from cfctl.errors import CfctlError
from cfctl.gpu import answers, detector, facts
from cfctl.gpu import qemu as qemus
from cfctl.gpu.child import Child
from cfctl.gpu.drivers import Egl, GlesDisplay, Vulkan, VulkanDevice
from cfctl.gpu.libraries import understand as libraries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfctl.gpu.detector import Detection
    from cfctl.gpu.facts import Facts
    from cfctl.gpu.libraries import Library
    from cfctl.gpu.qemu import Qemu

__all__ = ["PROGRAMS", "Egl", "GlesDisplay", "Probe", "Vulkan", "VulkanDevice", "libraries", "probe"]

#: Seconds that the drivers get, as in upstream's graphics_detector.
DEADLINE_S = 15.0

#: Loading libraries, without asking them anything; where that hangs the drivers have had their time already.
_LIBRARIES_DEADLINE_S = 5.0

#: QEMU only prints a list.
_QEMU_DEADLINE_S = 5.0

_HERE = Path(__file__).parent

#: The children, by the name of what they ask.
PROGRAMS: Mapping[str, Path] = {"Vulkan": _HERE / "ask_vulkan.py", "EGL": _HERE / "ask_egl.py"}
_LIBRARIES = _HERE / "ask_libraries.py"


@dataclass(frozen=True, slots=True)
class Probe:
    """All that was found on a host.

    :param vulkan: what cfctl and the graphics_detector together know of Vulkan.
    :param egl: the same of OpenGL ES.
    :param detection: what the graphics_detector said; None where there is none.
    :param differences: where it and cfctl do not agree, a sentence each.
    :param qemu: the devices of the installed QEMU; None if it was not asked or is not there.
    """

    facts: Facts
    vulkan: Vulkan = field(default_factory=Vulkan)
    egl: Egl = field(default_factory=Egl)
    detection: Detection | None = None
    differences: tuple[str, ...] = ()
    qemu: Qemu | None = None


def probe(
    sysroot: Path = Path("/"),
    *,
    programs: Mapping[str, Path] = PROGRAMS,
    deadline: float = DEADLINE_S,
    env: Mapping[str, str] | None = None,
    graphics_detector: Path | None = None,
    qemu: bool = False,
) -> Probe:
    """Find out what this host can draw with; never raises for what a driver does.

    :param sysroot: where the kernel's files are; another one in tests.
    :param programs: the children to ask.
    :param deadline: seconds until a child that has not answered is killed.
    :param env: the children's environment; without it, the caller's.
    :param graphics_detector: a detector to be asked as well.
    :param qemu: ask the installed QEMU for its devices.
    """
    with contextlib.ExitStack() as stack:
        asked = {
            name: stack.enter_context(Child([sys.executable, "-I", program], deadline=deadline, env=env))
            for name, program in programs.items()
        }
        found = facts.read(sysroot, environ=os.environ if env is None else env)
        detection = _detection(stack, graphics_detector, deadline, env)
        devices = _qemu(stack) if qemu else None
        vulkan, egl = answers.vulkan(asked["Vulkan"].ended()), answers.egl(asked["EGL"].ended())
        said = detection() if detection else None
        weighed = detector.weigh(vulkan, egl, said)
        return Probe(found, weighed.vulkan, weighed.egl, said, weighed.findings, devices() if devices else None)


def _detection(
    stack: contextlib.ExitStack, program: Path | None, deadline: float, env: Mapping[str, str] | None
) -> Callable[[], Detection] | None:
    """Start a detector; return what waits for its answer."""
    if program is None:
        return None
    name = os.fspath(program)
    seconds = deadline + detector.DEADLINE_S - DEADLINE_S
    try:
        child = stack.enter_context(Child([program], deadline=seconds, env=env))
    except CfctlError as exc:
        problem = f"graphics_detector cannot be started: {exc.details or exc.brief}"
        return lambda: detector.Detection(name, problem=problem)
    return lambda: detector.understand(name, child.ended())


def _qemu(stack: contextlib.ExitStack) -> Callable[[], Qemu] | None:
    """Start the QEMU of this processor to list its devices; None if there is none."""
    try:
        program = arch.host().qemu
        child = stack.enter_context(Child([program, *qemus.arguments()], deadline=_QEMU_DEADLINE_S))
    except CfctlError:
        return None
    return lambda: qemus.understand(program, child.ended())


def libraries(
    *, program: Path = _LIBRARIES, deadline: float = _LIBRARIES_DEADLINE_S, env: Mapping[str, str] | None = None
) -> tuple[Library, ...]:
    """Load every graphics library and registered driver in a child; never raises for what one does.

    :param program: the child.
    :param deadline: seconds until it is killed.
    :param env: its environment; without it, the caller's.
    """
    with Child([sys.executable, "-I", program], deadline=deadline, env=env) as child:
        return libraries_of(child.ended())
