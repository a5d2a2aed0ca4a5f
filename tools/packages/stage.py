"""Lays out the files of all packages as they will lie on a host: one tree for each package, the same for deb and RPM.

cfctl and the libraries that it needs are a virtual environment of their own below /usr/lib/cfctl, made of files: the
interpreter is a link to the system's. Nothing else of the system's Python sees it, and it sees nothing of theirs.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cfctl
from tools.packages import completions, help_texts, wheels
from tools.packages.targets import Target, architecture

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / "build" / "packages"
PACKAGES = ("cfctl", "cfctl-host-resources", "cfctl-docker", "cfctl-relay", "cfctl-guest")

#: Where the private environment lies.
HOME = "usr/lib/cfctl"

_PROGRAM = """\
#!/usr/lib/cfctl/bin/python3 -I
from cfctl.__main__ import main

main()
"""

_VENV = """\
home = /usr/bin
include-system-site-packages = false
version = {version}
"""

#: Folders that nobody but root may look into: tokens, keys and certificates.
PRIVATE = ("var/lib/cfctl/relay",)

_QUERY = "packaging/launcher/capability_query"


@dataclass(frozen=True, slots=True)
class Stage:
    """The trees.

    :param directory: one folder for each package in it.
    :param epoch: when cfctl was last changed, which is how old every file is.
    :param version: cfctl's.
    """

    directory: Path
    target: Target
    arch: str
    epoch: int
    version: str = cfctl.__version__

    def root(self, package: str) -> Path:
        """Return the tree of a package."""
        return self.directory / package


def epoch() -> int:
    """Return the time that all files get: of the last commit, or what SOURCE_DATE_EPOCH says.

    :raises SystemExit: if neither is there.
    """
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    asked = ["git", "-C", str(REPO), "log", "-1", "--format=%ct"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit("This is no git checkout: say how old the source is, SOURCE_DATE_EPOCH=SECONDS make ...")
    return int(done.stdout)


def make(target: Target, guest: Path | None = None) -> Stage:
    """Lay out all files for a target; what was there from an earlier build is gone.

    :param guest: a folder with the embedded guest's image; without it, it is taken from the cache or built.
    """
    arch = architecture()
    stage = Stage(BUILD / target.name / "stage", target, arch, epoch())
    shutil.rmtree(stage.directory, ignore_errors=True)
    for package in PACKAGES:
        stage.root(package).mkdir(parents=True)
    site = wheels.fetch(REPO / "requirements.lock", target, arch, REPO / wheels.CACHE)
    _environment(stage, site)
    _listed_files(stage)
    _generated(stage, site)
    _guest(stage, guest)
    _upstreams(stage)
    (stage.root("cfctl") / "var/lib/cfctl").mkdir(parents=True)
    for folder in PRIVATE:
        (stage.root("cfctl-relay") / folder).mkdir(parents=True)
    _normalise(stage)
    return stage


def _environment(stage: Stage, site: Path) -> None:
    home = stage.root("cfctl") / HOME
    target = wheels.site_packages(home, stage.target)
    shutil.copytree(site, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPO / "cfctl", target / "cfctl", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"../../../bin/{stage.target.python_name}")
    write(home / "bin" / "cfctl", _PROGRAM, 0o755)
    write(home / "pyvenv.cfg", _VENV.format(version=".".join(map(str, stage.target.python))))
    program = stage.root("cfctl") / "usr/bin/cfctl"
    program.parent.mkdir(parents=True)
    program.symlink_to("../lib/cfctl/bin/cfctl")


def _listed_files(stage: Stage) -> None:
    for line in (REPO / "packaging" / "files.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        package, pattern, target, mode = line.split("\t")
        for source in sorted(REPO.glob(pattern)):
            place = stage.root(package) / target
            place = place / source.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
            place.chmod(int(mode, 8))


def _generated(stage: Stage, site: Path) -> None:
    root = stage.root("cfctl")
    for place, text in completions.scripts(stage.target.family):
        write(root / place, text)
    for name, text in help_texts.pages(stage.epoch):
        compress(root / "usr/share/man/man1" / f"{name}.gz", text)
    lines = ["Libraries in /usr/lib/cfctl, each with its own licence texts in its .dist-info folder there.", ""]
    lines += [f"{name} {version}: {licence}" for name, version, licence in wheels.licences(site)]
    lines += ["", "What their makers have built into them, or put beside them:", ""]
    table = REPO / "packaging" / "bundled-native.tsv"
    lines += [f"{wheel}, {name}: {licence}" for wheel, name, licence in wheels.native(site, table)]
    write(root / "usr/share/doc/cfctl/bundled.txt", "\n".join(lines) + "\n")


def _guest(stage: Stage, given: Path | None) -> None:
    """Add the embedded guest's image."""
    from cfctl import arch as arches
    from cfctl.guest import image

    found = image.Image(given) if given else image.ensure(arches.by_name(stage.arch))
    place = stage.root("cfctl-guest") / "usr/share/cfctl/guest" / stage.arch
    place.mkdir(parents=True)
    for source in found.files:
        shutil.copyfile(source, place / source.name)
    made = json.loads(found.description.read_text())
    lines = [
        "The guest's image was made from these Debian packages by `cfctl guest build` (cfctl/guest/image.py).",
        "Their source, of exactly these versions: apt-get source PACKAGE=VERSION, or the snapshots of its archive.",
        "",
        *(f"{name} {version}" for name, version in sorted(made["packages"].items())),
    ]
    write(stage.root("cfctl-guest") / "usr/share/doc/cfctl-guest/sources.txt", "\n".join(lines) + "\n")


def _upstreams(stage: Stage) -> None:
    """Add what upstream's package has: at its place where nobody ships that package.

    Elsewhere its settings are its own, and what launchers insist on is there for a link to it.
    """
    if stage.target.family == "rpm":
        defaults = (REPO / "packaging/etc/cuttlefish-host-resources.default").read_text()
        write(stage.root("cfctl-host-resources") / "etc/default/cuttlefish-host-resources", defaults)
    place = "usr/lib/cuttlefish-common/bin" if stage.target.family == "rpm" else "usr/share/cfctl"
    path = stage.root("cfctl-host-resources") / place / "capability_query.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPO / _QUERY, path)
    path.chmod(0o755)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def compress(path: Path, text: str) -> None:
    """Write a compressed file: equal texts make equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def is_private(path: Path) -> bool:
    """Tell whether a path of a package's tree is a folder for root alone."""
    return any(path.as_posix().endswith(f"/{folder}") for folder in PRIVATE)


def _normalise(stage: Stage) -> None:
    """Give every file the same age, and a mode that does not depend on who builds."""
    for path in sorted(stage.directory.rglob("*"), reverse=True):
        if not path.is_symlink():
            # Libraries are imported, whatever their makers' modes say.
            library = "site-packages" in path.parts
            executable = path.is_dir() or (path.stat().st_mode & 0o100 and not library)
            path.chmod(0o700 if is_private(path) else 0o755 if executable else 0o644)
        os.utime(path, (stage.epoch, stage.epoch), follow_symlinks=False)
