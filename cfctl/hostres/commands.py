"""The command that carries out what the settings say, wherever they came from: people type what they are told."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.config import KEYS

if TYPE_CHECKING:
    from cfctl.config import Settings, Value


def set_up(settings: Settings, *options: str) -> str:
    """Return the command for root that sets the host up by the same settings.

    sudo hands no variables on, and root has a file of its own: what came from the environment, from flags or from
    another file is named.

    :param settings: as they were loaded, before the host had a say in them.
    """
    variables, flags, files = [], [], []
    for name, found in settings.values.items():
        if not name.startswith("host.") or found.origin in ("built-in", str(paths.ROOTS_SETTINGS)):
            continue
        if found.origin == KEYS[name].variable:
            variables.append(f"{found.origin}={shlex.quote(as_text(found))}")
        elif found.origin.startswith("--"):
            flags += _flag(found)
        elif not found.origin.startswith(f"{paths.UPSTREAM_DEFAULTS}:"):
            files.append(f"--config {shlex.quote(str(Path(found.origin).absolute()))}")
    return " ".join(["sudo", *variables, "cfctl host setup", *flags, *dict.fromkeys(files), *options])


def as_text(found: Value) -> str:
    """Return a value as one writes it in the environment."""
    if isinstance(found.value, bool):
        return str(found.value).lower()
    return ",".join(map(str, found.value)) if isinstance(found.value, tuple) else str(found.value)


def _flag(found: Value) -> list[str]:
    if isinstance(found.value, bool):
        return [found.origin if found.value else f"--no-{found.origin.removeprefix('--')}"]
    return [found.origin, shlex.quote(as_text(found))]
