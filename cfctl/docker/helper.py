"""Containers that live for a moment, to do something on the engine's machine that only the engine can do there."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

from cfctl import signals
from cfctl.docker import names
from cfctl.docker.engine import asking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.docker.engine import Engine


@contextlib.contextmanager
def made(engine: Engine, image: str, command: Sequence[str], *, of: str, binds: Sequence[str]) -> Iterator[Any]:
    """Make a container that can do nothing but what is mounted into it; it is gone after the block, come what may.

    :param command: what it runs if it is started.
    :param of: the container that it is made for; what a killed cfctl leaves of it goes with that one.
    :param binds: what it has of the engine's machine, as ``docker run -v`` takes it: SOURCE:PLACE or SOURCE:PLACE:ro.
    :return: docker-py's container.
    """
    container = engine.api.containers.create(
        image,
        list(command),
        entrypoint=[],
        labels={names.HELPER: of},
        volumes=list(binds),
        network_mode="none",
        cap_drop=["ALL"],
    )
    try:
        yield container
    finally:
        with signals.undisturbed():
            container.remove(force=True)


def remove(engine: Engine, *, of: str) -> None:
    """Remove those that a killed cfctl has left of a container: they hold its volumes."""
    from docker.errors import NotFound

    with asking(f"remove what is left of making {of}"):
        for container in engine.api.containers.list(all=True, filters={"label": f"{names.HELPER}={of}"}):
            with contextlib.suppress(NotFound):
                container.remove(force=True)


def directories(paths: Sequence[str]) -> bytes:
    """Return an archive of empty directories, for ``put_archive``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted({"/".join(path.split("/")[:depth]) for path in paths for depth in (1, 2)}):
            member = tarfile.TarInfo(path)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
    return archive.getvalue()
