"""What containers mount from this machine, so that `images prune` does not pull it from under them.

Every engine on this machine that may have containers is asked, about all of its containers and volumes, whoever made
them: a container that is stopped mounts again when it is started.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import disk, paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_LOCAL = "unix://"

#: Where Docker and podman listen as root; other engines are known from this user's containers and settings.
_USUAL = ("/var/run/docker.sock", "/run/podman/podman.sock")


def paths_of_containers() -> list[Path]:
    """Return the directories of this machine that containers mount, or volumes for them.

    :raises HostLacks: if an engine does not answer, so that nobody knows what its containers use.
    """
    known = _recorded()
    found: list[Path] = []
    for url in sorted({*known, *_listening()}):
        found += _of_engine(url, known.get(url))
    return found


def _recorded() -> dict[str, Path]:
    """Return the engines on this machine that containers were made on, with where that is written down.

    For root these are every user's whose directory can be seen.
    """
    roots = [paths.current().state / "docker"]
    if os.geteuid() == 0:
        roots += [paths.containers_of(Path(user.pw_dir)) for user in pwd.getpwall()]
    marks = [mark for root in roots for mark in disk.matching(root, "*/[!.]*/record.json")]
    if not marks:
        return {}
    from cfctl.docker import store

    records = ((mark, store.read(mark)) for mark in marks)
    return {record.engine: mark.parent.parent for mark, record in records if record and _is_local(record.engine)}


def _is_local(url: str) -> bool:
    return url.startswith(_LOCAL)


def _listening() -> Iterator[str]:
    """Yield the engines that are there whether or not this user has made containers on them."""
    usual = [f"{_LOCAL}{socket}" for socket in _USUAL]
    host = os.environ.get("DOCKER_HOST", "")
    for url in [*usual, *([host] if _is_local(host) else [])]:
        # Of an engine that this user may not ask, none of the containers is this user's.
        if os.access(url.removeprefix(_LOCAL), os.W_OK):
            yield url


def _of_engine(url: str, known: Path | None) -> list[Path]:
    from cfctl.docker import engine
    from cfctl.docker.engine import asking
    from cfctl.errors import CfctlError, HostLacks

    try:
        api = engine.connect(url).api.api
        with asking("say what its containers mount"):
            return list(mounted(api.containers(all=True), api.volumes()["Volumes"] or []))
    except CfctlError as error:
        forget = f"\nIf it is gone for good, forget its containers: rm -r {known}" if known else ""
        raise HostLacks(
            f"the engine at {url} does not say what its containers mount",
            f"{error.details or error.brief}\nWhat they use may be here. Nothing was removed.",
            f"Start it, and do the same again: sudo systemctl start docker{forget}",
        ) from error


def mounted(containers: Iterable[Mapping[str, Any]], volumes: Iterable[Mapping[str, Any]]) -> Iterator[Path]:
    """Yield what containers and volumes show of the machine.

    :param containers: as the engine lists them: bind mounts are in there.
    :param volumes: likewise: a volume of type overlay or bind has its directories in its options.
    """
    for container in containers:
        for mount in container.get("Mounts") or []:
            if mount.get("Type") == "bind":
                yield Path(mount["Source"])
    for volume in volumes:
        options = volume.get("Options") or {}
        if (device := options.get("device", "")).startswith("/"):
            yield Path(device)
        for option in options.get("o", "").split(","):
            key, _, value = option.partition("=")
            if key == "lowerdir":
                yield from map(Path, value.split(":"))
