"""Archives for tests: honest ones, and those that want to land elsewhere."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

LAUNCHER = b"#!/bin/sh\nexit 1\n"


def tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """Write a tar of files and of whatever else a TarInfo says."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            info.mode = 0o4755 if name.startswith("bin/") else 0o644
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def package(path: Path, *more: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """Write the smallest host package that is one."""
    return tar(
        path,
        ("bin/cvd_internal_start", LAUNCHER),
        special("bin/launch_cvd", tarfile.SYMTYPE, "cvd_internal_start"),
        ("etc/config.json", b"{}"),
        *more,
    )


def zip_(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def images(path: Path) -> Path:
    """Write a zip of images: one with data between long runs of zeros."""
    disk = bytes(4 << 20) + b"data" + bytes(4 << 20)
    return zip_(path, ("super.img", disk), ("boot.img", b"ANDROID!"), ("android-info.txt", b"config=phone\n"))
