"""What a directory is: a host package, a guest's images, or both, and where in it they begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: A directory is a host package if it has one of these (android-cuttlefish ``cvd/cli/utils.cpp``).
LAUNCHERS = ("cvd_internal_start", "launch_cvd")

#: What a build leaves a host package in (launcher.md section 1, docker.md section 1).
PACKAGE_ARCHIVE = "cvd-host_package.tar.gz"


@dataclass(frozen=True, slots=True)
class Content:
    """What was found in a directory.

    :param host_package: where ``bin`` is; None if there is no launcher.
    :param images: where the ``*.img`` are; None if there are none.
    """

    host_package: Path | None
    images: Path | None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The words of ``images list``."""
        named = {"host-package": self.host_package, "images": self.images}
        return tuple(kind for kind, place in named.items() if place is not None)


def look(directory: Path) -> Content:
    """Look into a directory, and into the one directory in it if that is all it holds."""
    places = [directory, *_only_child(directory)]
    return Content(
        next((place for place in places if is_host_package(place)), None),
        next((place for place in places if has_images(place)), None),
    )


def is_host_package(directory: Path) -> bool:
    """Tell whether there is a launcher in it."""
    return any((directory / "bin" / name).is_file() for name in LAUNCHERS)


def has_images(directory: Path) -> bool:
    """Tell whether there are images in it."""
    return any(directory.glob("*.img"))


def _only_child(directory: Path) -> list[Path]:
    children = [path for path in directory.iterdir() if not path.name.startswith(".")]
    return children if len(children) == 1 and children[0].is_dir() and not children[0].is_symlink() else []
