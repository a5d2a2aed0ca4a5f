"""Turns the documents of the children into data; whatever a child printed, the result is data or a problem."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cfctl.gpu.drivers import Egl, GlesDisplay, Vulkan, VulkanDevice

if TYPE_CHECKING:
    from cfctl.gpu.child import Ended


class _NoAnswerError(Exception):
    """The child gave no document; the text says what became of it."""


def vulkan(ended: Ended) -> Vulkan:
    """Return what ``ask_vulkan.py`` said."""
    try:
        document = _document(ended, "Vulkan")
        devices = tuple(
            VulkanDevice(
                name=str(device["name"]),
                type=str(device["type"]),
                vendor_id=int(device["vendor_id"]),
                driver_version=driver_version(int(device["vendor_id"]), int(device["driver_version"])),
                api_version=version(int(device["api_version"])),
                graphics=bool(device["graphics"]),
            )
            for device in document["devices"]
        )
        problem = _problem(document)
    except _NoAnswerError as exc:
        # The library is there: without it no driver would have been loaded.
        return Vulkan(problem=str(exc))
    except (KeyError, TypeError, ValueError, OverflowError):
        return Vulkan(problem="the Vulkan driver's answer is damaged")
    if problem is None and not devices:
        problem = "the Vulkan loader lists no device"
    return Vulkan(bool(document["library"]), devices, problem)


def egl(ended: Ended) -> Egl:
    """Return what ``ask_egl.py`` said."""
    try:
        document = _document(ended, "EGL")
        good = [display for display in document["displays"] if not display["error"]]
        displays = tuple(
            GlesDisplay(*(str(item[name]) for name in ("display", "vendor", "renderer", "version"))) for item in good
        )
        errors = list(dict.fromkeys(str(item["error"]) for item in document["displays"]))
        problem = _problem(document)
    except _NoAnswerError as exc:
        return Egl(problem=str(exc))
    except (KeyError, TypeError, ValueError):
        return Egl(problem="the EGL driver's answer is damaged")
    if problem is None and not good:
        problem = f"no EGL display can be used: {', '.join(errors)}" if errors else "EGL has no display"
    return Egl(bool(document["library"]), displays, problem)


def _problem(document: dict[str, Any]) -> str | None:
    return None if document["error"] is None else str(document["error"])


def _document(ended: Ended, name: str) -> dict[str, Any]:
    """Return the last line that is a document: a driver may have printed others."""
    if ended.problem is not None:
        raise _NoAnswerError(f"the {name} driver {ended.problem}")
    for line in reversed(ended.output.splitlines()):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and "library" in document:
            return document
    raise _NoAnswerError(f"the {name} driver ended with status {ended.status} and no answer: {ended.last_line}")


def version(number: int) -> str:
    """Return a packed Vulkan version as text (VK_API_VERSION_MAJOR and its siblings)."""
    return f"{number >> 22 & 0x7F}.{number >> 12 & 0x3FF}.{number & 0xFFF}"


def driver_version(vendor_id: int, number: int) -> str:
    """Return a driver's version as its maker writes it: NVIDIA packs 10, 8, 8 and 6 bits."""
    if vendor_id == 0x10DE:
        parts = (number >> 22, number >> 14 & 0xFF, number >> 6 & 0xFF)
        return ".".join(str(part) if index != 2 else f"{part:02d}" for index, part in enumerate(parts))
    return version(number)
