"""Everything that tells what a device did, as one zip file: the host package's own program collects it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from cfctl import steps
from cfctl.errors import CfctlError, UsageError
from cfctl.launch import census, registry, tools

if TYPE_CHECKING:
    from pathlib import Path

#: With Android's own report (``adb bugreport``) some minutes.
SECONDS = 300.0


def collect(name: str, path: Path, *, from_guest: bool = False, seconds: float = SECONDS) -> list[str]:
    """Write the report of a device, which may be down.

    :param path: absolute; nothing may be there.
    :param from_guest: with Android's own report, which needs a running device.
    :return: the names of what is in it.
    :raises UsageError: if something is there already.
    :raises HostLacks: if the host package has no program for it.
    :raises CfctlError: if no whole zip file came of it; what came is left.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already", None, "Name a new file.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory")
    with census.ours(name):
        record = registry.load(name)
    tool = tools.require(record, tools.BUGREPORT)
    words = [f"--output={path}", *(["--include_adb_bugreport=true"] if from_guest else [])]
    with steps.step(f"collect what {name} did"):
        done = tools.run(record, record.instances[0], tool, *words, seconds=seconds)
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise CfctlError(f"{path} is damaged", f"The first bad file in it is {broken}.")
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as exc:
        said = (done.stdout + done.stderr).strip()
        raise CfctlError(f"{tool.name} wrote no zip file to {path}", f"{exc}\n{said}".strip()) from exc
