"""What was asked for when a container was made: kept in a label, so that ``start`` and fleets can read it back."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path, PurePosixPath

import msgspec

from cfctl.docker import names
from cfctl.docker.image import DEFAULT_TAG
from cfctl.errors import UsageError
from cfctl.instance import MAX_INSTANCES

#: Docker's own rule for names, and short enough for a host name (63 bytes, RFC 1035).
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,62}")

RESTART = ("no", "on-failure", "always")

#: Said by cfctl to the inside; two masters would contradict each other.
_OWN_VARIABLES = ("CFCTL_LAUNCH_NUMBERS", "CFCTL_HOST_NUMBERS", names.GROUP_NUMBER)

#: Places inside that a share would hide.
_KEPT = ("/", "/home", names.HOME, "/etc", "/opt", "/opt/cfctl", "/run", "/tmp", "/usr", "/dev", "/proc", "/sys")  # noqa: S108


class Share(msgspec.Struct, frozen=True):
    """A directory of the engine's machine that the container sees."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``SOURCE:TARGET[:ro]``; a relative target is below the home of the container's user.

        :raises UsageError: for anything else, and for places that must not be shared or hidden.
        """
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source or not target or mode not in ("", "ro", "rw"):
            raise UsageError(f"{text!r} is not a share", "It is written SOURCE:TARGET or SOURCE:TARGET:ro.")
        path = Path(source).expanduser().absolute()
        inside = os.path.normpath(PurePosixPath(names.HOME) / target)
        if path == Path.home() or path == Path("/"):
            raise UsageError(
                f"{path} is not shared whole",
                "Everything in it, keys and all, would be the container's.",
                f"Share a directory below it: --share {path}/DIR:{target}",
            )
        if inside in _KEPT:
            raise UsageError(
                f"nothing can be mounted on {inside} of a container", None, "Choose a directory below it"
            )
        return cls(os.fspath(path), inside, mode == "ro")


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One container, as asked for.

    :param cpus: virtual processors of each instance; None leaves it to the launcher.
    :param memory_mb: memory of each instance in MiB; likewise.
    :param gpu: ``auto`` or a GPU mode.
    :param host_package: directory on the engine's machine; None is the embedded guest, or what is pushed.
    :param images: likewise; None is the host package's own.
    :param env: variables of the container.
    :param flags: further flags of launch_cvd.
    """

    image: str = DEFAULT_TAG
    num_instances: int = 1
    cpus: int | None = None
    memory_mb: int | None = None
    gpu: str = "auto"
    network: str = "bridge"
    restart: str = "no"
    host_package: str | None = None
    images: str | None = None
    shares: tuple[Share, ...] = ()
    env: dict[str, str] = {}
    flags: tuple[str, ...] = ()


def check_name(name: str) -> str:
    """Return ``name`` if a container can be called so.

    :raises UsageError: otherwise.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a container",
            "A name has 2 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit.",
        )
    return name


def check(wish: Wish) -> None:
    """Make sure that a wish makes sense on any engine.

    :raises UsageError: otherwise.
    """
    if not 1 <= wish.num_instances <= MAX_INSTANCES:
        raise UsageError(f"a device has 1 to {MAX_INSTANCES} instances, not {wish.num_instances}")
    for what, value in (("--cpus", wish.cpus), ("--memory-mb", wish.memory_mb)):
        if value is not None and value < 1:
            raise UsageError(f"{what} must be 1 or more, not {value}")
    for what, directory in (("--host-package", wish.host_package), ("--images", wish.images)):
        # It becomes an option of a mount, in which these are separators (overlayfs, "lowerdir=").
        if directory is not None and any(mark in directory for mark in ",:\\"):
            raise UsageError(
                f"{what} {directory} cannot be mounted with a layer over it",
                "A comma, colon or backslash in its path would be taken for the end of it.",
                f"Give a link to it: ln -s {shlex.quote(directory)} /srv/images",
            )
    if wish.restart not in RESTART:
        raise UsageError(f"--restart is one of {', '.join(RESTART)}, not {wish.restart!r}")
    if wish.network in ("host", "none") or wish.network.startswith("container:"):
        raise UsageError(
            f"--network {wish.network} cannot be had",
            "A device makes bridges, taps and NAT rules: they need a network of the container's own.",
            "Use bridge, or a network of yours: docker network create NAME",
        )
    for name in _OWN_VARIABLES:
        if name in wish.env:
            raise UsageError(
                f"{name} is set by cfctl itself", "It follows from the instance numbers and the engine's machine."
            )
