"""RPM packages from the laid out trees, by rpmbuild; what they are is in packaging/rpm/cfctl.spec.

The source package beside them has all that they are made of, libraries and guest included: `rpmbuild --rebuild` makes
the same packages of it without any network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tools.packages import sources, wheels
from tools.packages.stage import PACKAGES, REPO, Stage

SPEC = REPO / "packaging" / "rpm" / "cfctl.spec"

#: Where in the folder of the packages the source package is put: nobody means to install it.
SOURCE = "source"

#: The place in the spec for what is bundled.
_BUNDLED = "#bundled\n"


def build(stage: Stage, out: Path) -> list[Path]:
    """Return the packages, made in ``out``."""
    work, spec = _work(stage)
    made = work / "made"
    _rpmbuild("-bb", spec, work, stage, {"staged": str(stage.directory)})
    files = [next(made.glob(f"{package}-{stage.version}-*.rpm")) for package in PACKAGES]
    moved = [Path(shutil.move(file, out / file.name)) for file in files]
    shutil.rmtree(work)
    return moved


def build_source(stage: Stage, out: Path) -> Path:
    """Return the source package, made below ``out``; its libraries were fetched for the trees."""
    work, spec = _work(stage)
    sources.write(stage, work / "SOURCES")
    # Wheels, kernel and initramfs are compressed already.
    _rpmbuild("-bs", spec, work, stage, {"_source_payload": "w0.gzdio"})
    shutil.rmtree(out / SOURCE, ignore_errors=True)
    (out / SOURCE).mkdir()
    made = next((work / "SRPMS").glob("*.src.rpm"))
    moved = Path(shutil.move(made, out / SOURCE / made.name))
    shutil.rmtree(work)
    return moved


def _work(stage: Stage) -> tuple[Path, Path]:
    work = stage.directory.parent / "rpmbuild"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    spec = work / "cfctl.spec"
    spec.write_text(specification(stage))
    return work, spec


def specification(stage: Stage) -> str:
    """Return the spec with all that this build knows written into it."""
    facts = {
        # Whoever builds it, wherever and whenever: the same bytes.
        "_buildhost": "cfctl",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "source_date_epoch_from_changelog": "0",
        "_build_id_links": "none",
        "changed": datetime.fromtimestamp(stage.epoch, UTC).strftime("%a %b %d %Y"),
        "changed_epoch": str(stage.epoch),
        "cfctl_version": stage.version,
        "dist": stage.target.suffix,
        "target": stage.target.name,
        "python": stage.target.python_name,
        "python_package": stage.target.python_package,
        "guest_arch": stage.arch,
    }
    head = "".join(f"%global {name} {value}\n" for name, value in facts.items())
    return head + SPEC.read_text().replace(_BUNDLED, "".join(f"Provides:       {what}\n" for what in _bundled(stage)))


def _bundled(stage: Stage) -> list[str]:
    """Return what the main package brings that others ship as packages, in the words that Fedora has for it."""
    site = wheels.site_packages(stage.root("cfctl") / "usr/lib/cfctl", stage.target)
    python = [f"bundled(python3dist({wheels.canonical(name)})) = {of}" for name, of, _ in wheels.licences(site)]
    table = REPO / "packaging" / "bundled-native.tsv"
    native = {name.lower() for _, name, _ in wheels.native(site, table)}
    return [*python, *(f"bundled({name})" for name in sorted(native) if " " not in name)]


def _rpmbuild(what: str, spec: Path, work: Path, stage: Stage, more: Mapping[str, str]) -> None:
    defines = {
        "_topdir": str(work),
        "_rpmdir": str(work / "made"),
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        "_dbpath": str(work / "db"),
        **more,
    }
    subprocess.run(
        [
            *("rpmbuild", what, "--quiet", "--nodeps", "--target", stage.arch),
            *(word for name, value in defines.items() for word in ("--define", f"{name} {value}")),
            spec,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Debian's rpm makes a database in the home directory.
        env=dict(os.environ, HOME=str(work), SOURCE_DATE_EPOCH=str(stage.epoch), TZ="UTC", LC_ALL="C.UTF-8"),
    )
