"""What a launch takes: the host package and images that a caller meant, or else the embedded guest."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cfctl.artifacts import choose, store
from cfctl.errors import CfctlError
from cfctl.hostres.doctor.facts import Kvm
from cfctl.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def chosen(host_package: Path | str | None, images: Path | str | None) -> Iterator[tuple[str, str | None]]:
    """Yield the directories that a launch takes, which stay in the cache at least until the block ends.

    :param host_package: a directory, an archive or a name; None is the build's whose variables are set, else the
        embedded guest's.
    :param images: likewise; None are the host package's, or the build's.
    :raises UsageError: if there is no such thing, or it is something else.
    :raises CfctlError: if an archive cannot be unpacked, or the embedded guest not be built.
    """
    package_word, images_word = (None if given is None else os.fspath(given) for given in (host_package, images))
    choice = choose.choose(package_word, images_word, os.environ)
    package = choice.host_package.path if choice.host_package else embedded_package()
    # Until the device's record says that it uses them.
    with store.held(choice.entries):
        yield os.fspath(package), os.fspath(choice.images.path) if choice.images else None


def embedded_package() -> Path:
    """Return the embedded host package, built if need be, on a host of which it is known whether KVM works.

    :raises GuestImageUnavailable: if it cannot be built here.
    """
    from cfctl.guest import kvm, package

    built = package.ensure()
    if not kvm.known():
        # The launcher would find out as well, but three seconds without a word look like a fault.
        with step("try whether a kernel boots under KVM (once per boot of the host)"):
            kvm.usable(package.kernel(built))
    return built


def kvm_trial() -> Kvm:
    """Return whether a kernel boots under KVM, which only the embedded guest can tell."""
    from cfctl.guest import kvm

    try:
        verdict = kvm.usable()
    except (CfctlError, OSError) as exc:
        return Kvm(ok=None, reason=f"not known: {getattr(exc, 'brief', exc)}")
    return Kvm(ok=verdict.ok if verdict.known else None, reason=verdict.reason)
