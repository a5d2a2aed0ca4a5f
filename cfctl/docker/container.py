"""Containers of cfctl on one engine: make, find, start, stop, remove. Found by our label, never by image or name."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfctl import paths, signals, steps
from cfctl.docker import image, machine, names, request, store
from cfctl.docker.engine import asking
from cfctl.docker.wish import Wish, check, check_name
from cfctl.errors import (
    CfctlError,
    ContainerNameTaken,
    EngineRefused,
    NoSuchContainer,
    NotRunning,
    NumberTaken,
    UsageError,
)
from cfctl.instance import MAX_INSTANCES, Instance
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

#: How long the engine may take to see that a container has ended.
_ENDING_S = 10.0


@dataclass(frozen=True)
class Container:
    """A container of cfctl, as it was when it was looked at.

    :param attributes: what the engine says about it.
    """

    engine: Engine
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.attributes["Name"]).removeprefix("/")

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return str(self.attributes["Id"])

    @property
    def state(self) -> str:
        """``running``, ``exited``, ``created``, ...: the engine's word."""
        return str(self.attributes["State"]["Status"])

    @property
    def is_running(self) -> bool:
        """Whether its processes run."""
        return bool(self.attributes["State"]["Running"])

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.attributes["Config"]["Labels"] or {}

    @property
    def wish(self) -> Wish:
        """What was asked for."""
        return msgspec.json.decode(self.labels[names.REQUEST], type=Wish)

    @property
    def numbers(self) -> list[int]:
        """The numbers of its instances."""
        first, count = int(self.labels[names.INSTANCE]), int(self.labels[names.COUNT])
        return list(range(first, first + count))

    @property
    def address(self) -> str | None:
        """Its address in the first network that gives it one; None if it has none that can be reached."""
        networks = self.attributes["NetworkSettings"]["Networks"] or {}
        return next((net["IPAddress"] for net in networks.values() if net.get("IPAddress")), None)

    @property
    def sockets(self) -> Path:
        """The directory of the engine's machine with its devices' sockets."""
        return Path(_mounted(self, names.SOCKETS) or paths.SYSTEM_RUNTIME)

    def again(self) -> Container:
        """Return it as it is now.

        :raises NoSuchContainer: if it is gone.
        """
        return find(self.engine, self.name)


def _inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    from docker.errors import NotFound

    with asking(f"tell about {name}"):
        try:
            attributes: dict[str, Any] = engine.api.api.inspect_container(name)
        except NotFound:
            return None
        return attributes


def _all(engine: Engine) -> list[Mapping[str, Any]]:
    """Return a summary of every container that has an instance number: ours, and those of upstream's scripts."""
    with asking("list its containers"):
        found: list[Mapping[str, Any]] = engine.api.api.containers(all=True, filters={"label": names.INSTANCE})
    return found


def list_all(engine: Engine) -> list[Container]:
    """Return all containers of cfctl on an engine, by name."""
    ours = [summary["Id"] for summary in _all(engine) if names.REQUEST in summary["Labels"]]
    found = [Container(engine, attributes) for id_ in ours if (attributes := _inspect(engine, id_))]
    return sorted(found, key=lambda container: container.name)


def find(engine: Engine, name: str) -> Container:
    """Return a container of cfctl.

    :raises NoSuchContainer: if there is none of that name, or it is not ours.
    """
    attributes = _inspect(engine, check_name(name))
    if attributes is None:
        raise NoSuchContainer(name, [container.name for container in list_all(engine)])
    if names.REQUEST not in (attributes["Config"]["Labels"] or {}):
        raise ContainerNameTaken(
            f"the container {name!r} is not cfctl's",
            f"It has no label {names.REQUEST}, and was not touched.",
            f"Look at it: docker inspect {name}",
        )
    return Container(engine, attributes)


def running(engine: Engine, name: str) -> Container:
    """Return a container that runs.

    :raises NotRunning: if it does not.
    """
    container = find(engine, name)
    if not container.is_running:
        raise NotRunning(f"the container {name} is {container.state}", None, f"Start it: cfctl docker start {name}")
    return container


