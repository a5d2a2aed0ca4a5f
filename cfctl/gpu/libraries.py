"""Which graphics libraries and registered drivers can be loaded, and the package that brings each that cannot."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cfctl import distro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.gpu.child import Ended

#: Without these no accelerated mode can work; the others are only good to know.
_NEEDED = ("libEGL.so.1", "libGLESv2.so.2", "libvulkan.so.1")


@dataclass(frozen=True, slots=True)
class Library:
    """A library, or a driver that is registered in a manifest.

    :param what: ``library``, ``vulkan driver`` or ``egl driver``.
    :param name: the library's name, the manifest's path.
    :param library: what is loaded.
    :param error: why it cannot be loaded; None if it can.
    :param help: the command that installs it.
    """

    what: str
    name: str
    library: str
    error: str | None = None
    help: str | None = None

    @property
    def needed(self) -> bool:
        """Tell whether accelerated modes cannot do without it."""
        return self.what == "library" and self.name in _NEEDED


def understand(ended: Ended) -> tuple[Library, ...]:
    """Return what ``ask_libraries.py`` found; the one that made it crash or hang comes last."""
    found: dict[tuple[str, str], Library] = {}
    for line in _lines(ended.output):
        key = (line["what"], line["name"])
        found[key] = Library(*key, line["library"])
        if line["state"] == "missing":
            found[key] = replace(found[key], error=line["error"] or "it cannot be loaded", help=_help(*key))
        elif line["state"] == "loading":
            # The line that says how it went takes its place; without one this is what happened.
            found[key] = replace(found[key], error=f"the program that loads it {ended.problem or 'ended'}")
    return tuple(found.values())


def _lines(output: str) -> Iterator[dict[str, Any]]:
    for text in output.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and all(isinstance(line.get(key), str) for key in ("what", "name", "library")):
                yield {"state": "", "error": None, **line}


def _help(what: str, name: str) -> str | None:
    if what == "library":
        return distro.install_command(name)
    return f"Install the driver that {name} belongs to, or remove that file."
