"""The packages, built once for all tests that look at them: by `make`, as a person does."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / "build" / "packages"

#: Guest images that other tests have made.
CACHE = REPO / "build" / "test-cache"

#: The targets that fit the Python of Debian 12, which is what the tests have.
DEB, RPM = "debian12", "el9"
NAMES = ("cfctl", "cfctl-host-resources", "cfctl-docker", "cfctl-relay", "cfctl-guest")

#: What packages are made of.
_INPUTS = ("CHANGELOG.md", "README.md", "Makefile", "cfctl", "docs", "gpu", "packaging", "requirements.lock", "tools")


@dataclass(frozen=True)
class Built:
    """Package name -> file."""

    deb: dict[str, Path]
    rpm: dict[str, Path]


def sources() -> list[Path]:
    """Return every file of the checkout that is, or will be, committed."""
    listed = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(REPO / name for name in names if name and (REPO / name).is_file())


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a build: the tests' cache, and one age for all builds."""
    return {**os.environ, "CFCTL_PATHS_CACHE": str(CACHE), **more}


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sources():
        relative = path.relative_to(REPO)
        if relative.parts[0] in _INPUTS:
            digest.update(f"{relative} {path.stat().st_mode & 0o100} ".encode() + path.read_bytes())
    return digest.hexdigest()


def packages() -> Built:
    """Return the packages of this checkout, built if it has changed since they were."""
    BUILD.mkdir(parents=True, exist_ok=True)
    stamp = BUILD / "tests.stamp"
    with (BUILD / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        if not stamp.exists() or stamp.read_text() != digest or not all(_found().values()):
            stamp.unlink(missing_ok=True)
            # The virtual environment that runs this test is there, however old its stamp is.
            make = ["make", "--no-print-directory", "-C", str(REPO), "-o", ".venv/.run", "deb", "rpm"]
            done = subprocess.run(
                make, env=environment(), capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
            )
            assert done.returncode == 0, done.stdout + done.stderr
            stamp.write_text(digest)
        found = _found()
    return Built(*_sorted(found))


def _found() -> dict[str, list[Path]]:
    deb = {f"deb {name}": sorted((REPO / "dist" / DEB).glob(f"{name}_*.deb")) for name in NAMES}
    rpm = {f"rpm {name}": sorted((REPO / "dist" / RPM).glob(f"{name}-[0-9]*.rpm")) for name in NAMES}
    return deb | rpm


def _sorted(found: dict[str, list[Path]]) -> tuple[dict[str, Path], dict[str, Path]]:
    deb = {name: found[f"deb {name}"][0] for name in NAMES}
    rpm = {name: found[f"rpm {name}"][0] for name in NAMES}
    return deb, rpm
