"""What a device is launched from: its own view of the host package and of the images, in its own directory."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import disk, paths, steps
from cfctl.artifacts import store, view
from cfctl.launch import registry
from cfctl.launch.hostpackage import HostPackage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cfctl.launch.registry import Record


def package(record: Record) -> Path:
    """Return the device's view of its host package: the launcher's ``ANDROID_HOST_OUT``."""
    return record.home / "host_package"


def present(record: Record) -> Path:
    """Return the package that is there: the view, or the original where there is none, as for devices of cvd's."""
    return place if (place := package(record)).is_dir() else Path(record.request.host_package)


def images(record: Record) -> Path | None:
    """Return the device's view of its images; None if they lie in the host package."""
    return record.home / "images" if record.request.images is not None else None


def product(record: Record) -> Path:
    """Return where the launcher finds the images: its ``ANDROID_PRODUCT_OUT``."""
    return images(record) or package(record)


def parent(record: Record) -> Path:
    """Return where the parent of the device's launcher lies."""
    return record.home / "parent"


def prepare(record: Record) -> HostPackage:
    """Make the device's views anew; return the package as the device has it.

    :raises CfctlError: if the disk is full, or what lies in the cache is not what was unpacked.
    """
    for source in _sources(record.request):
        store.check(Path(source))
    view.make(Path(record.request.host_package), package(record), own=view.PACKAGE)
    if (place := images(record)) is not None:
        view.make(Path(str(record.request.images)), place, own=())
    return HostPackage.open(package(record))


def used() -> list[Path]:
    """Return what devices are launched from: this user's, and for root those of every user that can be seen."""
    found = [Path(path) for record in registry.load_all() for path in _sources(record.request)]
    if os.geteuid() == 0:
        found += _of_others()
    return found


def _sources(request: registry.Request) -> list[str]:
    return [path for path in (request.host_package, request.images) if path]


def _of_others() -> Iterator[Path]:
    """Yield what the devices of ordinary users are launched from, where users keep them by default."""
    for user in pwd.getpwall():
        for mark in disk.matching(paths.devices_of(Path(user.pw_dir)), "*/device.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                record = msgspec.json.decode(mark.read_bytes(), type=registry.Record)
                yield from (Path(path) for path in _sources(record.request))


def prune(*, besides: Collection[Path] = (), dry_run: bool = False) -> list[store.Entry]:
    """Remove what no device is launched from; return it.

    :param besides: paths that others use: containers.
    :raises CfctlError: if a device's record cannot be read, so that nobody knows what it uses; nothing is removed.
    """
    for mark in paths.current().devices.glob("[!.]*/device.json"):
        # load_all leaves a damaged one out; here that would cost the device its package.
        registry.load(mark.parent.name)
    with steps.step("look for what no device uses"):
        return store.prune([*used(), *besides], dry_run=dry_run)
