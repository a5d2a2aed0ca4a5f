"""Whether KVM works here: the only honest test is a kernel's first word.

On a host that is itself a guest, /dev/kvm may exist, answer and even run code, and an ordinary kernel hangs under it
all the same. So the embedded kernel is booted and has three seconds to print something. The verdict holds for one
boot of the host and one QEMU binary, and is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch as arches
from cfctl import disk, paths, process
from cfctl.errors import CfctlError
from cfctl.guest import image, vm

if TYPE_CHECKING:
    from cfctl.arch import Arch

_FIRST_WORD_S = 3.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILE = "kvm.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether KVM works.

    :param ok: it does.
    :param reason: why it is believed, in one sentence.
    :param known: a kernel was tried, or KVM cannot even be opened; False if something that a trial needs is missing.
    """

    ok: bool
    reason: str
    known: bool = True


def usable(kernel: Path | None = None, *, device: Path = paths.KVM, arch: Arch | None = None) -> Verdict:
    """Tell whether an ordinary kernel boots under KVM; takes up to 3 s once per boot of the host.

    :param kernel: the embedded guest's kernel; without it, the one in the cache.
    :param device: another node than /dev/kvm.
    :param arch: the guest's processor; without it, the host's.
    """
    if arch is not None and arch != arches.host():
        return Verdict(ok=False, reason=f"the guest is for {arch.name}, and this host is {arches.host().name}")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return Verdict(ok=False, reason=f"{device} cannot be opened: {exc.strerror}")
    arch = arches.host()
    try:
        key = _key(arch)
    except CfctlError as exc:
        return Verdict(ok=False, reason=exc.brief, known=False)
    if (known := _cached(key)) is not None:
        return known
    if kernel is None:
        found = image.find(arch)
        if found is None:
            reason = "not known: there is no embedded guest yet to try it with"
            return Verdict(ok=False, reason=reason, known=False)
        kernel = found.kernel
    verdict = _try(arch, kernel)
    _remember(key, verdict)
    return verdict


def known(device: Path = paths.KVM) -> bool:
    """Tell whether :func:`usable` would answer at once."""
    if not os.access(device, os.R_OK | os.W_OK):
        return True
    try:
        return _cached(_key(arches.host())) is not None
    except CfctlError:
        return True


def _try(arch: Arch, kernel: Path) -> Verdict:
    """Boot the kernel under KVM and wait for its first byte."""
    machine = vm.Machine(arch, "kvm")
    with tempfile.TemporaryDirectory(prefix="cfctl-kvm-") as scratch:
        fifo, log = Path(scratch, "console"), Path(scratch, "qemu.log")
        os.mkfifo(fifo, 0o600)
        fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        started = time.monotonic()
        try:
            child = process.start(
                [
                    *(vm.qemu(arch), *machine.base(), "-no-reboot", "-m", "128"),
                    *("-kernel", os.fspath(kernel), "-append", machine.cmdline()),
                    *("-chardev", f"file,id=kernel,path={fifo}", "-serial", "chardev:kernel"),
                ],
                output=log,
                die_with_parent=True,
            )
            try:
                # QEMU may also end at once; look for that ten times a second.
                while time.monotonic() < started + _FIRST_WORD_S and child.poll() is None:
                    if select.select([fd], [], [], 0.1)[0]:
                        seconds = time.monotonic() - started
                        return Verdict(ok=True, reason=f"a kernel booted under KVM within {seconds:.1f} s")
                if child.poll() is not None:
                    said = log.read_text(errors="replace").strip().splitlines()
                    return Verdict(
                        ok=False, reason=f"QEMU ended under KVM: {said[-1] if said else 'it printed nothing'}"
                    )
            finally:
                process.end([child.pid], patience=0.5)
                child.wait(10)
        finally:
            os.close(fd)
    return Verdict(ok=False, reason=f"a kernel printed nothing under KVM within {_FIRST_WORD_S:g} s")


def _key(arch: Arch) -> dict[str, str]:
    binary = Path(vm.qemu(arch)).resolve()
    return {
        "boot_id": _BOOT_ID.read_text().strip(),
        "qemu": os.fspath(binary),
        "modified": str(binary.stat().st_mtime_ns),
    }


def _cached(key: dict[str, str]) -> Verdict | None:
    """Return the verdict of this boot, root's or one's own."""
    for path in (paths.SYSTEM_CACHE / _FILE, _cache() / _FILE):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = path.stat().st_uid
            known = json.loads(path.read_text())
            if owner in (0, os.getuid()) and known["key"] == key:
                return Verdict(ok=bool(known["ok"]), reason=str(known["reason"]))
    return None


def _cache() -> Path:
    """Return this user's cache, also in a launcher, whose HOME is the device's."""
    cache, home = paths.current().cache, Path.home()
    with contextlib.suppress(KeyError):
        if cache.is_relative_to(home):
            return Path(pwd.getpwuid(os.getuid()).pw_dir) / cache.relative_to(home)
    return cache


def _remember(key: dict[str, str], verdict: Verdict) -> None:
    cache = _cache()
    # Without a place to write, the next launch finds out again.
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        document = json.dumps({"key": key, **asdict(verdict)}) + "\n"
        disk.replace(cache / _FILE, document.encode(), mode=0o644, wait=False)
