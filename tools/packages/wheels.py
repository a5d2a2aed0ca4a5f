"""The bundled libraries: exactly those of requirements.lock, as built by their makers for any Linux with glibc 2.28.

pip can fetch for another Python than its own, so one machine makes the packages of all systems.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

from tools.packages import elf_versions
from tools.packages.targets import GLIBC, Target

#: For building only; nothing imports it.
_NOT_BUNDLED = ("setuptools",)

#: What pip writes down about an installation of its own; the rest of a .dist-info is the library's.
_PIPS = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


def lock_without_build_tools(lock: str) -> str:
    """Return a lock file without what is only needed to build."""
    entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if not entry.startswith(tuple(f"{name}==" for name in _NOT_BUNDLED)))


def fetch(lock: Path, target: Target, arch: str, cache: Path) -> Path:
    """Return a directory with the libraries for a target, fetched and checked against their hashes once."""
    wanted = lock_without_build_tools(lock.read_text())
    directory = cache / f"{target.python_name}-{arch}"
    stamp = directory / "requirements.lock"
    if stamp.is_file() and stamp.read_text() == wanted:
        return directory / "site-packages"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    listing = directory / "wanted.txt"
    listing.write_text(wanted)
    abi = f"cp{target.python[0]}{target.python[1]}"
    # An older tag is one that a library built for an older system still has.
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC[1], 16, -1)] + [f"manylinux2014_{arch}"]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"),
            *("--require-hashes", "--no-deps", "--no-compile", "--only-binary=:all:"),
            *("--implementation", "cp", "--python-version", ".".join(map(str, target.python))),
            *(word for name in (abi, "abi3", "none") for word in ("--abi", name)),
            *(word for name in platforms for word in ("--platform", name)),
            *("--target", directory / "site-packages", "--requirement", listing),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    _tidy(directory / "site-packages")
    elf_versions.check(directory / "site-packages")
    listing.rename(stamp)
    return directory / "site-packages"


def _tidy(site: Path) -> None:
    shutil.rmtree(site / "bin", ignore_errors=True)
    for name in _PIPS:
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def licences(site: Path) -> list[tuple[str, str, str]]:
    """Return name, version and licence of each bundled library, as its maker says them."""
    found = []
    for path in sorted(site.glob("*.dist-info/METADATA")):
        said = Parser().parsestr(path.read_text(errors="replace"), headersonly=True)
        classifiers = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier", []) if "License ::" in line]
        short = (said.get("License") or "").strip().partition("\n")[0]
        licence = said.get("License-Expression") or " and ".join(classifiers) or short or "see its files"
        found.append((said["Name"], said["Version"], licence))
    return found
