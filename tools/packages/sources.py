"""What a source package has in it: this checkout, the bundled libraries as their makers built them, the guest."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from tools.packages import wheels
from tools.packages.stage import REPO, Stage

#: All that the packages are made of, and what a reader of the source looks for.
_CHECKOUT = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md", "cfctl", "docs", "gpu", "packaging", "proto"),
    *("pyproject.toml", "requirements-dev.lock", "requirements.lock", "tools"),
)


def write(stage: Stage, directory: Path) -> None:
    """Write the archives that the spec names; equal trees make equal bytes."""
    directory.mkdir(parents=True)
    top = f"cfctl-{stage.version}"
    _archive(directory / f"{top}.tar", stage.epoch, [(REPO / name, f"{top}/{name}") for name in _CHECKOUT])
    fetched = wheels.place(REPO / wheels.CACHE, stage.target, stage.arch) / "wheels"
    name = f"cfctl-libraries-{stage.target.python_name}-{stage.arch}.tar"
    _archive(directory / name, stage.epoch, [(fetched, "wheels")])
    guest = stage.root("cfctl-guest") / "usr/share/cfctl/guest" / stage.arch
    _archive(directory / f"cfctl-guest-{stage.arch}.tar", stage.epoch, [(guest, "guest")])


def _archive(file: Path, epoch: int, trees: list[tuple[Path, str]]) -> None:
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        for tree, name in trees:
            for path, inside in _files(tree, name):
                entry = archive.gettarinfo(path, inside)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                entry.mtime = epoch
                entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
                if entry.isreg():
                    with path.open("rb") as data:
                        archive.addfile(entry, data)
                else:
                    archive.addfile(entry)


def _files(tree: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield tree, name
    if tree.is_dir() and not tree.is_symlink():
        for path in sorted(tree.iterdir()):
            if path.name != "__pycache__":
                yield from _files(path, f"{name}/{path.name}")
