"""Commands and files inside a container, through the engine."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfctl.docker import names
from cfctl.docker.engine import asking
from cfctl.errors import EngineRefused

if TYPE_CHECKING:
    from cfctl.docker.container import Container


@dataclass(frozen=True)
class Execution:
    """How a command inside ended."""

    status: int
    output: str


def run(container: Container, argv: list[str], *, user: str = names.USER) -> Execution:
    """Run a command in a container to its end."""
    lines: list[bytes] = []
    status = stream(container, argv, lines.append, user=user)
    return Execution(status, b"\n".join(lines).decode(errors="replace"))


def stream(container: Container, argv: list[str], line: Any, *, user: str = names.USER) -> int:
    """Run a command in a container, and hand every line on as it comes; return the exit status."""
    api = container.engine.api.api
    with asking(f"run a command in {container.name}"):
        made = api.exec_create(container.id, argv, user=user, environment=_environment(user), workdir="/")
        rest = b""
        for chunk in api.exec_start(made["Id"], stream=True):
            *whole, rest = (rest + chunk).split(b"\n")
            for one in whole:
                line(one)
        if rest:
            line(rest)
        status: int | None = api.exec_inspect(made["Id"])["ExitCode"]
    if status is None:
        raise EngineRefused(
            f"a command in {container.name} did not come to its end",
            f"It was: {' '.join(argv)[:200]}",
            f"See whether the container runs, and what it says: cfctl docker logs {container.name} --which container",
        )
    return status


def _environment(user: str) -> dict[str, str]:
    return {"HOME": names.HOME, "USER": user, "LOGNAME": user} if user == names.USER else {}


def put(container: Container, path: str, data: bytes, *, mode: int = 0o644, owner: int = 0) -> None:
    """Write a file into a container, running or not.

    :param owner: the user number that it belongs to.
    """
    directory, _, name = path.rpartition("/")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), mode
        member.uid = member.gid = owner
        tar.addfile(member, io.BytesIO(data))
    with asking(f"write {path} in {container.name}"):
        container.engine.api.api.put_archive(container.id, directory, archive.getvalue())


def get(container: Container, path: str) -> bytes | None:
    """Read a file of a container; None if it is not there."""
    from docker.errors import NotFound

    with asking(f"read {path} in {container.name}"):
        try:
            chunks, _ = container.engine.api.api.get_archive(container.id, path)
        except NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            return file.read() if file else None


def log(container: Container, *, lines: int | None = None) -> str:
    """Return what the first process of a container said."""
    with asking(f"show the log of {container.name}"):
        raw: bytes = container.engine.api.api.logs(container.id, tail="all" if lines is None else lines)
    return raw.decode(errors="replace").strip()
