"""What is in a package: its files with their modes and owners, as the package itself says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

#: Bundled libraries and cfctl itself: other tests hold them equal to the lock file and to the checkout.
_ELSEWHERE = re.compile(r"/site-packages/.|/usr/share/doc/cfctl/(schema/)?[^/]+\.(md|json)$|/man1/cfctl-[^/]+$")


def deb(file: Path) -> list[str]:
    """Return ``mode owner/group path[ -> target]`` of each file and folder of a Debian package."""
    lines = subprocess.run(["dpkg-deb", "-c", file], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        mode, owner, _, _, _, path = line.split(None, 5)
        found.append(f"{mode} {owner} {path.removeprefix('.').rstrip('/') or '/'}")
    return sorted(found)


def rpm(file: Path) -> list[str]:
    """Return the same of an RPM package; it has no folders but those that it owns. Settings are marked with a c."""
    form = r"[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}|%{FILELINKTOS}|%{FILEFLAGS:fflags}\n]"
    asked: list[str | Path] = ["rpm", "-qp", "--dbpath", "/dev/null/none", "--qf", form, file]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        path, link, flags = line.split("|")
        found.append(
            path + (f" -> {link}" if link else "") + (" config(noreplace)" if set("cn") <= set(flags) else "")
        )
    return sorted(found)


def without_contents(listing: list[str]) -> list[str]:
    """Return the listing without what is held equal to something else."""
    return [line for line in listing if not _ELSEWHERE.search(line.partition(" -> ")[0])]


def paths(listing: list[str]) -> list[str]:
    """Return the paths of a listing."""
    return [line.split(" ", 2)[2].partition(" -> ")[0].partition(" config")[0] for line in listing]
