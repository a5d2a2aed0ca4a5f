"""The command line: `python -m tools.packages deb|rpm [TARGET] [--out DIR]`.

`lay-out TARGET` makes no packages, only the trees that they are made of: what the source package's spec calls.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.packages import deb, rpm, stage
from tools.packages.targets import DEFAULTS, TARGETS


def main() -> None:
    """Make the packages and print their names."""
    parser = argparse.ArgumentParser(prog="tools.packages", description="Make packages of cfctl.")
    parser.add_argument("family", choices=[*sorted(DEFAULTS), "lay-out"])
    parser.add_argument("target", nargs="?", help=f"which system they are for: {', '.join(TARGETS)}")
    parser.add_argument("--out", type=Path, help="where to [default: dist/TARGET]")
    parser.add_argument(
        "--guest", type=Path, help="a folder with the guest's image [default: from the cache, or built]"
    )
    said = parser.parse_args()
    os.umask(0o022)
    if said.family == "lay-out":
        print(stage.make(TARGETS[said.target], said.guest).directory)
        return
    target = TARGETS.get(said.target or DEFAULTS[said.family])
    if target is None or target.family != said.family:
        names = [name for name, known in TARGETS.items() if known.family == said.family]
        parser.error(f"there is no target {said.target!r} for {said.family}; there are {', '.join(names)}")
    out: Path = said.out or stage.REPO / "dist" / target.name
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"cfctl*.{said.family}"):
        old.unlink()
    laid_out = stage.make(target, said.guest)
    for file in (deb if said.family == "deb" else rpm).build(laid_out, out):
        print(file)
    if said.family == "rpm":
        print(rpm.build_source(laid_out, out))


if __name__ == "__main__":
    main()
