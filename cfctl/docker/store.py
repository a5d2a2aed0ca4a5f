"""What this user keeps about a container: its SSH key, its pinned host key, what is published. One directory each."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import disk, paths, steps
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Collection


class Damaged(CfctlError):
    """A record is not whole: its disk was full, or the machine lost power."""


class Port(msgspec.Struct, frozen=True):
    """A port of the container's loopback that is to be had on this machine."""

    address: str
    port: int
    inside: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Record(msgspec.Struct, kw_only=True):
    """The record of one container.

    :param id: the engine's id of it: another container of the name is another container.
    :param engine: the address of the engine.
    :param host_key: the public key of its sshd, ``TYPE BASE64``, as the engine gave it to us.
    :param sockets: the directory of the engine's machine with its devices' sockets.
    :param forwarder: process id of the forwarder's supervisor; it may have died since.
    """

    name: str
    id: str
    engine: str
    host_key: str | None = None
    sockets: str | None = None
    ports: tuple[Port, ...] = ()
    forwarder: int | None = None


def root() -> Path:
    """Return the directory of all records."""
    return paths.current().state / "docker"


def directory(engine: str, name: str) -> Path:
    """Return the directory of one container."""
    return root() / re.sub(r"[^A-Za-z0-9]+", "-", engine).strip("-") / name


def load(engine: str, name: str) -> Record | None:
    """Return the record of a container, or None. A damaged one is none, with a note: the next verb makes it anew."""
    return _read_if_whole(directory(engine, name) / "record.json")


def load_all() -> list[Record]:
    """Return all records of this user; a damaged one is left out with a note."""
    found = (_read_if_whole(path) for path in sorted(root().glob("*/[!.]*/record.json")))
    return [record for record in found if record is not None]


def without_container(engine: str, living: Collection[str]) -> list[str]:
    """Return the names of this user's containers on an engine that somebody has removed by other means.

    :param living: the ids of those that are there.
    """
    return [record.name for record in load_all() if record.engine == engine and record.id not in living]


def read(path: Path) -> Record | None:
    """Return the record in a file, None if there is none.

    :raises Damaged: if it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as exc:
        raise Damaged(f"{path} cannot be read", str(exc), f"Remove it: rm -r {path.parent}") from exc
    except OSError as exc:
        raise CfctlError(f"{path} cannot be read", str(exc), f"Look at it: ls -ld {path}") from exc


def _read_if_whole(path: Path) -> Record | None:
    """Return the record in a file; a damaged one must not stand in the way of the others."""
    try:
        return read(path)
    except Damaged as error:
        _tell(path.parent.name, error.brief)
        return None


@functools.cache
def _tell(name: str, brief: str) -> None:
    steps.note(f"{name}: {brief}; what was published of it is forgotten.")


def save(record: Record) -> None:
    """Write a record, whole or not at all."""
    home = directory(record.engine, record.name)
    home.mkdir(parents=True, exist_ok=True)
    # The private key lies beside it.
    home.chmod(0o700)
    disk.replace(home / "record.json", msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def remove(engine: str, name: str) -> None:
    """Forget a container; what was never known is no error."""
    shutil.rmtree(directory(engine, name), ignore_errors=True)
