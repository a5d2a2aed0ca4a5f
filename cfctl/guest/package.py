"""Writes the embedded host package: upstream's commands, the code behind them, and the guest's image.

A package is a directory that needs nothing but the system's Python and QEMU. It can be moved and copied, and is only
read from: one copy serves all users of a host.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cfctl
from cfctl import arch as arches
from cfctl import disk, locks, paths, process
from cfctl.errors import CfctlError, HostLacks
from cfctl.guest import entry, image, options, streaming
from cfctl.steps import step

if TYPE_CHECKING:
    from cfctl.arch import Arch

#: In every package of ours.
MARKER = streaming.MARKER

_SOURCE = Path(cfctl.__file__).parent

#: What the commands import; a test holds the list equal to the code.
MODULES = (
    "__init__.py",
    "arch.py",
    "control/__init__.py",
    "control/picture.py",
    "control/qmp.py",
    "disk.py",
    "distro.py",
    "elf.py",
    "errors.py",
    "hostres/__init__.py",
    "hostres/addresses.py",
    "instance.py",
    "locks.py",
    "paths.py",
    "process.py",
    "steps.py",
    "wire/__init__.py",
    "wire/pump.py",
    "wire/rtc.py",
    "wire/webrtc_channels.py",
    "wire/webrtc_messages.py",
)

_SCRIPT = """\
#!{python} -IS
import os
import sys

sys.dont_write_bytecode = True
package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(package, "lib"))
from cfctl.guest.entry import main

