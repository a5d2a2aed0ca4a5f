"""The host package's own ``graphics_detector``: a second witness, which sees what the package's programs will see.

Upstream's launcher asks it alone. It tells discrete GPUs from all others and looks at one display only, so cfctl's
own probe stays the finer one; but a stack that the package's programs cannot use is of no use, whatever cfctl sees.
So: what it does not get at all does not count, what it gets beside ours counts too, and where the two differ that is
said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfctl import arch
from cfctl.gpu import renderers, textproto
from cfctl.gpu.drivers import Egl, GlesDisplay, Vulkan, VulkanDevice
from cfctl.paths import UPSTREAM_PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.gpu.child import Ended

#: One of its checks may hang: it gives each 15 s and answers then.
DEADLINE_S = 20.0

_NAME = "graphics_detector"


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector said.

    :param program: the detector.
    :param problem: why there is no answer; then nothing else counts.
    :param loader: ``libvulkan.so.1`` can be loaded.
    :param vulkan: a Vulkan instance could be made.
    :param devices: the Vulkan devices as (name, is discrete).
    :param gles: who draws OpenGL ES as (vendor, renderer, version), without repetition.
    :param errors: its own messages.
    """

    program: str
    problem: str | None = None
    loader: bool = False
    vulkan: bool = False
    devices: tuple[tuple[str, bool], ...] = ()
    gles: tuple[tuple[str, str, str], ...] = ()
    errors: tuple[str, ...] = ()


def find(package: Path | None) -> Path | None:
    """Return the detector of a host package, or the one of upstream's Debian packages, or None.

    :param package: the host package's directory.
    """
    places = [UPSTREAM_PROGRAMS / _NAME]
    if package is not None:
        own = [package / "bin" / known.triplet / f"gfxstream_{_NAME}" for known in arch.ARCHES.values()]
        # A package without one is judged by cfctl alone: another build's answer says nothing about its programs.
        places = [package / "bin" / _NAME, *own]
    return next((place for place in places if place.is_file()), None)


def understand(program: str, ended: Ended) -> Detection:
    """Return what a detector that has ended said; never raises for what that is."""
    if ended.problem is not None:
        return Detection(program, problem=f"{_NAME} {ended.problem}")
    if ended.status != 0:
        return Detection(program, problem=f"{_NAME} ended with status {ended.status}: {ended.last_line}")
    try:
        message = textproto.parse(ended.output)
    except textproto.TextProtoError as exc:
        return Detection(program, problem=f"{_NAME} gave an answer that cannot be understood: {exc}")
    if not message:
        return Detection(program, problem=f"{_NAME} gave no answer")
    vulkan = textproto.message(message, "vulkan")
    egl = textproto.message(message, "egl")
    errors = [value for value in message.get("errors", []) if isinstance(value, str)]
    if egl:
        errors += [value for value in egl.get("errors", []) if isinstance(value, str)]
    return Detection(
        program,
        loader=textproto.truth(message, "vulkan_loader_available"),
        vulkan=vulkan is not None,
        devices=tuple(
            (textproto.text(device, "name"), textproto.text(device, "type") in ("TYPE_DISCRETE_GPU", "1"))
            for device in (textproto.messages(vulkan, "physical_devices") if vulkan else ())
        ),
        gles=_gles(egl) if egl else (),
        errors=tuple(" ".join(error.split()) for error in errors),
    )


def _gles(egl: textproto.Message) -> tuple[tuple[str, str, str], ...]:
    # Upstream's rule asks for these two; the "direct" ones need a library that only developers have.
    found = [textproto.message(egl, f"gles{version}_availability") for version in (3, 2)]
    return tuple(
        dict.fromkeys(
            (textproto.text(one, "vendor"), textproto.text(one, "renderer"), textproto.text(one, "version"))
            for one in found
            if one is not None
        )
    )


@dataclass(frozen=True, slots=True)
class Weighed:
    """Both witnesses' word.

    :param findings: where they differ, a sentence each.
    """

    vulkan: Vulkan
    egl: Egl
    findings: tuple[str, ...] = ()


def weigh(vulkan: Vulkan, egl: Egl, detection: Detection | None) -> Weighed:
    """Put together what cfctl's own probe and the detector found.

    :param detection: what the detector said; None if there is none.
    """
    if detection is None:
        return Weighed(vulkan, egl)
    if detection.problem is not None:
        return Weighed(vulkan, egl, (f"{detection.problem} ({detection.program}); cfctl's own probe counts",))
    new_vulkan, about_vulkan = _vulkan(vulkan, detection)
    new_egl, about_egl = _egl(egl, detection)
    return Weighed(new_vulkan, new_egl, (*detection.errors, *about_vulkan, *about_egl))


def _vulkan(own: Vulkan, detection: Detection) -> tuple[Vulkan, list[str]]:
    if not detection.vulkan:
        what = "makes no Vulkan instance" if detection.loader else "cannot load libvulkan.so.1"
        problem = f"the host package's {_NAME} {what}"
        found = [f"{problem}, though cfctl sees {_names(own)}: the package's programs would not see it"]
        return replace(own, devices=(), problem=problem), found if own.devices else []
    known = {device.name for device in own.devices}
    added = [
        # Whether a device that is not discrete is a GPU at all, the detector does not tell.
        VulkanDevice(name, "discrete" if discrete else "other")
        for name, discrete in detection.devices
        if name and name not in known
    ]
    if not added:
        return own, []
    names = ", ".join(device.name for device in added)
    why = own.problem or "cfctl's own probe does not list it"
    merged = Vulkan(library=True, devices=(*own.devices, *added), problem=own.problem if own.devices else None)
    return merged, [f"the host package's {_NAME} sees {names} in Vulkan; {why}"]


def _egl(own: Egl, detection: Detection) -> tuple[Egl, list[str]]:
    if not detection.gles:
        problem = f"the host package's {_NAME} gets no OpenGL ES"
        seen = ", ".join(dict.fromkeys(display.renderer for display in own.displays))
        found = [f"{problem}, though cfctl sees {seen}: the package's programs would not see it"] if seen else []
        return replace(own, displays=(), problem=problem), found
    # It tries an ES 2 and an ES 3 context on one display: one line each where the drivers' names differ.
    mine = {display.renderer for display in own.displays}
    added = [GlesDisplay(_NAME, *strings) for strings in detection.gles if strings[1] not in mine]
    merged = Egl(library=True, displays=(*own.displays, *added), problem=None)
    if not added:
        return merged, []
    why = own.problem or "cfctl's own probe finds " + ", ".join(mine)
    kinds = {renderers.gles_kind(display) for display in own.displays}
    if kinds == {renderers.gles_kind(display) for display in added}:
        return merged, []
    return merged, [f"the host package's {_NAME} draws OpenGL ES with {added[0].renderer}; {why}"]


def _names(vulkan: Vulkan) -> str:
    return ", ".join(device.name for device in vulkan.devices)
