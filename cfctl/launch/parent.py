"""A parent process for launchers that is called ``cvd``.

``cvd_internal_start`` from 1.56 on looks at ``/proc/PPID/exe``: unless that ends in ``/cvd`` it hands the launch over
to ``cvd create``, with another HOME, other numbers and a database (launcher.md T1). A link would be resolved, so a
copy of the shell is put there, which does no more than run what it is given and end as that ended.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.errors import HostLacks
from cfctl.launch import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Words reach it as arguments, never as text. The second command keeps the shell from becoming the first.
_SCRIPT = '"$@"; exit $?'

#: A shell tells that its child was killed by signal N with status 128 + N (POSIX, 2.8.2).
_SIGNALLED = 128
_LAST_SIGNAL = 64


def argv(directory: Path, command: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return the command that runs ``command`` as the child of a process called ``cvd``.

    :param directory: where the copy is kept; it is made.
    :raises HostLacks: if the host's shell cannot be copied to another name.
    :raises CfctlError: if the disk is full or read-only.
    """
    shell = next((found for path in paths.SHELLS if _is_plain(found := path.resolve())), None)
    if shell is None:
        raise HostLacks(
            "there is no shell that can be copied",
            f"Looked at: {', '.join(map(os.fspath, paths.SHELLS))}. busybox is none: it acts by its name.",
            "Install one: apt-get install dash, or dnf install bash",
        )
    copy = directory / "cvd"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        shutil.copyfile(shell, copy)
        copy.chmod(0o755)
    except OSError as exc:
        raise registry.disk_error(directory, exc) from exc
    return [copy, "-c", _SCRIPT, "cvd", *command]


def _is_plain(shell: Path) -> bool:
    return shell.is_file() and not shell.name.startswith("busybox")


def status(code: int) -> int:
    """Return the exit status of what was run: negative for a signal, as for a child of our own."""
    return _SIGNALLED - code if _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL else code
