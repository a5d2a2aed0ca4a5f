"""What ``--host-package`` and ``--images`` mean to a container: directories of the engine's machine.

On this machine's engine they are what `cfctl launch` takes: an archive is unpacked into the cache, and mounted from
there. Another machine has a cache of its own, which nobody here can look into.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.artifacts import choose, store
from cfctl.artifacts.choose import Choice
from cfctl.errors import EngineElsewhere, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.docker.engine import Engine


@contextlib.contextmanager
def chosen(engine: Engine, host_package: str | None, images: str | None) -> Iterator[tuple[str | None, str | None]]:
    """Yield the directories to mount, which stay in the cache at least until the block ends.

    :param host_package: what the user gave; None is the embedded guest's, or what is pushed.
    :param images: likewise; None are those of the host package.
    :raises UsageError: if there is no such thing, or it is something else.
    :raises EngineElsewhere: if it is on this machine, and the engine is on another.
    :raises CfctlError: if an archive cannot be unpacked; nothing is left of it then.
    """
    if not engine.is_local:
        yield _there(engine, host_package, "--host-package"), _there(engine, images, "--images")
        return
    choice = choice_of(host_package, images)
    with store.held(choice.entries):
        yield directories(choice)


def choice_of(host_package: str | None, images: str | None) -> Choice:
    """Return what the words stand for on this machine; see :func:`chosen`."""
    if host_package is not None:
        # Nothing of the environment: what a container is made of is written where it is made.
        return choose.choose(host_package, images, {})
    return Choice(None, choose.one(images, "images") if images is not None else None)


def directories(choice: Choice) -> tuple[str | None, str | None]:
    """Return the directories of a choice: of the host package, and of the images."""
    package, images = choice.host_package, choice.images
    return os.fspath(package.path) if package else None, os.fspath(images.path) if images else None


def means_another_machine(word: str | None) -> bool:
    """Tell whether a word can only be a directory of whichever machine the engine is on: neither name nor archive."""
    return word is None or (word.startswith("/") and not Path(word).is_file())


def _there(engine: Engine, word: str | None, option: str) -> str | None:
    if means_another_machine(word):
        return word
    name = engine.name
    raise EngineElsewhere(
        f"{option} {word} is on this machine, and the engine {engine.url} is on another",
        "A container mounts directories of the machine that it is on.",
        f"Make the container without it, and send it: cfctl docker push-images --engine {name} NAME {option} {word}\n"
        f"Or give a directory of that machine, from its root: {option} /DIR",
    )


def to_push(word: str | None, kind: str) -> Path | None:
    """Return what is sent for a user's word: a file or directory, or what a name in the cache stands for.

    :param kind: ``host-package`` or ``images``.
    :raises UsageError: if there is no such thing in the cache.
    """
    if word is None:
        return None
    path = Path(word).expanduser()
    if path.exists() or os.sep in word:
        return path
    entry = store.find(word)
    place = entry.content.host_package if kind == "host-package" else entry.content.images
    if place is None:
        raise UsageError(f"{word!r} has no {kind.replace('-', ' ')} in it", None, "See what has: cfctl images list")
    return place