# -- making ------------------------------------------------------------------------------------------------


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
    check(wish)
    image.require(engine, wish.image)
    _check_free(engine, name)
    _check_directories(engine, wish)
    has = machine.look(engine, wish.image)
    refused: set[int] = set()
    for _ in range(_ATTEMPTS):
        numbers = _free_numbers(engine, wish.num_instances, refused, prefer)
        with steps.step(f"make container {name}, instance {numbers[0]}"):
            container = _attempt(engine, name, wish, has, numbers, fleet)
        if container is not None:
            return container
        refused.update(numbers)
    raise NumberTaken("no instance number could be had", f"Tried: {', '.join(map(str, sorted(refused)))}.")


def _check_free(engine: Engine, name: str) -> None:
    attributes = _inspect(engine, name)
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
                f"{what} {text} is not a directory", None, "Archives are pushed: cfctl docker push-images"
            )
    for share in wish.shares:
        if not Path(share.source).exists():
            raise UsageError(f"--share {share.source} does not exist")


def _free_numbers(engine: Engine, count: int, refused: set[int], prefer: list[int] | None) -> list[int]:
    taken = set(refused)
    for summary in _all(engine):
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
    body = request.build(
        name,
        wish,
        has,
        numbers,
        owner=registry.owner(),
        # Of this attempt alone: another's with the same number may be under way. And short, because the path of a
        # unix socket has no more than 108 bytes (unix(7)), and a name alone may have 63.
        sockets=paths.SYSTEM_RUNTIME / "docker" / secrets.token_hex(4),
        fleet=fleet,
    )
    with _undone(engine, name) as keep:
        _make_layers(engine, name, wish)
        container = _make(engine, name, body)
        if _younger(engine, container):
            return None
        from cfctl.docker import ssh

        ssh.install_key(container)
        if not _bring_up(container):
            return None
        container = container.again()
        ssh.pin(container)
        keep()
    return container


@contextlib.contextmanager
def _undone(engine: Engine, name: str) -> Iterator[Any]:
    """Remove what was made of a container unless the block says that it is whole."""
    done: list[bool] = []
    # Somebody's disks, kept by a removal: they outlive a failed attempt as well.
    kept = any(volume.name == request.home_volume(name) for volume in _leftovers(engine, name))
    try:
        yield lambda: done.append(True)
    except ContainerNameTaken:
        # It is another's, and so are the volumes of the name.
        done.append(True)
        raise
    finally:
        if not done:
            with signals.undisturbed(), contextlib.suppress(CfctlError):
                _remove_all(engine, name, keep_home=kept)


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
    return find(engine, name)


def _younger(engine: Engine, container: Container) -> bool:
    """Tell whether an older container has one of its numbers: two were made at once, and the younger gives way."""
    mine = set(container.numbers)
    for summary in _all(engine):
        if summary["Id"] == container.id or mine.isdisjoint(_numbers_of(summary["Labels"])):
            continue
        other = _inspect(engine, summary["Id"])
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
        scratch = engine.api.volumes.create(request.scratch_volume(name), labels=labels)
        engine.api.containers.run(
            wish.image,
            ["-p", *(f"/layers/{kind}/{part}" for kind, _, _ in layers for part in ("upper", "work"))],
            entrypoint="mkdir",
            volumes={scratch.name: {"bind": "/layers", "mode": "rw"}},
            network_mode="none",
            remove=True,
        )
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
    said = ""
    try:
        done = execute(container, ["sh", "-c", _UNTIL_READY], user="root")
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
        log(now, lines=20) or now.attributes["State"].get("Error") or "It said nothing.",
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
    container = find(engine, name)
    if not container.is_running:
        with steps.step(f"start container {name}"):
            if not _bring_up(container):
                raise NumberTaken(
                    f"instance {', '.join(map(str, container.numbers))} of {name} is another device's by now",
                    log(container.again(), lines=5),
                    f"Stop that device (cfctl ps), or make the container anew: cfctl docker rm {name}",
                )
        container = container.again()
    return container


# -- inside ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Execution:
    """How a command inside ended."""

    status: int
    output: str


def execute(container: Container, argv: list[str], *, user: str = names.USER) -> Execution:
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


