"""Sends a host package and images into a container's home over SFTP; what was cut off goes on where it ended.

Beside every file that has arrived stands in ``.cfctl-pushed.json`` the hash of its content: it is not sent again. A
part of a file has the hash in its name, so it is only ever continued with the rest of the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.docker import names, ssh
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.docker.container import Container

_MARKS = f"{names.HOME}/.cfctl-pushed.json"
_INCOMING = f"{names.HOME}/.cfctl-incoming"

#: Enough for paramiko to keep its window full, little enough to notice a full disk soon.
_CHUNK = 1 << 20

#: Room that unpacking may need beside the archive itself: images compress to about a third.
_UNPACKED = 4
_UNPACK_S = 1800.0
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Item:
    """One file to send.

    :param target: where it goes, absolute; for an archive the directory that it is unpacked in.
    :param unpack: ``tar`` or ``zip`` if it is an archive.
    """

    source: Path
    name: str
    target: str
    digest: str
    unpack: str | None = None

    @property
    def size(self) -> int:
        """Bytes to send."""
        return self.source.stat().st_size


@dataclass(frozen=True)
class Sent:
    """What came of one file: ``sent`` bytes went over the wire, less than ``size`` when part of it was there."""

    name: str
    size: int
    sent: int


def push(container: Container, *, host_package: Path | None, images: Path | None) -> list[Sent]:
    """Send a host package and images.

    :param host_package: directory, or ``cvd-host_package.tar.gz``.
    :param images: directory, or zip.
    :raises UsageError: if they are neither.
    :raises CfctlError: if the container's disk has no room, before anything is sent or as soon as it is full; what
        arrived stays, and the next push goes on there.
    """
    with tempfile.TemporaryDirectory(prefix="cfctl-push-") as scratch, ssh.connected(container) as transport:
        items = [
            *(_package_items(host_package, Path(scratch)) if host_package else ()),
            *(_image_items(images) if images else ()),
        ]
        with contextlib.closing(transport.open_sftp_client()) as sftp:
            marks = _read_marks(sftp)
            _require_room(transport, container.name, [item for item in items if marks.get(item.name) != item.digest])
            return [_send(container, transport, sftp, item, marks) for item in items]


def _package_items(path: Path, scratch: Path) -> Iterator[Item]:
    if path.is_dir():
        if not any((path / "bin" / tool).exists() for tool in ("launch_cvd", "cvd_internal_start")):
            raise UsageError(
                f"{path} is not a host package", "It has neither bin/launch_cvd nor bin/cvd_internal_start."
            )
        with steps.step(f"pack {path.name}"):
            archive = _pack(path, scratch / "host-package.tar")
    elif path.is_file() and tarfile.is_tarfile(path):
        archive = path
    else:
        raise UsageError(f"{path} is not a host package", "It is a directory, or cvd-host_package.tar.gz.")
    yield Item(archive, "host-package", names.HOME, _digest(archive), "tar")


def _pack(directory: Path, archive: Path) -> Path:
    """Pack a directory; the same content makes the same archive, so that a push can be continued."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            member = tar.gettarinfo(path, str(path.relative_to(directory)))
            member.uid = member.gid = names.UID
            member.uname = member.gname = ""
            # A second name of the same file would depend on which of them comes first.
            if member.islnk():
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    return archive


