"""A program of its own: load the graphics libraries and the drivers that are registered, one after the other.

Run as ``python -I ask_libraries.py``, never imported by cfctl: loading a driver may crash or hang whoever does it.
Only the standard library is used. Each item is announced before it is loaded, one line of JSON each, so that a crash
has a name. Where drivers are registered: the Vulkan loader's LoaderDriverInterface.md, libglvnd's icd_enumeration.md.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

_LIBRARIES = ("libEGL.so.1", "libGLESv2.so.2", "libvulkan.so.1", "libGL.so.1", "libgbm.so.1")
#: No host has more; a directory of anything else is not read to its end.
_MAX_MANIFESTS = 64


def _vulkan_manifests() -> list[Path]:
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        if os.environ.get(variable):
            return [Path(part) for part in os.environ[variable].split(":") if part]
    added = [Path(part) for part in os.environ.get("VK_ADD_DRIVER_FILES", "").split(":") if part]
    home = os.environ.get("HOME", "/root")
    roots = [
        os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config",
        "/etc",
        "/usr/local/etc",
        os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share",
        "/usr/local/share",
        "/usr/share",
    ]
    return [*added, *(file for root in roots for file in sorted(Path(root, "vulkan/icd.d").glob("*.json")))]


def _egl_manifests() -> list[Path]:
    if files := os.environ.get("__EGL_VENDOR_LIBRARY_FILENAMES"):
        return [Path(part) for part in files.split(":") if part]
    directories = os.environ.get("__EGL_VENDOR_LIBRARY_DIRS", "/etc/glvnd/egl_vendor.d:/usr/share/glvnd/egl_vendor.d")
    return [file for directory in directories.split(":") for file in sorted(Path(directory).glob("*.json"))]


def _library_of(manifest: Path) -> str:
    """Return what a manifest names: a path beside it, or a name for the dynamic linker."""
    document: Any = json.loads(manifest.read_text(errors="replace"))
    name = str(document["ICD"]["library_path"])
    return str(manifest.parent / name) if "/" in name and not name.startswith("/") else name


def _tell(**line: str | None) -> None:
    sys.stdout.write("\n" + json.dumps(line) + "\n")
    sys.stdout.flush()


def _load(what: str, name: str, library: str) -> None:
    _tell(what=what, name=name, library=library, state="loading", error=None)
    try:
        ctypes.CDLL(library)
    except OSError as exc:
        _tell(what=what, name=name, library=library, state="missing", error=str(exc))
    else:
        _tell(what=what, name=name, library=library, state="loaded", error=None)


def main() -> None:
    """Load everything."""
    for library in _LIBRARIES:
        _load("library", library, library)
    for what, manifests in (("vulkan driver", _vulkan_manifests()), ("egl driver", _egl_manifests())):
        for manifest in manifests[:_MAX_MANIFESTS]:
            try:
                library = _library_of(manifest)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
                _tell(
                    what=what, name=str(manifest), library="", state="missing", error=f"{type(exc).__name__}: {exc}"
                )
                continue
            _load(what, str(manifest), library)


if __name__ == "__main__":
    # A driver that crashes shall leave no core file behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
    # Without the drivers' own exit handlers, which crash more often than they do good.
    os._exit(0)