def put(container: Container, path: str, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file into a container, running or not, as root."""
    directory, _, name = path.rpartition("/")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), mode
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
        raw: bytes = container.engine.api.api.logs(container.id, tail=lines or "all")
    return raw.decode(errors="replace").strip()


def devices(container: Container) -> list[dict[str, Any]]:
    """Return the devices in a container, as the contract shows devices; none if it does not run."""
    if not container.is_running:
        return []
    done = execute(container, [names.PYTHON, "-m", "cfctl", "ps", "--json"])
    for line in done.output.splitlines():
        with contextlib.suppress(ValueError):
            found: list[dict[str, Any]] = json.loads(line)["devices"]
            return [as_seen_outside(container, device) for device in found]
    return []


def as_seen_outside(container: Container, device: dict[str, Any]) -> dict[str, Any]:
    """Return a device of a container as it is shown beside those of the host."""
    record = store.load(container.engine.url, container.name)
    published = {port.inside: str(port) for port in (record.ports if record and record.id == container.id else ())}
    instances = [
        {**instance, "adb": published.get(Instance(instance["number"]).adb_port), "vm_pid": None}
        for instance in device["instances"]
    ]
    return {**device, "runtime": "docker", "container": container.name, "instances": instances}


def all_devices(containers: list[Container]) -> dict[str, list[dict[str, Any]]]:
    """Return the devices in each of several containers, asked all at once; one that does not answer has none."""

    def ask(container: Container) -> list[dict[str, Any]]:
        with contextlib.suppress(CfctlError):
            return devices(container)
        return []

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip((c.name for c in containers), pool.map(ask, containers), strict=True))


def home(container: Container) -> str | None:
    """Return the directory of the engine's machine that is the home of the container's user."""
    return _mounted(container, names.HOME)


def _mounted(container: Container, inside: str) -> str | None:
    mounts = container.attributes.get("Mounts") or []
    return next((mount["Source"] for mount in mounts if mount["Destination"] == inside), None)


# -- ending ------------------------------------------------------------------------------------------------


def stop(container: Container) -> None:
    """Stop a container; its first process stops the device before."""
    with steps.step(f"stop container {container.name}"), asking(f"stop container {container.name}"):
        container.engine.api.api.stop(container.id, timeout=request.STOP_TIMEOUT_S)


def remove(engine: Engine, name: str, *, keep_home: bool = False) -> None:
    """Remove a container with its volumes, keys, published ports and sockets; what is gone already is no error.

    :param keep_home: leave the volume with its devices' disks for another container of the name.
    :raises NoSuchContainer: if nothing of that name is there.
    :raises ContainerNameTaken: if it is not ours.
    """
    from cfctl.docker import publish

    try:
        container = find(engine, name)
    except NoSuchContainer:
        # A removal that was killed half-way has left volumes or keys.
        if not (_leftovers(engine, name) or store.load(engine.url, name)):
            raise
        container = None
    publish.close_all(engine.url, name)
    if container is not None and container.is_running:
        # In order, so that the sockets on the engine's machine are removed by those who made them.
        with contextlib.suppress(EngineRefused):
            stop(container)
    _remove_all(engine, name, container, keep_home=keep_home)


def _leftovers(engine: Engine, name: str) -> list[Any]:
    from docker.errors import NotFound

    found = []
    with asking("look for volumes"):
        for volume in request.volumes(name):
            with contextlib.suppress(NotFound):
                found.append(engine.api.volumes.get(volume))
    return found


def _remove_all(engine: Engine, name: str, container: Container | None = None, *, keep_home: bool = False) -> None:
    import shutil

    from docker.errors import NotFound

    attributes = _inspect(engine, name)
    if attributes is not None and names.REQUEST in (attributes["Config"]["Labels"] or {}):
        container = Container(engine, attributes)
        with asking(f"remove container {name}"), contextlib.suppress(NotFound):
            engine.api.api.remove_container(container.id, force=True, v=True)
    with asking(f"remove the volumes of {name}"):
        for volume in _leftovers(engine, name):
            if not (keep_home and volume.name == request.home_volume(name)):
                volume.remove()
    if container is not None and engine.is_local and (sockets := _mounted(container, names.SOCKETS)) is not None:
        shutil.rmtree(sockets, ignore_errors=True)
    store.remove(engine.url, name)