def _image_items(path: Path) -> Iterator[Item]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.is_file()]
        if not files:
            raise UsageError(f"{path} has no images in it")
        for file in files:
            yield Item(file, file.name, f"{names.HOME}/{file.name}", _digest(file))
    elif path.is_file() and zipfile.is_zipfile(path):
        yield Item(path, "images", names.HOME, _digest(path), "zip")
    else:
        raise UsageError(f"{path} holds no images", "It is a directory with *.img, or a zip of them.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_marks(sftp: Any) -> dict[str, str]:
    try:
        with sftp.open(_MARKS) as file:
            marks: dict[str, str] = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return marks


def _require_room(transport: Any, name: str, items: list[Item]) -> None:
    wanted = sum(item.size * (_UNPACKED if item.unpack else 1) for item in items)
    free = _free(transport)
    if free is not None and wanted > free:
        raise _full(
            name, f"About {wanted // _MEGABYTE} MB are needed, {free // _MEGABYTE} MB are free. Nothing was sent."
        )


def _free(transport: Any) -> int | None:
    status, said = ssh.run(transport, f"df -Pk {names.HOME} | tail -n 1", seconds=60)
    fields = said.split()
    return int(fields[3]) * 1024 if status == 0 and len(fields) > 3 else None


def _full(name: str, details: str) -> CfctlError:
    return CfctlError(
        f"there is no room for it in {name}",
        details,
        "Make room on the engine's machine (docker system df, cfctl docker list), then push again: it goes on there",
    )


def _send(container: Container, transport: Any, sftp: Any, item: Item, marks: dict[str, str]) -> Sent:
    """Send one file, unless it is there; put it in its place when it is whole."""
    if marks.get(item.name) == item.digest:
        steps.note(f"{item.name} is there already")
        return Sent(item.name, item.size, 0)
    with contextlib.suppress(OSError):
        sftp.mkdir(_INCOMING)
    part = f"{_INCOMING}/{item.digest}"
    _drop_others(sftp, item.digest)
    with steps.step(f"push {item.name}, {item.size / _MEGABYTE:.0f} MB"):
        try:
            sent = _transfer(sftp, item, part)
        except OSError as exc:
            free = _free(transport) if transport.is_active() else None
            if free is not None and free < _CHUNK:
                raise _full(container.name, f"{item.name} was cut off when the disk was full.") from exc
            raise CfctlError(
                f"{item.name} was cut off on its way into {container.name}",
                str(exc) or type(exc).__name__,
                "Push again: it goes on where it ended",
            ) from exc
        _arrive(container, transport, sftp, item, part)
    marks[item.name] = item.digest
    with sftp.open(_MARKS, "w") as file:
        file.write(json.dumps(marks))
    return Sent(item.name, item.size, sent)


def _drop_others(sftp: Any, digest: str) -> None:
    """Remove what is left of a push of other content; it would never be used."""
    for entry in sftp.listdir(_INCOMING):
        if entry != digest:
            sftp.remove(f"{_INCOMING}/{entry}")


def _transfer(sftp: Any, item: Item, part: str) -> int:
    """Send what is missing of a file; return the number of bytes that were sent."""
    try:
        there: int = sftp.stat(part).st_size
    except OSError:
        there = 0
    if there > item.size:
        there = 0
        sftp.remove(part)
    if there:
        steps.note(f"{item.name} goes on at {there / _MEGABYTE:.0f} of {item.size / _MEGABYTE:.0f} MB")
    with item.source.open("rb") as source, sftp.open(part, "ab") as target:
        source.seek(there)
        target.set_pipelined(pipelined=True)
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            steps.progress(source.tell(), item.size)
    if sftp.stat(part).st_size != item.size:
        raise OSError("it did not arrive whole")
    return item.size - there


def _arrive(container: Container, transport: Any, sftp: Any, item: Item, part: str) -> None:
    """Put a whole file in its place, or unpack it."""
    if item.unpack is None:
        mode = stat.S_IMODE(item.source.stat().st_mode)
        sftp.chmod(part, mode | 0o600)
        sftp.posix_rename(part, item.target)
        return
    unpack = {
        "tar": f"tar -C {item.target} --no-same-owner -xf {part}",
        "zip": f"{names.PYTHON} -m zipfile -e {part} {item.target}",
    }[item.unpack]
    status, said = ssh.run(transport, unpack, seconds=_UNPACK_S)
    if status != 0:
        if "No space left" in said:
            raise _full(container.name, f"{item.name} could not be unpacked: {said[-300:]}")
        raise CfctlError(f"{item.name} could not be unpacked in {container.name}", said[-1000:])
    sftp.remove(part)
