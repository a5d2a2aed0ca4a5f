"""RPM packages from the laid out trees, by rpmbuild; what they are is in packaging/rpm/cfctl.spec."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tools.packages.stage import PACKAGES, REPO, Stage

SPEC = REPO / "packaging" / "rpm" / "cfctl.spec"


def build(stage: Stage, out: Path) -> list[Path]:
    """Return the packages, made in ``out``."""
    work = stage.directory.parent / "rpmbuild"
    shutil.rmtree(work, ignore_errors=True)
    made = work / "made"
    defines = {
        "_topdir": str(work),
        "_rpmdir": str(made),
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        # Whoever builds it, wherever and whenever: the same bytes.
        "_buildhost": "cfctl",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "source_date_epoch_from_changelog": "0",
        "_build_id_links": "none",
        "_dbpath": str(work / "db"),
        "staged": str(stage.directory),
        "changed": datetime.fromtimestamp(stage.epoch, UTC).strftime("%a %b %d %Y"),
        "cfctl_version": stage.version,
        "dist": stage.target.suffix,
        "python": stage.target.python_name,
        "python_package": stage.target.python_package,
        "guest_arch": stage.arch,
    }
    work.mkdir(parents=True)
    subprocess.run(
        [
            *("rpmbuild", "-bb", "--quiet", "--target", stage.arch),
            *(word for name, value in defines.items() for word in ("--define", f"{name} {value}")),
            SPEC,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        # Debian's rpm makes a database in the home directory.
        env=dict(os.environ, HOME=str(work), SOURCE_DATE_EPOCH=str(stage.epoch), TZ="UTC", LC_ALL="C.UTF-8"),
    )
    files = [next(made.glob(f"{package}-{stage.version}-*.rpm")) for package in PACKAGES]
    moved = [Path(shutil.move(file, out / file.name)) for file in files]
    shutil.rmtree(work)
    return moved
