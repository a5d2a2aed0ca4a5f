"""The systems that packages are made for: one build for each, because of the Python that each of them has."""

from __future__ import annotations

import platform
from dataclasses import dataclass

#: Debian's and the RPM world's names of processors.
DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

#: The oldest C library among the targets (EL8), which no bundled library may go beyond.
GLIBC = (2, 28)


@dataclass(frozen=True, slots=True)
class Target:
    """A system.

    :param family: ``deb`` or ``rpm``.
    :param python: the version that it has, and the package that brings it.
    :param suffix: of the package's release: which of two builds is for which system.
    """

    name: str
    family: str
    python: tuple[int, int]
    python_package: str
    suffix: str

    @property
    def python_name(self) -> str:
        """The interpreter's name, such as python3.11."""
        return f"python{self.python[0]}.{self.python[1]}"


TARGETS = {
    target.name: target
    for target in (
        Target("debian12", "deb", (3, 11), "python3.11", "~deb12"),
        Target("debian13", "deb", (3, 13), "python3.13", "~deb13"),
        # Its own is 3.10; this one is in universe.
        Target("ubuntu22.04", "deb", (3, 11), "python3.11", "~ubuntu22.04"),
        Target("ubuntu24.04", "deb", (3, 12), "python3.12", "~ubuntu24.04"),
        # From AppStream, beside the system's own 3.6 and 3.9.
        Target("el8", "rpm", (3, 11), "python3.11", ".el8"),
        Target("el9", "rpm", (3, 11), "python3.11", ".el9"),
        Target("el10", "rpm", (3, 12), "python3", ".el10"),
        Target("fedora42", "rpm", (3, 13), "python3", ".fc42"),
        Target("fedora43", "rpm", (3, 14), "python3", ".fc43"),
    )
}

#: What is made when no target is named: the system that this is developed on, and the one most RPM users have.
DEFAULTS = {"deb": "debian12", "rpm": "el9"}


def architecture() -> str:
    """Return this machine's processor: packages are made for it."""
    return platform.machine()
