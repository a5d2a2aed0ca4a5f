"""What ``--host-package`` and ``--images`` mean: a directory, an archive, a name, or a build's variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import steps
from cfctl.artifacts import content, store
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What ``lunch`` and ``envsetup.sh`` of an Android build export.
_HOST_OUT, _SOONG_OUT, _PRODUCT_OUT = "ANDROID_HOST_OUT", "ANDROID_SOONG_HOST_OUT", "ANDROID_PRODUCT_OUT"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A directory to launch from.

    :param entry: where in the cache it lies, if it does.
    """

    path: Path
    entry: store.Entry | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a launch takes.

    :param host_package: None is the embedded guest's.
    :param images: None are those that lie in the host package.
    """

    host_package: Chosen | None
    images: Chosen | None

    @property
    def entries(self) -> list[store.Entry]:
        """What of the cache it takes: to be held until the device's record says so."""
        return [chosen.entry for chosen in (self.host_package, self.images) if chosen and chosen.entry]


def choose(host_package: str | None, images: str | None, environ: Mapping[str, str]) -> Choice:
    """Return what a launch takes; an archive is unpacked into the cache.

    :param host_package: what the user gave: a directory, an archive or a name; None leaves it to the environment.
    :param images: likewise.
    :raises UsageError: if there is no such thing, or it is something else.
    :raises CfctlError: if an archive cannot be unpacked; nothing is left of it then.
    """
    package = one(host_package, "host-package") if host_package is not None else _built_package(environ)
    if images is not None:
        if package is None:
            raise UsageError(
                "--images needs a host package",
                "Without --host-package the embedded Linux guest is booted, which brings its own kernel and disk.",
                "Give both: cfctl launch --host-package FILE --images FILE",
            )
        if not _same(images, package.path):
            return Choice(package, one(images, "images"))
        return Choice(package, None)
    if package is None:
        return Choice(None, None)
    return Choice(package, _own_images(package, environ, explicit=host_package is not None))


def _same(word: str, package: Path) -> bool:
    """Tell whether a user named the host package's directory for the images too: both are unpacked into one."""
    path = Path(word).expanduser()
    return path.is_dir() and path.samefile(package)


def one(word: str, kind: str) -> Chosen:
    """Return what a user's word stands for; an archive is unpacked into the cache.

    :param kind: ``host-package`` or ``images``.
    :raises UsageError: if there is no such thing, or it is something else.
    """
    path = Path(word).expanduser().absolute()
    if path.exists() or path.is_symlink():
        return _at(path, kind)
    if os.sep in word or word.startswith("~"):
        raise UsageError(
            f"--{kind} {path} does not exist", None, "Give a directory, an archive, or a name of: cfctl images list"
        )
    return _in_entry(store.find(word), kind)


def directory(given: Path | None, kind: str) -> Path | None:
    """Return the directory that is meant where nothing is launched: one is taken as it is, whatever is in it.

    :param kind: ``host-package`` or ``images``.
    :raises UsageError: as :func:`one`.
    """
    return given if given is None or given.is_dir() else one(os.fspath(given), kind).path


def _at(path: Path, kind: str) -> Chosen:
    if not path.is_dir():
        return _in_entry(store.add(path), kind)
    found = _look(path)
    place = found.host_package if kind == "host-package" else found.images
    if place is not None:
        return Chosen(place)
    archive = path / content.PACKAGE_ARCHIVE
    if kind == "host-package" and archive.is_file():
        return _in_entry(store.add(archive), kind)
    raise _lacks(path, kind, found)


def _look(path: Path) -> content.Content:
    try:
        return content.look(path)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read", exc.strerror) from exc


def _in_entry(entry: store.Entry, kind: str) -> Chosen:
    found = entry.content
    place = found.host_package if kind == "host-package" else found.images
    if place is None:
        raise _lacks(Path(entry.source), kind, found)
    return Chosen(place, entry)


def _lacks(path: Path, kind: str, found: content.Content) -> UsageError:
    if kind == "host-package":
        names = " nor ".join(f"bin/{name}" for name in content.LAUNCHERS)
        details = f"It has neither {names}."
        brief = f"{path} is not a host package"
        hint = (
            f"Give {content.PACKAGE_ARCHIVE} or the directory it was unpacked into, or none for the embedded guest."
        )
    else:
        brief, details = f"{path} holds no images", "It has no *.img."
        hint = "Give the zip of images (aosp_cf_*-img-*.zip) or the directory it was unpacked into."
    if found.kinds:
        other = found.kinds[0]
        details += f" It is {'a host package' if other == 'host-package' else 'a set of images'}: --{other} takes it."
    return UsageError(brief, details, hint)


# -- an Android build's own variables ------------------------------------------------------------------------


def _built_package(environ: Mapping[str, str]) -> Chosen | None:
    """Return the host package of the build whose environment this is."""
    given = environ.get(_HOST_OUT) or environ.get(_SOONG_OUT)
    if not given:
        return None
    for place in _outs(environ):
        if content.is_host_package(place):
            steps.note(f"Host package: {place} (from ${_HOST_OUT}).")
            return Chosen(place)
        if (archive := place / content.PACKAGE_ARCHIVE).is_file():
            steps.note(f"Host package: {archive} (from ${_HOST_OUT}).")
            return _in_entry(store.add(archive), "host-package")
    steps.note(f"${_HOST_OUT} is {given}, which has no host package yet: the embedded guest is booted.")
    return None


def _outs(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where a build leaves its host tools; Soong's directory lies beside Make's (launcher.md section 1)."""
    if host := environ.get(_HOST_OUT):
        yield Path(host).absolute()
    if soong := environ.get(_SOONG_OUT):
        yield Path(soong).absolute()
    elif host and "/out/host" in host:
        yield Path(host.replace("/out/host", "/out/soong/host")).absolute()


def _own_images(package: Chosen, environ: Mapping[str, str], *, explicit: bool) -> Chosen | None:
    """Return the images of a launch that named none: in the package if it was named, else the build's."""
    inside = package.entry.content.images if package.entry else _look(package.path).images
    built = environ.get(_PRODUCT_OUT)
    if inside is not None and (explicit or not built):
        return None if inside == package.path else Chosen(inside, package.entry)
    if built and content.has_images(place := Path(built).absolute()):
        steps.note(f"Images: {place} (from ${_PRODUCT_OUT}).")
        return Chosen(place)
    return None
