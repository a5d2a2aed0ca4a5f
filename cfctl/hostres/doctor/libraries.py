"""Whether the programs of a host package find the shared libraries that they are linked with."""

from __future__ import annotations

import contextlib
import mmap
from typing import TYPE_CHECKING

from cfctl import elf
from cfctl.arch import ARCHES
from cfctl.hostres.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfctl.hostres.doctor.facts import Facts

#: Debian's packages of libraries that host packages and their helpers are linked with. RPM knows sonames itself.
_DEBIAN = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLESv2.so.2": "libgles2",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libarchive.so.13": "libarchive13",
    "libasound.so.2": "libasound2",
    "libcap.so.2": "libcap2",
    "libcrypto.so.3": "libssl3",
    "libcurl.so.4": "libcurl4",
    "libdrm.so.2": "libdrm2",
    "libepoxy.so.0": "libepoxy0",
    "libfdt.so.1": "libfdt1",
    "libgbm.so.1": "libgbm1",
    "libgcc_s.so.1": "libgcc-s1",
    "libgflags.so.2.2": "libgflags2.2",
    "liblzma.so.5": "liblzma5",
    "libsrtp2.so.1": "libsrtp2-1",
    "libssl.so.3": "libssl3",
    "libstdc++.so.6": "libstdc++6",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libvirglrenderer.so.1": "libvirglrenderer1",
    "libvulkan.so.1": "libvulkan1",
    "libwayland-client.so.0": "libwayland-client0",
    "libwayland-server.so.0": "libwayland-server0",
    "libxml2.so.2": "libxml2",
    "libz.so.1": "zlib1g",
    "libz3.so.4": "libz3-4",
}

_WHY = "The launcher's programs do not start without them."


def checks(facts: Facts, package: Path) -> Iterator[Finding]:
    """Check the programs of a host package.

    :param package: the directory with ``bin``.
    """
    programs = [path for path in sorted(package.glob("bin/**/*")) if path.is_file()]
    linked = {path: needs for path in programs if (needs := _read(path)) is not None}
    check = "processor of the host package"
    foreign = sorted(path.name for path, (machine, _) in linked.items() if machine != _machine(facts))
    if not programs:
        hint = "Give the directory into which cvd-host_package.tar.gz was unpacked."
        yield Finding(check, "fail", f"{package} has no programs in bin", "It is no host package.", hint)
        return
    if foreign and len(foreign) == len(linked):
        hint = f"Fetch the host package for {facts.machine}."
        yield Finding(check, "fail", f"{len(foreign)} programs are for another processor", _WHY, hint)
        return
    yield Finding(check, "ok", f"{len(linked)} programs for {facts.machine}", _WHY)
    missing = _missing(
        facts, package, {path: needs for path, (_, needs) in linked.items() if path.name not in foreign}
    )
    if not missing:
        yield Finding("shared libraries", "ok", "all there", _WHY)
        return
    for soname, users in sorted(missing.items()):
        shown = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
        yield Finding(f"library {soname}", "fail", f"is missing, needed by {shown}", _WHY, _install(facts, soname))


def _machine(facts: Facts) -> int:
    return ARCHES[facts.machine].elf_machine if facts.machine in ARCHES else 0


def _read(path: Path) -> tuple[int, list[str]] | None:
    """Return the processor and the libraries of an ELF file, None for anything else."""
    # Mapped, because crosvm and its like are large, and only their first and last pages matter.
    with (
        contextlib.suppress(OSError, ValueError),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return elf.machine(data), elf.needed(data)
    return None


def _missing(facts: Facts, package: Path, linked: dict[Path, list[str]]) -> dict[str, list[str]]:
    """Return each library that is nowhere, with the programs that need it, also through the package's own ones."""
    own = {file.name: file for file in package.rglob("*.so*") if file.is_file()}
    places = [place for place in _system_directories(facts) if place.is_dir()]
    missing: dict[str, list[str]] = {}
    for program, needs in linked.items():
        waiting, seen = list(needs), set[str]()
        while waiting:
            name = waiting.pop()
            soname = name.rpartition("/")[2]
            if soname in seen:
                continue
            seen.add(soname)
            if soname in own:
                waiting += (_read(own[soname]) or (0, []))[1]
            elif not any((place / soname).exists() for place in places) and not facts.exists(name.lstrip("/")):
                missing.setdefault(soname, []).append(program.name)
    return missing


def _system_directories(facts: Facts) -> list[Path]:
    """Return where the dynamic loader looks (ld.so(8)): its own directories, and those of ld.so.conf."""
    names = ["lib", "lib64", "usr/lib", "usr/lib64"]
    if facts.machine in ARCHES:
        names += [f"{base}/{ARCHES[facts.machine].triplet}" for base in ("lib", "usr/lib")]
    for file in (facts.path("etc/ld.so.conf"), *sorted(facts.path("etc/ld.so.conf.d").glob("*.conf"))):
        lines = facts.read(str(file.relative_to(facts.sysroot))).splitlines()
        names += [line.strip().lstrip("/") for line in lines if line.strip().startswith("/")]
    return [facts.path(name) for name in names]


def _install(facts: Facts, soname: str) -> str:
    if not facts.debian:
        return f"sudo dnf install '{soname}()(64bit)'"
    if package := _DEBIAN.get(soname):
        return f"sudo apt-get install --no-install-recommends {package}"
    return f"See which package has it: apt-file search {soname}"
