"""The bundled libraries: exactly those of requirements.lock, as built by their makers for any Linux with glibc 2.28.

pip can fetch for another Python than its own, so one machine makes the packages of all systems.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

from tools.packages import elf_versions
from tools.packages.targets import GLIBC, TARGETS, Target, architecture

REPO = Path(__file__).resolve().parents[2]

#: Where what was fetched is kept, in a checkout.
CACHE = Path("build/packages/wheels")

#: For building only; nothing imports it.
_NOT_BUNDLED = ("setuptools",)

#: What pip writes down about an installation of its own; the rest of a .dist-info is the library's.
_PIPS = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


def lock_without_build_tools(lock: str) -> str:
    """Return a lock file without what is only needed to build."""
    entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if not entry.startswith(tuple(f"{name}==" for name in _NOT_BUNDLED)))


def place(cache: Path, target: Target, arch: str) -> Path:
    """Return where what was fetched for a target is: ``wheels``, and ``site-packages`` made of them."""
    return cache / f"{target.python_name}-{arch}"


def site_packages(environment: Path, target: Target) -> Path:
    """Return where the libraries of a virtual environment are."""
    return environment / "lib" / target.python_name / "site-packages"


def canonical(name: str) -> str:
    """Return a project's name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch(lock: Path, target: Target, arch: str, cache: Path, given: Path | None = None) -> Path:
    """Return a directory with the libraries for a target, fetched and checked against their hashes once.

    Two builds at once, for targets with the same Python, fetch them once.

    :param given: a folder that has them already; no index is asked then.
    """
    wanted = lock_without_build_tools(lock.read_text())
    directory = place(cache, target, arch)
    stamp = directory / "requirements.lock"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{directory.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted or not (directory / "wheels").is_dir():
            _fetch(wanted, target, arch, directory, given)
            stamp.write_text(wanted)
    return directory / "site-packages"


def _fetch(wanted: str, target: Target, arch: str, directory: Path, given: Path | None) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    listing = directory / "wanted.txt"
    listing.write_text(wanted)
    abi = f"cp{target.python[0]}{target.python[1]}"
    # An older tag is one that a library built for an older system still has.
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC[1], 16, -1)] + [f"manylinux2014_{arch}"]
    chosen = [
        *("--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", str(listing)),
        *("--implementation", "cp", "--python-version", ".".join(map(str, target.python))),
        *(word for name in (abi, "abi3", "none") for word in ("--abi", name)),
        *(word for name in platforms for word in ("--platform", name)),
    ]
    found = given.absolute() if given else directory / "wheels"
    if given is None:
        _pip("download", "--dest", found, *chosen)
    _pip(
        "install",
        "--no-compile",
        "--no-index",
        "--find-links",
        found,
        "--target",
        directory / "site-packages",
        *chosen,
    )
    _tidy(directory / "site-packages")
    elf_versions.check(directory / "site-packages")
    listing.unlink()
    if given is not None:
        (directory / "wheels").symlink_to(found)


def _pip(*args: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, *args], check=True, stdin=subprocess.DEVNULL)


def _tidy(site: Path) -> None:
    shutil.rmtree(site / "bin", ignore_errors=True)
    for name in _PIPS:
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def native(site: Path, table: Path) -> list[tuple[str, str, str]]:
    """Return wheel, name and licence of what the wheels bring besides their own code.

    :param table: where somebody has written down what each of them is.
    :raises SystemExit: if there is a library that the table does not know; its licence has to be looked up.
    """
    rows = [line.split("\t") for line in table.read_text().splitlines() if not line.startswith("#")]
    files = sorted((path.parent.name.removesuffix(".libs"), path.name) for path in site.glob("*.libs/*.so*"))
    found = {(wheel, what, licence) for wheel, beginning, what, licence in rows if beginning == "-"}
    for wheel, file in files:
        known = [
            (what, licence) for of, beginning, what, licence in rows if of == wheel and file.startswith(beginning)
        ]
        if not known:
            raise SystemExit(f"{wheel} brings {file}, whose licence is not in {table}")
        found.update((wheel, what, licence) for what, licence in known)
    return sorted(found, key=lambda row: (row[0].lower(), row[1].lower()))


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


def main() -> None:
    """Take the libraries from a folder: `python -m tools.packages.wheels TARGET FOLDER`.

    It is what a source package does first: the rest of tools.packages needs libraries itself.
    """
    target, folder = sys.argv[1:]
    print(fetch(REPO / "requirements.lock", TARGETS[target], architecture(), REPO / CACHE, Path(folder)))


if __name__ == "__main__":
    main()
