"""Where a launch keeps its files: upstream's directories, links and config (launcher.md section 4)."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.errors import CfctlError, DevicesUp
from cfctl.guest import disk
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Of upstream's directories, so that the host's services can read them.
GROUP = "cvdnetwork"
_MODE = 0o775

#: sun_path of unix(7), with the closing zero.
_SOCKET_PATH_MAX = 108

#: Links in the instance directory that lead into logs/.
_LOG_LINKS = ("kernel.log", "launcher.log", "logcat", "metrics.log", "modem_simulator.log")


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one launch.

    :param home: the launcher's HOME.
    :param root: what ``--instance_dir`` names.
    :param sockets: the directory of all sockets of this user.
    :param environments: the directory of what instances of one group share.
    """

    home: Path
    root: Path
    sockets: Path
    environments: Path

    @classmethod
    def of(cls, home: Path, root: Path | None, environ: Mapping[str, str]) -> Places:
        """Return the places for this user."""
        tmpdir = environ.get("TMPDIR") or "/tmp"  # noqa: S108 (upstream's place)
        uid = os.getuid()
        return cls(
            home,
            root or home / "cuttlefish",
            Path(Instance(1).socket_directory(uid, tmpdir)).parent,
            Path(f"{tmpdir}/cf_env_{uid}"),
        )

    @property
    def assembly(self) -> Path:
        """What all instances of the launch share."""
        return self.root / "assembly"

    @property
    def config(self) -> Path:
        """The config of the launch."""
        return self.assembly / "cuttlefish_config.json"

    def instance(self, instance: Instance) -> Path:
        """Return the directory of the instance's files."""
        return self.root / "instances" / instance.id

    def socket_directory(self, instance: Instance) -> Path:
        """Return the directory of the instance's sockets."""
        return self.sockets / instance.id

    def monitor(self, instance: Instance) -> Path:
        """Return the socket of the instance's supervisor."""
        return self.socket_directory(instance) / "launcher_monitor.sock"

    def qmp(self, instance: Instance) -> Path:
        """Return the socket of QEMU's monitor."""
        return self.socket_directory(instance) / "internal" / "qemu_monitor.sock"

    def input(self, instance: Instance) -> Path:
        """Return the socket of a monitor of QEMU's by which viewers type and touch; the other one stays free."""
        return self.socket_directory(instance) / "internal" / "input.sock"

    def disk(self, instance: Instance) -> Path:
        """Return what the guest writes to."""
        return self.instance(instance) / disk.NAME

    def vnc(self, instance: Instance) -> Path:
        """Return the socket of the screen.

        Upstream has a TCP port, which collides with ADB ports from instance 77 on.
        """
        return self.socket_directory(instance) / "internal" / "vnc.sock"


def prepare(places: Places, instances: Sequence[Instance], *, assembly_link: Path, keep_disks: bool = True) -> None:
    """Empty and make the directories and links of a launch.

    :param keep_disks: what the guest has written stays, as with upstream's ``--resume``.
    :raises DevicesUp: if a process of this user has files open there; nothing is changed then.
    :raises CfctlError: if a path is too long for a socket, or a shared directory belongs to somebody else.
    """
    group = f"env-{instances[0].number}"
    old = [places.instance(instance) for instance in instances]
    old += [places.socket_directory(instance) for instance in instances]
    old += [places.assembly, places.root / "environments" / group, places.environments / group]
    for instance in instances:
        longest = os.fspath(places.qmp(instance))
        if len(longest) >= _SOCKET_PATH_MAX:
            raise CfctlError(
                "the path of a socket is too long",
                f"{longest} has {len(longest)} bytes; {_SOCKET_PATH_MAX - 1} are allowed.",
                "Use a shorter TMPDIR.",
            )
    refuse_busy(old)
    for shared in (places.sockets, places.environments):
        _own_directory(shared)
    kept = [places.disk(instance) for instance in instances] if keep_disks else []
    for path in old:
        _empty(path, kept)
        _make(path, below=places.home)
    for instance in instances:
        directory = places.instance(instance)
        disk.ensure(places.disk(instance))
        for name in ("internal", "logs", "shared", "recording", "tombstones"):
            _make(directory / name)
        for name in ("internal", "grpc_socket"):
            _make(places.socket_directory(instance) / name)
        for name in _LOG_LINKS:
            (directory / name).symlink_to(f"logs/{name}")
        for name in ("kernel.log", "launcher.log", "logcat"):
            (directory / "logs" / name).touch()
        _link(places.home / f"cuttlefish_runtime.{instance.number}", directory)
    _link(places.home / "cuttlefish_runtime", places.instance(instances[0]))
    _link(places.home / ".cuttlefish_config.json", places.config)
    if assembly_link != places.assembly:
        _link(assembly_link, places.assembly)


def write_config(places: Places, instances: Sequence[Instance], config: Mapping[str, Any]) -> None:
    """Write the config, and the copies that tools look for."""
    text = json.dumps(config, indent=1) + "\n"
    temporary = places.config.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(places.config)
    (places.instance(instances[0]) / "cuttlefish_config.json").write_text(text)
    for instance in instances:
        _link(places.instance(instance) / "logs" / "cuttlefish_config.json", places.config)


def refuse_busy(directories: Iterable[Path]) -> None:
    """Make sure that no process of this user works inside the directories.

    :raises DevicesUp: naming the processes.
    """
    busy = sorted(users(directories))
    if busy:
        who = "\n".join(f"{pid}: {' '.join(process.command_line(pid))[:100]}" for pid in busy)
        raise DevicesUp("Instance directory files in use", who, "Stop them first: stop_cvd")


def users(directories: Iterable[Path]) -> set[int]:
    """Return the processes of this user, without this one, with a file or their working directory in there."""
    roots = tuple(f"{directory}/" for directory in directories)
    me = os.getpid()
    found = set()
    for pid in process.pids():
        if pid == me:
            continue
        links = [Path(f"/proc/{pid}/cwd")]
        with contextlib.suppress(OSError):
            links += [Path(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        for link in links:
            with contextlib.suppress(OSError):
                if f"{link.readlink()}/".startswith(roots):
                    found.add(pid)
                    break
    return found


def _own_directory(path: Path) -> None:
    """Make a directory in a place that everybody can write to, and see that nobody else's is taken for it."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=_MODE)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise CfctlError(f"{path} is not a directory of this user", None, f"Look at it and remove it: ls -ld {path}")
    _share(path)


def _make(path: Path, *, below: Path | None = None) -> None:
    """Make a directory with its parents; those up to ``below`` are shared too."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir()
        if below is None or directory.is_relative_to(below) or directory == missing[0]:
            _share(directory)


def _share(path: Path) -> None:
    """Give a directory upstream's group and mode; without the group the device works all the same."""
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    path.chmod(_MODE)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _empty(path: Path, kept: Sequence[Path]) -> None:
    """Remove a directory with all that is in it, but for the files that are kept."""
    if not any(file.parent == path and file.is_file() and not path.is_symlink() for file in kept):
        _remove(path)
        return
    for entry in path.iterdir():
        if entry not in kept:
            _remove(entry)


def _link(path: Path, target: Path) -> None:
    """Make a link, in place of an older one.

    :raises CfctlError: if something else is there.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        raise CfctlError(f"{path} is in the way", "A link belongs there.", f"Look at it and remove it: ls -ld {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
