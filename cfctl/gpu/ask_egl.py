"""A program of its own: ask EGL who would draw OpenGL ES here and print the answers as one line of JSON.

Run as ``python -I ask_egl.py``, never imported by cfctl: loading a driver may crash or hang whoever does it.
Only the standard library is used. Constants are those of EGL 1.5 and its extensions (egl.xml of the Khronos
registry).

Several displays are asked, because they can be served by different drivers of one host: where the libraries of
Mesa and NVIDIA are both installed, the surfaceless display is Mesa's and the devices' displays are NVIDIA's.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import Any

_EXTENSIONS = 0x3055
_NONE = 0x3038
_PLATFORM_SURFACELESS = 0x31DD
_PLATFORM_DEVICE = 0x313F
_OPENGL_ES_API = 0x30A0
_SURFACE_TYPE, _PBUFFER_BIT = 0x3033, 0x0001
_RENDERABLE_TYPE, _ES2_BIT = 0x3040, 0x0004
_CONTEXT_MAJOR_VERSION = 0x3098
_WIDTH, _HEIGHT = 0x3057, 0x3056
_GL_VENDOR, _GL_RENDERER, _GL_VERSION = 0x1F00, 0x1F01, 0x1F02
_ERRORS = {
    0x3001: "EGL_NOT_INITIALIZED",
    0x3002: "EGL_BAD_ACCESS",
    0x3003: "EGL_BAD_ALLOC",
    0x3004: "EGL_BAD_ATTRIBUTE",
    0x3005: "EGL_BAD_CONFIG",
    0x3006: "EGL_BAD_CONTEXT",
    0x3008: "EGL_BAD_DISPLAY",
    0x3009: "EGL_BAD_MATCH",
}
_MAX_DEVICES = 32

_pointer = ctypes.c_void_p


class _EglError(Exception):
    """An EGL call did not work."""


def _declare(egl: ctypes.CDLL) -> None:
    """Tell ctypes which results are pointers; its default, an int, loses half of one."""
    for name in ("eglGetDisplay", "eglCreateContext", "eglCreatePbufferSurface", "eglGetProcAddress"):
        getattr(egl, name).restype = _pointer
    egl.eglQueryString.restype = ctypes.c_char_p
    egl.eglQueryString.argtypes = (_pointer, ctypes.c_int)
    egl.eglGetDisplay.argtypes = (_pointer,)
    egl.eglGetProcAddress.argtypes = (ctypes.c_char_p,)
    egl.eglInitialize.argtypes = (_pointer, _pointer, _pointer)
    egl.eglTerminate.argtypes = (_pointer,)
    egl.eglChooseConfig.argtypes = (_pointer, _pointer, _pointer, ctypes.c_int, _pointer)
    egl.eglCreateContext.argtypes = (_pointer, _pointer, _pointer, _pointer)
    egl.eglCreatePbufferSurface.argtypes = (_pointer, _pointer, _pointer)
    egl.eglMakeCurrent.argtypes = (_pointer, _pointer, _pointer, _pointer)


def _check(egl: ctypes.CDLL, what: str, result: Any) -> Any:
    if not result:
        code = egl.eglGetError()
        raise _EglError(f"{what}: {_ERRORS.get(code, hex(code))}")
    return result


def _ints(*values: int) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * (len(values) + 1))(*values, _NONE)


def _function(egl: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Return an extension's function, or None where the library has none of that name."""
    address = egl.eglGetProcAddress(name.encode())
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def _displays(egl: ctypes.CDLL) -> list[tuple[str, int | None]]:
    """Return every display that a program without a window could draw on."""
    found = [("default", egl.eglGetDisplay(None))]
    client = (egl.eglQueryString(None, _EXTENSIONS) or b"").decode().split()
    platform = _function(egl, "eglGetPlatformDisplayEXT", _pointer, ctypes.c_uint, _pointer, _pointer)
    if platform is None:
        return found
    if "EGL_MESA_platform_surfaceless" in client:
        found.append(("surfaceless", platform(_PLATFORM_SURFACELESS, None, None)))
    query = _function(egl, "eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, _pointer, _pointer)
    if query is not None and "EGL_EXT_platform_device" in client:
        devices = (_pointer * _MAX_DEVICES)()
        count = ctypes.c_int()
        if query(_MAX_DEVICES, devices, ctypes.byref(count)):
            found += [
                (f"device {index}", platform(_PLATFORM_DEVICE, devices[index], None)) for index in range(count.value)
            ]
    return found


def _context(egl: ctypes.CDLL, display: int) -> None:
    """Make an OpenGL ES context current on ``display``, version 3 or else 2."""
    config, count = _pointer(), ctypes.c_int()
    wanted = _ints(_SURFACE_TYPE, _PBUFFER_BIT, _RENDERABLE_TYPE, _ES2_BIT)
    _check(
        egl,
        "eglChooseConfig",
        egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(count)) and count.value,
    )
    for major in (3, 2):
        context = egl.eglCreateContext(display, config, None, _ints(_CONTEXT_MAJOR_VERSION, major))
        if context:
            break
    _check(egl, "eglCreateContext", context)
    if "EGL_KHR_surfaceless_context" in (egl.eglQueryString(display, _EXTENSIONS) or b"").decode().split():
        surface = None
    else:
        surface = _check(
            egl,
            "eglCreatePbufferSurface",
            egl.eglCreatePbufferSurface(display, config, _ints(_WIDTH, 16, _HEIGHT, 16)),
        )
    _check(egl, "eglMakeCurrent", egl.eglMakeCurrent(display, surface, surface, context))


def _strings(egl: ctypes.CDLL) -> dict[str, str]:
    get = _function(egl, "glGetString", ctypes.c_char_p, ctypes.c_uint)
    if get is None:
        raise _EglError("there is no glGetString")
    names = {"vendor": _GL_VENDOR, "renderer": _GL_RENDERER, "version": _GL_VERSION}
    return {name: (get(number) or b"").decode(errors="replace") for name, number in names.items()}


def _ask_display(egl: ctypes.CDLL, name: str, display: int | None) -> dict[str, Any]:
    try:
        _check(egl, "eglGetPlatformDisplay", display)
        assert display is not None  # noqa: S101 (for the type checker)
        _check(egl, "eglInitialize", egl.eglInitialize(display, None, None))
        _check(egl, "eglBindAPI", egl.eglBindAPI(_OPENGL_ES_API))
        _context(egl, display)
        answer: dict[str, Any] = {"display": name, "error": None, **_strings(egl)}
        egl.eglMakeCurrent(display, None, None, None)
        egl.eglTerminate(display)
    except _EglError as exc:
        return {"display": name, "error": str(exc), "vendor": "", "renderer": "", "version": ""}
    return answer


def ask() -> dict[str, Any]:
    """Return ``library`` (could it be loaded), ``displays`` and, if it did not go well, ``error``."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError as exc:
        return {"library": False, "displays": [], "error": str(exc)}
    _declare(egl)
    answers = [_ask_display(egl, name, display) for name, display in _displays(egl)]
    return {"library": True, "displays": answers, "error": None}


if __name__ == "__main__":
    # A driver that crashes shall leave no core file behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The newline first: a driver may have printed half a line.
    sys.stdout.write("\n" + json.dumps(ask()) + "\n")
    sys.stdout.flush()
    # Without the drivers' own exit handlers, which crash more often than they do good.
    os._exit(0)