main(package)
"""

#: What whoever launches the package may take for typical, until this host has booted it: seconds by the name of a
#: boot phase. Measured: the median of seven boots under TCG on two cores.
BOOT_TIMES = Path("etc") / "cfctl-boot-times.json"
_MEASURED = {"vm": 0.7, "userspace": 1.9, "adb": 0.05, "network": 0.6, "booted": 0.06}

#: The oldest Python that the code runs on.
_PYTHON = (3, 11)


#: What the guest says of itself (cfctl/gpu/guest.py): it draws on its own CPU, and there is nothing to choose.
_INFO = f"""\
config=phone
gpu_mode_candidates={options.SOFTWARE_GPU_MODES[0]},none
cfctl_gpu_modes={",".join(options.SOFTWARE_GPU_MODES)}
"""

#: Where the kernel and the initramfs lie in a package.
_IMAGES = "images"


def ensure(arch: Arch | None = None) -> Path:
    """Return this user's embedded host package, built if need be; two callers at once build it once.

    :param arch: the guest's processor; without it, this host's.
    :raises GuestImageUnavailable: if the guest's image cannot be built here.
    :raises HostLacks: if the system's cache is closed to this user.
    """
    arch = arch or arches.host()
    own = paths.current().host_packages
    name = _name(arch)
    for cache in (own, paths.SYSTEM_CACHE / own.name):
        # Not is_file(), which raises where root lets nobody else into the system's cache.
        if os.access(cache / name / MARKER, os.R_OK):
            return cache / name
    top, images = paths.current().cache, paths.current().guest_images
    _check_open(paths.SYSTEM_CACHE, paths.SYSTEM_CACHE / images.name)
    with disk.writing(own):
        disk.make_shared(own, top=top)
        disk.make_shared(images, top=top)
    with locks.exclusive(own / ".lock"):
        target = own / name
        if not (target / MARKER).is_file():
            # Under the lock, what a killed build left is nobody's.
            for left in own.glob(".guest-*"):
                shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
            _write(target, arch, link=True)
    return target


def build(directory: Path, arch: Arch | None = None) -> Path:
    """Write the package to ``directory``; another package of ours that is there is replaced.

    :param arch: the guest's processor; without it, this host's. Another one's guest is emulated wherever it is not
        at home, since nothing in a package but the guest is made for a processor.
    :raises HostLacks: if no Python here can run the package's commands.
    :raises CfctlError: if something else is there.
    :raises GuestImageUnavailable: if the guest's image cannot be built here; nothing is changed then.
    """
    target = directory.absolute()
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise CfctlError(f"{target} is not a directory", None, "Name a new directory.")
    ours = (target / MARKER).is_file()
    if not ours and target.is_dir() and any(target.iterdir()):
        raise CfctlError(
            f"{target} is not empty",
            "It holds no host package of cfctl's. Nothing was changed.",
            "Name a new directory.",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise CfctlError(f"{target.parent} cannot be made", exc.strerror) from exc
    _write(target, arch or arches.host(), link=False)
    return target


def kernel(package: Path) -> Path:
    """Return the kernel of a package that :func:`ensure` or :func:`build` has made."""
    return image.Image(package / _IMAGES).kernel


def _write(target: Path, arch: Arch, *, link: bool) -> None:
    """Write the package beside ``target``, and put it there when it is whole."""
    guest = image.ensure(arch)
    with step("write the host package"):
        try:
            scratch = Path(tempfile.mkdtemp(prefix=".guest-", dir=target.parent))
        except OSError as exc:
            raise CfctlError(f"{target.parent} cannot be written to", exc.strerror) from exc
        try:
            made = scratch / "package"
            _fill(made, guest, arch, link=link)
            if target.exists():
                target.rename(scratch / "old")
            made.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _fill(directory: Path, guest: image.Image, arch: Arch, *, link: bool) -> None:
    python = interpreter()
    directory.mkdir(mode=0o755)
    library = directory / "lib" / "cfctl"
    for path in _code():
        target = library / path.relative_to(_SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # The package is only read from, so Python could not keep what it compiles. Checked by nothing: an archive may
    # change the times of its files.
    process.run(
        [
            *(python, "-IS", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
            *("-s", directory, "-p", "/", library),
        ],
        timeout=120,
    )
    programs = directory / "bin"
    programs.mkdir()
    for name in entry.COMMANDS:
        (programs / name).write_text(_SCRIPT.format(python=python))
    for alias, name in entry.ALIASES.items():
        (programs / alias).symlink_to(name)
    (directory / "android-info.txt").write_text(_INFO)
    image.copy(guest, directory / _IMAGES, link=link)
    marker = directory / MARKER
    marker.parent.mkdir()
    (directory / BOOT_TIMES).write_text(json.dumps(_MEASURED, indent=1) + "\n")
    about = {
        "cfctl": cfctl.__version__,
        "id": _name(arch),
        "arch": arch.name,
        streaming.RECORDED: sys.executable,
        "guest": image.describe(guest),
    }
    marker.write_text(json.dumps(about, indent=1) + "\n")
    # Where upstream's packages say what an instance gets if nothing is asked for.
    preset = directory / "etc" / "cvd_config" / "cvd_config_phone.json"
    preset.parent.mkdir()
    preset.write_text(json.dumps({"cpus": options.DEFAULT_CPUS, "memory_mb": options.DEFAULT_MEMORY_MB}) + "\n")
    # Whatever the umask: other users run it.
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink() and not path.is_relative_to(directory / _IMAGES):
            path.chmod(0o755 if path.is_dir() or path.parent == programs else 0o644)


def _code() -> list[Path]:
    guest = _SOURCE / "guest"
    return [*(_SOURCE / name for name in MODULES), *sorted(guest.rglob("*.py")), guest / "flags.tsv", guest / "init"]


def _check_open(*caches: Path) -> None:
    for cache in caches:
        if os.path.exists(cache) and not os.access(cache, os.X_OK):  # noqa: PTH110 (exists() raises where this is False)
            raise HostLacks(
                f"{cache} is closed to you",
                "What root has built there is for all users.",
                f"Let them in: sudo chmod a+rx {cache}",
            )


def _name(arch: Arch) -> str:
    """Return the package's name: a hash of everything that decides what is in it."""
    digest = hashlib.sha256(f"{image.key(arch)} {interpreter()}".encode())
    digest.update(_INFO.encode())
    for path in _code():
        digest.update(path.read_bytes())
    return f"guest-{digest.hexdigest()[:16]}"


def interpreter() -> str:
    """Return a Python that every user of the host can run; not a virtual environment's, which may go away.

    :raises HostLacks: if there is none of version 3.11 or newer.
    """
    running = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    candidates = [running]
    candidates += [Path(f"/usr/bin/python3.{minor}") for minor in range(30, _PYTHON[1] - 1, -1)]
    for path in candidates:
        if path.is_file() and _for_everybody(path):
            return os.fspath(path)
    raise HostLacks(
        "there is no Python that every user can run",
        f"{running} lies in somebody's home, and /usr/bin has no python3.{_PYTHON[1]} or newer.",
        "Install one: apt-get install python3 (Debian), dnf install python3.11 (RHEL)",
    )


def _for_everybody(path: Path) -> bool:
    """Tell whether every directory above a program can be passed, and the program run, by other users."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))
