"""Fetches Debian packages without touching the system's package state: apt with a configuration of its own.

Works for an ordinary user and for another architecture than the host's. Packages are verified by apt, unpacked with
dpkg-deb, never installed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import distro, process
from cfctl.errors import CfctlError, GuestImageUnavailable
from cfctl.guest import sources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.arch import Arch

_ETC_APT = Path("/etc/apt")

#: A slow mirror, not a dead one.
_FETCH_S = 600.0

_WHAT_ELSE = (
    "Build it on a machine with apt and a network, and copy it: cfctl guest build DIR\n"
    "Or launch with a host package of your own: cfctl launch --host-package DIR"
)


class PrivateApt:
    """apt with lists, cache and configuration below one scratch directory.

    :param scratch: an empty directory; the caller removes it.
    :param arch: whose packages.
    :raises GuestImageUnavailable: if there is no apt, or none of its sources serves this release.
    """

    def __init__(self, scratch: Path, arch: Arch) -> None:
        if process.find("apt-get") is None or process.find("dpkg-deb") is None:
            raise GuestImageUnavailable(
                "the embedded guest cannot be built on this host",
                "It is made from Debian packages, and there is no apt here.",
                _WHAT_ELSE,
            )
        self.codename = distro.os_release().get("VERSION_CODENAME", "")
        self._scratch = scratch
        self._selection = sources.Selection.of(sources.system(_ETC_APT), self.codename)
        if not self._selection.archives:
            raise GuestImageUnavailable(
                "the embedded guest cannot be built on this host",
                f"No package source below {_ETC_APT} serves the release {self.codename or '(unknown)'!r}.",
                _WHAT_ELSE,
            )
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (scratch / name).mkdir(parents=True)
        (scratch / "status").touch()
        self._backports = f"{self.codename}-backports"
        # adbd and what it is linked with must be of one version; the newest is in backports, where there are any.
        (scratch / "preferences").write_text(
            f"Package: adbd android-lib*\nPin: release n={self._backports}\nPin-Priority: 900\n"
        )
        self._environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(scratch / "apt.conf")}
        (scratch / "apt.conf").write_text(_configuration(scratch, arch))

    def update(self) -> None:
        """Read the package lists of the release and of its backports, where it has any.

        :raises GuestImageUnavailable: if the archives cannot be reached.
        """
        try:
            self._read_lists(self.codename, self._backports)
        except CfctlError:
            self._read_lists(self.codename)

    def _read_lists(self, *suites: str) -> None:
        (self._scratch / "private.sources").write_text(self._selection.deb822(suites))
        self._apt("apt-get", "-q", "--error-on=any", "update")

    def download(self, packages: Iterable[str]) -> None:
        """Download packages with everything that they depend on."""
        self._apt("apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *packages)

    def download_only(self, packages: Iterable[str]) -> None:
        """Download just these packages."""
        self._apt("apt-get", "-q", "download", *packages, cwd=self._scratch / "cache/archives")

    def dependency(self, package: str, prefix: str) -> str:
        """Return the package whose name begins with ``prefix`` that ``package`` depends on."""
        for line in self._apt("apt-cache", "depends", "--important", package).stdout.splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith(prefix):
                return name
        raise GuestImageUnavailable(
            f"the package {package} depends on no {prefix}*", None, f"Look at it: apt-cache depends {package}"
        )

    def unpack(self) -> Path:
        """Unpack all that was downloaded into one tree and return it."""
        tree = self._scratch / "packages"
        for package in sorted((self._scratch / "cache/archives").glob("*.deb")):
            process.run(["dpkg-deb", "--extract", package, tree], timeout=120)
        return tree

    def versions(self) -> dict[str, str]:
        """Return name -> version of all that was downloaded."""
        names = (path.name for path in (self._scratch / "cache/archives").glob("*.deb"))
        pairs = sorted(name.split("_")[:2] for name in names)
        return {name: version.replace("%3a", ":") for name, version in pairs}

    def _apt(self, *argv: str, cwd: Path | None = None) -> process.Result:
        try:
            return process.run(argv, timeout=_FETCH_S, env=self._environment, cwd=cwd)
        except CfctlError as exc:
            raise GuestImageUnavailable(
                "the packages of the embedded guest cannot be fetched",
                f"{' '.join(argv)}:\n{exc.details}",
                f"See whether apt works here at all: sudo apt-get update\n{_WHAT_ELSE}",
            ) from exc


def _configuration(scratch: Path, arch: Arch) -> str:
    settings = {
        "APT::Architecture": arch.debian,
        "APT::Architectures": arch.debian,
        # apt would give up root for the user _apt, who cannot read a private directory.
        "APT::Sandbox::User": "root",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": "1",
        "Dir::State": str(scratch),
        "Dir::State::lists": str(scratch / "lists"),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch / "cache"),
        "Dir::Etc::sourcelist": str(scratch / "private.sources"),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": str(scratch / "preferences"),
        "Dir::Etc::preferencesparts": "/dev/null",
        "DPkg::Post-Invoke": "",
        "Dir::Log": str(scratch),
    }
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())
