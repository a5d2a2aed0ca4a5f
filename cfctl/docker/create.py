"""Makes containers, and starts those that do not run."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import paths, signals, steps
from cfctl.docker import container as containers
from cfctl.docker import execute, helper, image, machine, names, remove, request, ssh
from cfctl.docker.container import Container
from cfctl.docker.engine import asking
from cfctl.docker.wish import Wish, check, check_name
from cfctl.errors import CfctlError, ContainerNameTaken, EngineRefused, NumberTaken, UsageError
from cfctl.instance import MAX_INSTANCES
from cfctl.launch import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfctl.docker.engine import Engine

#: Waits inside until the first process has got everything up; its start time tells this run's word from an older one.
_UNTIL_READY = (
    f'while [ "$(cat {names.READY} 2>/dev/null)" != "$(cut -d" " -f22 /proc/1/stat)" ]; do sleep 0.05; done'
)

#: Somebody else may take the numbers between our look and our start; that often in a row is no accident.
_ATTEMPTS = 20

#: Every engine has it; podman by another name.
_DEFAULT_NETWORK = "bridge"

#: How long the engine may take to see that a container has ended.
_ENDING_S = 10.0


def create(
    engine: Engine, name: str, wish: Wish, *, fleet: str | None = None, prefer: list[int] | None = None
) -> Container:
    """Make a container and start it; no device boots in it yet. The home of an earlier one, if kept, becomes its own.

    :param fleet: the fleet that it belongs to.
    :param prefer: the instance numbers to have if they are free.
    :raises UsageError, ImageUnavailable, HostLacks: before anything was made.
    :raises ContainerNameTaken: if the name is taken, by whomever; that container is not touched.
    :raises NumberTaken: if no instance number is free on the machine.
    :raises CfctlError: if it does not come up; nothing is left then.
    """
    check_name(name)
    check_possible(engine, wish)
    _check_free(engine, name)
    has = machine.look(engine, wish.image, name)
    refused: set[int] = set()
    for _ in range(_ATTEMPTS):
        numbers = _free_numbers(engine, wish.num_instances, refused, prefer)
        with steps.step(f"make container {name}, instance {numbers[0]}"):
            container = _attempt(engine, name, wish, has, numbers, fleet)
        if container is not None:
            return container
        refused.update(numbers)
    raise NumberTaken("no instance number could be had", f"Tried: {', '.join(map(str, sorted(refused)))}.")


def check_possible(engine: Engine, wish: Wish) -> None:
    """Make sure that the engine has what a container is to be made from; nothing is changed.

    :raises UsageError, ImageUnavailable: otherwise.
    """
    check(wish)
    image.require(engine, wish.image)
    _check_directories(engine, wish)
    _check_network(engine, wish.network)


def _check_network(engine: Engine, name: str) -> None:
    from docker.errors import NotFound

    if name == _DEFAULT_NETWORK:
        return
    with asking(f"look for the network {name}"):
        try:
            engine.api.api.inspect_network(name)
        except NotFound:
            raise UsageError(
                f"the engine has no network {name!r}",
                None,
                f"See which it has: docker network ls\nOr make it: docker network create {name}",
            ) from None


def _check_free(engine: Engine, name: str) -> None:
    attributes = containers.inspect(engine, name)
    if attributes is None:
        return
    if names.REQUEST in (attributes["Config"]["Labels"] or {}):
        raise ContainerNameTaken(
            f"a container named {name!r} is there already, {attributes['State']['Status']}",
            "Nothing was changed.",
            f"Boot its device: cfctl docker start {name}\nRemove it: cfctl docker rm {name}\nOr choose another name",
        )
    raise ContainerNameTaken(
        f"a container named {name!r} is there already, and it is not cfctl's",
        "Nothing was changed.",
        "Choose another name: cfctl docker create NAME",
    )


def _check_directories(engine: Engine, wish: Wish) -> None:
    """Look at what this machine can see of what will be mounted; a remote engine looks for itself."""
    if not engine.is_local:
        return
    for what, text in (("--host-package", wish.host_package), ("--images", wish.images)):
        if text and not Path(text).is_dir():
            raise UsageError(
                f"{what} {text} is not a directory", None, "Unpack it into the cache: cfctl images add FILE"
            )
    for share in wish.shares:
        if not Path(share.source).exists():
            raise UsageError(f"--share {share.source} does not exist")


def _free_numbers(engine: Engine, count: int, refused: set[int], prefer: list[int] | None) -> list[int]:
    taken = set(refused)
    for summary in containers.numbered(engine):
        taken.update(_numbers_of(summary["Labels"]))
    if prefer and len(prefer) == count and taken.isdisjoint(prefer):
        return prefer
    numbers = request.free_numbers(count, taken, limit=MAX_INSTANCES)
    if numbers is None:
        raise NumberTaken(
            f"no {count} instance number(s) in a row are free",
            f"Of 1 to {MAX_INSTANCES} these are in use: {', '.join(map(str, sorted(taken)))}.",
            "Remove a container (cfctl docker list, cfctl docker rm NAME) or stop a device (cfctl ps)",
        )
    return numbers


def _numbers_of(labels: Mapping[str, str]) -> set[int]:
    try:
        first, count = int(labels[names.INSTANCE]), int(labels.get(names.COUNT, "1"))
    except ValueError:
        return set()
    return set(range(first, first + max(count, 1)))


def _attempt(
    engine: Engine, name: str, wish: Wish, has: request.Machine, numbers: list[int], fleet: str | None
) -> Container | None:
    """Try to make a container with these numbers; None, and nothing left, if somebody else has one of them."""
    # Of this attempt alone: another's with the same number may be under way. And short, because the path of a
    # unix socket has no more than 108 bytes (unix(7)), and a name alone may have 63.
    sockets = paths.SYSTEM_RUNTIME / "docker" / secrets.token_hex(4)
    body = request.build(name, wish, has, numbers, owner=registry.owner(), sockets=sockets, fleet=fleet)
    with _undone(engine, name, sockets) as keep:
        _make_layers(engine, name, wish)
        container = _make(engine, name, body)
        if _younger(engine, container):
            return None
        ssh.install_key(container)
        if not _bring_up(container):
            return None
        container = container.again()
        ssh.pin(container)
        keep()
    return container


@contextlib.contextmanager
def _undone(engine: Engine, name: str, sockets: Path) -> Iterator[Any]:
    """Remove what was made of a container unless the block says that it is whole.

    :param sockets: no other attempt's container has this directory.
    """
    done: list[bool] = []
    # Somebody's disks, kept by a removal: they outlive a failed attempt as well.
    kept = any(volume.name == request.home_volume(name) for volume in remove.leftovers(engine, name))
    try:
        yield lambda: done.append(True)
    except ContainerNameTaken:
        # It is another's, and so are the volumes of the name.
        done.append(True)
        raise
    finally:
        if not done:
            with signals.undisturbed(), contextlib.suppress(CfctlError):
                # Somebody else may have been quicker, and has the name and its volumes by now.
                attributes = containers.inspect(engine, name)
                if attributes is None or Container(engine, attributes).sockets == sockets:
                    remove.all_of(engine, name, keep_home=kept)


def _make(engine: Engine, name: str, body: Mapping[str, Any]) -> Container:
    from docker.errors import APIError

    with asking(f"make container {name}"):
        try:
            engine.api.api.create_container_from_config(body, name)
        except APIError as exc:
            if exc.status_code == 409:
                raise ContainerNameTaken(
                    f"a container named {name!r} was made just now by somebody else", exc.explanation
                ) from exc
            raise
    return containers.find(engine, name)


def _younger(engine: Engine, container: Container) -> bool:
    """Tell whether an older container has one of its numbers: two were made at once, and the younger gives way."""
    mine = set(container.numbers)
    for summary in containers.numbered(engine):
        if summary["Id"] == container.id or mine.isdisjoint(_numbers_of(summary["Labels"])):
            continue
        other = containers.inspect(engine, summary["Id"])
        if other and (other["Created"], other["Id"]) < (container.attributes["Created"], container.id):
            return True
    return False


def _make_layers(engine: Engine, name: str, wish: Wish) -> None:
    """Make the volumes that show a directory with a writable layer over it: the directory itself is only read."""
    layers = request.layers(wish)
    if not layers:
        return
    labels = {names.REQUEST: name}
    with asking("make a writable layer over the images"):
        # Asked for a volume that is there, an engine gives that one: with the images of a container that was removed
        # by other means, and with what was written over them.
        helper.remove(engine, of=name)
        for stale in remove.leftovers(engine, name):
            if stale.name != request.home_volume(name):
                stale.remove()
        scratch = engine.api.volumes.create(request.scratch_volume(name), labels=labels)
        # Written through a container that is never started.
        with helper.made(engine, wish.image, ["true"], of=name, binds=[f"{scratch.name}:/layers"]) as container:
            places = [f"{kind}/{part}" for kind, _, _ in layers for part in ("upper", "work")]
            container.put_archive("/layers", helper.directories(places))
        above = scratch.attrs["Mountpoint"]
        for kind, source, _ in layers:
            options = f"lowerdir={source},upperdir={above}/{kind}/upper,workdir={above}/{kind}/work"
            engine.api.volumes.create(
                request.layer_volume(name, kind),
                driver="local",
                driver_opts={"type": "overlay", "device": "overlay", "o": options},
                labels=labels,
            )


def _bring_up(container: Container) -> bool:
    """Start the container and wait until its first process has got everything up.

    :return: False if a device of its machine has one of its numbers.
    :raises CfctlError: if it does not come up, with what it said.
    """
    with asking(f"start container {container.name}"):
        container.engine.api.api.start(container.id)
    return _until_up(container)


def _until_up(container: Container) -> bool:
    """Wait until the first process of a container that was started has got everything up; see :func:`_bring_up`."""
    said = ""
    try:
        done = execute.run(container, ["sh", "-c", _UNTIL_READY], user="root")
        ready, said = done.status == 0, done.output
    except EngineRefused as error:
        # If the container ends meanwhile, so does this, or it cannot begin: its exit status says why.
        ready, said = False, error.details or error.brief
    if ready:
        return True
    now = _ended(container)
    if now.is_running:
        raise CfctlError(f"nobody can tell whether the container {container.name} has come up", said)
    status = now.attributes["State"]["ExitCode"]
    if status == names.NUMBER_TAKEN:
        return False
    raise CfctlError(
        f"the container {container.name} ended while it started, with status {status}",
        execute.log(now, lines=20) or now.attributes["State"].get("Error") or "It said nothing.",
    )


def _ended(container: Container) -> Container:
    """Return a container that is about to end when it has; the engine hears of it a moment after those inside.

    One that the engine starts again and again, as its restart policy says, has ended too: it is stopped.
    """
    deadline = time.monotonic() + _ENDING_S
    while (now := container.again()).is_running and time.monotonic() < deadline:
        if now.attributes["State"]["Restarting"]:
            status = now.attributes["State"]["ExitCode"]
            with asking(f"stop container {container.name}"):
                container.engine.api.api.stop(container.id, timeout=1)
            now = container.again()
            # The stop has its own status; why the container ended was the one before.
            now.attributes["State"]["ExitCode"] = status
            return now
        time.sleep(0.05)
    return now


def start(engine: Engine, name: str) -> Container:
    """Start a container if it does not run; return it running.

    :raises NoSuchContainer: if there is none of that name.
    :raises NumberTaken: if another device of its machine has its number by now.
    """
    container = containers.thaw(containers.find(engine, name))
    if container.is_running:
        # The engine may have started it again just now.
        up = _until_up(container)
    else:
        with steps.step(f"start container {name}"):
            up = _bring_up(container)
    if not up:
        raise NumberTaken(
            f"instance {', '.join(map(str, container.numbers))} of {name} is another device's by now",
            execute.log(container.again(), lines=5),
            f"Stop that device (cfctl ps), or make the container anew: cfctl docker rm {name}",
        )
    return container.again()
