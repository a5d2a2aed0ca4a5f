"""NetworkManager and systemd-networkd: told to leave the guests' interfaces alone, until the next boot or teardown.

Both may give a new interface addresses, or take away those that it has. The packages bring such files; a host that
was set up without them gets its own in /run, which a tear-down removes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError
from cfctl.hostres import files, firewall
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_S = 30

_SIGN = f"# Made by {firewall.MARK}; cfctl host teardown removes it.\n"


@dataclass(frozen=True, slots=True)
class Manager:
    """A program that configures interfaces by itself.

    :param sign: it exists where the program has been started.
    :param file: ours.
    :param says: what we write.
    :param words: what a file of anybody says that leaves guests' interfaces alone.
    :param directories: where such files are.
    :param reload: what makes it read them again, for busctl.
    """

    name: str
    sign: Path
    file: Path
    says: str
    words: tuple[str, ...]
    directories: tuple[Path, ...]
    reload: tuple[str, ...]


#: A section of its own: `unmanaged-devices` of a later file would take the place of this one's.
NETWORK_MANAGER = Manager(
    "NetworkManager",
    Path("/run/NetworkManager"),
    Path("/run/NetworkManager/conf.d/90-cfctl.conf"),
    f"{_SIGN}[device-cfctl]\nmatch-device=interface-name:cvd-*\nmanaged=0\n",
    ("cvd-",),
    tuple(Path(f"/{top}/NetworkManager/conf.d") for top in ("etc", "usr/lib")),
    # 1: the configuration alone (org.freedesktop.NetworkManager, Reload).
    (
        *("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager"),
        *("Reload", "u", "1"),
    ),
)

#: The first file whose match fits is the one that counts, by name; so ours is before all others.
NETWORKD = Manager(
    "systemd-networkd",
    # The directory comes with the package.
    Path("/run/systemd/netif/state"),
    Path("/run/systemd/network/00-cfctl.network"),
    f"{_SIGN}[Match]\nName=cvd-*\n\n[Link]\nUnmanaged=yes\n",
    ("cvd-", "Unmanaged="),
    tuple(Path(f"/{top}/systemd/network") for top in ("etc", "usr/lib", "usr/local/lib")),
    (
        *("org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.network1.Manager"),
        "Reload",
    ),
)

ALL = (NETWORK_MANAGER, NETWORKD)


@dataclass(frozen=True, slots=True)
class Found:
    """A manager that is, or was, on this host.

    :param told: somebody else's file leaves the guests' interfaces alone.
    :param text: what our file says; empty if there is none.
    """

    manager: Manager
    runs: bool
    told: bool
    text: str


def read() -> tuple[Found, ...]:
    """Return the managers that this host has, or that have a file of ours."""
    found = []
    for manager in ALL:
        text = files.read(manager.file)
        ours = text if text.startswith(_SIGN) else ""
        if (runs := manager.sign.exists()) or ours:
            found.append(Found(manager, runs, _told(manager), ours))
    return tuple(found)


def _told(manager: Manager) -> bool:
    there = (path for directory in manager.directories for path in directory.glob("*"))
    return any(all(word in text for word in manager.words) for text in map(files.read, there))


def edits(found: Iterable[Found], *, wanted: bool) -> list[tuple[firewall.Action, Manager, str]]:
    """Return which files to make and to remove, with the reason.

    :param wanted: guests' interfaces are to be left alone.
    """
    changes: list[tuple[firewall.Action, Manager, str]] = []
    for one in found:
        if wanted and one.runs and not one.told:
            if one.text != one.manager.says:
                action: firewall.Action = "change" if one.text else "create"
                changes.append((action, one.manager, "it may configure the guests' interfaces"))
        elif one.text:
            changes.append(("remove", one.manager, "not needed"))
    return changes


def write(edits: Iterable[tuple[firewall.Action, Manager, str]]) -> None:
    """Carry edits out, and have the managers read their files; one that does not is named."""
    for action, manager, _ in edits:
        if action == "remove":
            manager.file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                manager.file.parent.rmdir()
        else:
            files.write(manager.file, manager.says, mode=0o644)
        try:
            process.run(["busctl", "--system", "call", *manager.reload], timeout=_TIMEOUT_S)
        except CfctlError as exc:
            note(
                f"{manager.name} has not read its configuration again ({exc.brief}): systemctl reload {manager.name}"
            )
