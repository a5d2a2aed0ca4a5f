"""The packages, built once for all tests that look at them, in whichever process: by `make`, as a person does.

They are kept under the hash of what they are made of, so that another run of the same checkout builds nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
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
    """Package name -> file.

    :param source: what the RPMs can be made of again.
    """

    deb: dict[str, Path]
    rpm: dict[str, Path]
    source: Path


def sources() -> list[Path]:
    """Return every file of the checkout that is, or will be, committed."""
    listed = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(REPO / name for name in names if name and (REPO / name).is_file())


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a build: the tests' cache, and one age for all builds."""
    return {**os.environ, "CFCTL_PATHS_CACHE": str(CACHE), **more}


def epoch() -> str:
    """Return the age that the files of this checkout's packages have."""
    log = ["git", "-C", str(REPO), "log", "-1", "--format=%ct"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()


def _digest() -> str:
    digest = hashlib.sha256(epoch().encode())
    for path in sources():
        relative = path.relative_to(REPO)
        if relative.parts[0] in _INPUTS:
            digest.update(f"{relative} {path.stat().st_mode & 0o100} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def packages() -> Built:
    """Return the packages of this checkout, built if it has changed since they were."""
    store = CACHE / "packages"
    store.mkdir(parents=True, exist_ok=True)
    kept = store / _digest()
    with (CACHE / "packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _build(kept)
            # Of two: another run may look at those of the checkout as it was a moment ago.
            for old in sorted(store.iterdir(), key=lambda path: path.stat().st_mtime)[:-2]:
                shutil.rmtree(old)
    found = {
        family: {name: next((kept / target).glob(f"{name}{mark}")) for name in NAMES}
        for family, target, mark in (("deb", DEB, "_*.deb"), ("rpm", RPM, "-[0-9]*.rpm"))
    }
    return Built(**found, source=next((kept / RPM / "source").iterdir()))


def _build(kept: Path) -> None:
    # The virtual environment that runs this test is there, however old its stamp is. Both families at once.
    make = ["make", "--no-print-directory", "-j2", "-C", str(REPO), "-o", ".venv/.run", "deb", "rpm"]
    done = subprocess.run(
        make, env=environment(), capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    part = kept.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for target in (DEB, RPM):
        shutil.copytree(REPO / "dist" / target, part / target)
    part.rename(kept)
