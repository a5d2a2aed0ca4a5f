"""``cfctl docker``: devices in containers, on this machine's engine or another's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli import docker_fleet, docker_image
from cfctl.cli.common import Answer, print_json, verb
from cfctl.cli.complete import gpu_modes
from cfctl.cli.docker_options import EngineOption, Name, Names, NumInstances, Timeout, connect, pairs
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from cfctl.docker.container import Container
    from cfctl.docker.engine import Engine

app = typer.Typer(help="Devices in containers, without --privileged.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Run devices in containers: images, containers, fleets of them."""


docker_image.register(app)


# -- containers --------------------------------------------------------------------------------------------


@verb(app, "create")
def create(
    *,
    name: Annotated[str, typer.Argument(help="What to call the container.", metavar="[NAME]")] = "cuttlefish",
    image: Annotated[str, typer.Option(help="The image that it is made from.")] = "cfctl",
    num_instances: NumInstances = 1,
    cpus: Annotated[int | None, typer.Option(help="Virtual processors of each instance.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="Memory of each instance in MiB.")] = None,
    gpu: Annotated[
        str,
        typer.Option(help="auto, or a GPU mode (see cfctl gpu probe).", metavar="MODE", autocompletion=gpu_modes),
    ] = "auto",
    network: Annotated[str, typer.Option(help="The engine's network that the container is in.")] = "bridge",
    restart: Annotated[
        str, typer.Option(help="no, on-failure or always: whether the engine starts it again, and its device.")
    ] = "no",
    env: Annotated[
        list[str] | None, typer.Option(help="A variable of the container.", metavar="NAME=VALUE", show_default=False)
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(help="A directory that it sees too.", metavar="SOURCE:TARGET[:ro]", show_default=False),
    ] = None,
    host_package: Annotated[
        Path | None,
        typer.Option(help="An unpacked host package [default: the embedded Linux guest].", metavar="DIR"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Directory with the guest's images [default: the host package's].", metavar="DIR"),
    ] = None,
    singleshot: Annotated[
        bool, typer.Option("--singleshot", help="Log in at once, and remove it afterwards.", show_default=False)
    ] = False,
    engine: EngineOption = None,
    json_: bool = False,
) -> Answer | None:
    """Make a container and start it. Boot its device with: cfctl docker start NAME.

    Host package and images are mounted with a writable layer over them, and stay as they are. On another
    machine's engine they are directories of that machine; or push them.

    \b
    Examples:
      cfctl docker create phone
      cfctl docker create phone --cpus 4 --memory-mb 4096 --host-package ~/cf --images ~/cf
      cfctl docker create farm --num-instances 4 --restart always --engine ssh://me@rack1
      cfctl docker create try --singleshot
    """
    from cfctl.docker import create as create_
    from cfctl.docker import remove, terminal
    from cfctl.docker.wish import Share, Wish

    if singleshot and json_:
        raise UsageError("--singleshot is interactive and has no --json")
    where = connect(engine)
    wish = Wish(
        image=image,
        num_instances=num_instances,
        cpus=cpus,
        memory_mb=memory_mb,
        gpu=_mode(gpu),
        network=network,
        restart=restart,
        env=pairs(env or [], "--env"),
        shares=tuple(map(Share.parse, share or [])),
        host_package=_directory(host_package),
        images=_directory(images),
    )
    made = create_.create(where, name, wish)
    if not singleshot:
        return Answer(_document(made, []), lambda: _show_made(made))
    try:
        status = terminal.login(made, [])
    finally:
        remove.remove(where, name)
    return Answer({}, lambda: None, status)


@verb(app, "start")
def start(
    *,
    names: Annotated[
        list[str],
        typer.Argument(help="The container; after -- further flags of launch_cvd.", metavar="NAME [-- FLAGS]"),
    ],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has booted, or is started.")] = True,
    timeout: Timeout = None,
    engine: EngineOption = None,
) -> Answer:
    """Boot the device of a container, and follow its phases; the container is started if it does not run.

    \b
    Examples:
      cfctl docker start phone
      cfctl docker start phone -- --x_res=1080 --y_res=1920
    """
    name, *flags = names
    return _boot(name, tuple(flags), engine, wait=wait, timeout=timeout, again=False)


@verb(app, "restart")
def restart_(
    *,
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has booted, or is started.")] = True,
    timeout: Timeout = None,
    engine: EngineOption = None,
) -> Answer:
    """Boot the device of a container again.

    \b
    Examples:
      cfctl docker restart phone
    """
    return _boot(name, (), engine, wait=wait, timeout=timeout, again=True)


def _boot(
    name: str, flags: tuple[str, ...], engine: str | None, *, wait: bool, timeout: int | None, again: bool
) -> Answer:
    from cfctl import config
    from cfctl.docker import container, device, publish

    seconds = config.load(flags={"launch.timeout": timeout})["launch.timeout"]
    where = connect(engine)
    booted = device.start(where, name, timeout=seconds, wait=wait, flags=flags, again=again)
    publish.revive(container.find(where, name))

    def show() -> None:
        print(f"{name} is {booted['state']}; GPU mode {booted['gpu_mode']}: {booted['gpu_reason']}")
        for instance in booted["instances"]:
            adb = instance["adb"]
            print(f"  cvd-{instance['number']:<4} {f'adb connect {adb}' if adb else f'cfctl docker publish {name}'}")

    return Answer(booted, show)


@verb(app, "stop")
def stop(
    *,
    names: Names,
    container: Annotated[
        bool, typer.Option("--container", help="Stop the container too.", show_default=False)
    ] = False,
    engine: EngineOption = None,
) -> Answer:
    """Stop the devices of containers. Disks are kept, and the containers run on unless --container is given.

    \b
    Examples:
      cfctl docker stop phone
      cfctl docker stop phone tablet --container
    """
    from cfctl.docker import container as containers
    from cfctl.docker import device, remove

    where = connect(engine)

    def one(name: str) -> None:
        found = containers.find(where, name)
        if found.is_running:
            with steps.step(f"stop the device of {name}"):
                device.stop(found)
            if container:
                remove.stop(found)
        stopped.append(name)

    stopped: list[str] = []
    return _each(names, one, "stopped", stopped)


@verb(app, "list")
def list_(*, engine: EngineOption = None) -> Answer:
    """List the containers of cfctl and the devices in them.

    \b
    Examples:
      cfctl docker list
      cfctl docker list --json | jq -r '.containers[].adb[]'
    """
    from cfctl.docker import container, device

    found = container.list_all(connect(engine))
    devices = device.all_devices(found)
    documents = [_document(one, devices[one.name]) for one in found]
    return Answer({"containers": documents}, lambda: print(_table(documents)))


@verb(app, "status")
def status(*, name: Name, engine: EngineOption = None) -> Answer:
    """Show one container; the exit status is 3 if its device is not up.

    \b
    Examples:
      cfctl docker status phone
    """
    from cfctl.docker import container
    from cfctl.docker import device as devices_

    found = container.find(connect(engine), name)
    devices = devices_.devices(found)
    document = _document(found, devices)
    up = any(device["state"] in ("booting", "running", "suspended", "unreachable") for device in devices)

    def show() -> None:
        for key in ("name", "state", "image", "engine", "owner", "fleet", "numbers", "home", "sockets"):
            if document[key] is not None:
                print(f"{key:<10} {document[key]}")
        for port in document["published"]:
            print(f"{'published':<10} {port['address']} -> {port['inside']}")
        for device in devices:
            print(f"{'device':<10} {device['name']}, {device['state']}, GPU mode {device['gpu_mode']}")
        if not devices:
            print(f"{'device':<10} none has been booted: cfctl docker start {name}")

    return Answer(document, show, 0 if up else 3)


@verb(app, "logs")
def logs(
    *,
    name: Name,
    which: Annotated[
        str | None,
        typer.Option(help="kernel, launcher, launch: the device's; container: its first process's."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.", show_default=False)] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", help="Only the last so many lines.", min=0)] = None,
    engine: EngineOption = None,
    json_: bool = False,
) -> None:
    """Print a log of a device, or what the container's first process said.

    \b
    Examples:
      cfctl docker logs phone
      cfctl docker logs phone --which container -n 20
    """
    from cfctl.docker import container, device

    def show(line: str) -> None:
        if json_:
            print_json({"line": line})
        else:
            print(line, flush=follow)

    found = container.find(connect(engine), name)
    device.logs(found, which=which, lines=lines, follow=follow, show=show)


@verb(app, "login")
def login(
    *,
    name: Name,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND]", help="What to run [default: a shell].", show_default=False),
    ] = None,
    exec_: Annotated[
        bool, typer.Option("--exec", help="Go in through the engine instead of SSH.", show_default=False)
    ] = False,
    engine: EngineOption = None,
    json_: bool = False,
) -> Answer:
    """Open a shell in a container over SSH, or run a command there; its exit status is the command's.

    \b
    Examples:
      cfctl docker login phone
      cfctl docker login phone -- ls -l
      cfctl docker login --exec phone
    """
    from cfctl.docker import container, terminal

    if json_:
        raise UsageError("login is interactive and has no --json")
    found = container.running(connect(engine), name)
    go = terminal.enter if exec_ else terminal.login
    return Answer({}, lambda: None, go(found, command or []))


@verb(app, "home")
def home(*, name: Name, engine: EngineOption = None) -> Answer:
    """Print the directory of the engine's machine that is the home of the container's user.

    \b
    Examples:
      cfctl docker home phone
    """
    from cfctl.docker import container

    directory = container.home(container.find(connect(engine), name))
    return Answer({"home": directory}, lambda: print(directory))


@verb(app, "publish")
def publish(
    *,
    name: Name,
    port: Annotated[
        list[str] | None,
        typer.Option(
            "--port", help="A port of the container [default: ADB].", metavar="[HERE:]PORT", show_default=False
        ),
    ] = None,
    address: Annotated[str, typer.Option(help="The address of this machine that it is to be had on.")] = "127.0.0.1",
    engine: EngineOption = None,
) -> Answer:
    """Make ports of a container to be had on this machine: the ADB of every instance, or those named.

    \b
    Examples:
      cfctl docker publish phone
      cfctl docker publish phone --port 18443:8443
    """
    from cfctl.docker import container
    from cfctl.docker import publish as ports

    found = container.running(connect(engine), name)
    wanted = [ports.parse(text, address) for text in port] if port else ports.default_ports(found, address)
    return _ports_answer("published", ports.publish(found, wanted))


@verb(app, "unpublish")
def unpublish(
    *,
    name: Name,
    port: Annotated[
        list[int] | None, typer.Option("--port", help="Only this port.", metavar="PORT", show_default=False)
    ] = None,
    engine: EngineOption = None,
) -> Answer:
    """Withdraw published ports of a container: all of them, or those named.

    \b
    Examples:
      cfctl docker unpublish phone
    """
    from cfctl.docker import container
    from cfctl.docker import publish as ports

    return _ports_answer("unpublished", ports.unpublish(container.find(connect(engine), name), port or []))


def _ports_answer(word: str, ports: list[Any]) -> Answer:
    documents = [{"address": str(port), "inside": port.inside} for port in ports]

    def show() -> None:
        for document in documents:
            print(f"{document['address']} -> {document['inside']}")

    return Answer({word: documents}, show)


@verb(app, "push-images")
def push_images(
    *,
    name: Name,
    host_package: Annotated[
        Path | None, typer.Option(help="A host package, packed or not.", metavar="DIR|TAR", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The guest's images.", metavar="DIR|ZIP", show_default=False)
    ] = None,
    engine: EngineOption = None,
) -> Answer:
    """Send a host package and images into a container over SSH; what was cut off goes on where it ended.

    \b
    Examples:
      cfctl docker push-images phone --host-package cvd-host_package.tar.gz --images aosp_cf_x86_64_phone-img.zip
    """
    from cfctl.docker import container
    from cfctl.docker import push as pushing

    if host_package is None and images is None:
        raise UsageError("there is nothing to push", "Give --host-package, --images or both.")
    found = container.running(connect(engine), name)
    sent = pushing.push(found, host_package=host_package, images=images)
    document = {"pushed": [{"name": one.name, "size": one.size, "sent": one.sent} for one in sent]}

    def show() -> None:
        for one in sent:
            print(f"{one.name}: {one.sent} of {one.size} bytes were sent")
        print(f"Boot it: cfctl docker restart {name}")

    return Answer(document, show)


@verb(app, "rm")
def rm(*, names: Names, engine: EngineOption = None) -> Answer:
    """Remove containers with their disks, keys and published ports. Shared directories are not touched.

    \b
    Examples:
      cfctl docker rm phone
    """
    return _remove(names, connect(engine))


@verb(app, "rm-all")
def rm_all(
    *,
    all_users: Annotated[
        bool, typer.Option("--all-users", help="Those of other users too.", show_default=False)
    ] = False,
    engine: EngineOption = None,
) -> Answer:
    """Remove all your containers of cfctl on the engine.

    \b
    Examples:
      cfctl docker rm-all
    """
    from cfctl.docker import container
    from cfctl.docker import names as labels
    from cfctl.launch import registry

    where = connect(engine)
    mine = [
        one.name for one in container.list_all(where) if all_users or one.labels.get(labels.OWNER) == registry.owner()
    ]
    return _remove(mine, where)


def _remove(names: list[str], engine: Engine) -> Answer:
    from cfctl.docker import remove

    def one(name: str) -> None:
        with steps.step(f"remove container {name}"):
            remove.remove(engine, name)
        removed.append(name)

    removed: list[str] = []
    return _each(names, one, "removed", removed)


docker_fleet.register(app)


# -- helpers -----------------------------------------------------------------------------------------------


def _each(names: list[str], one: Any, word: str, done: list[str]) -> Answer:
    """Do the same to several containers; one that fails does not keep the others from their turn."""
    from cfctl.cli.common import show_error

    errors: list[CfctlError] = []
    for name in dict.fromkeys(names):
        try:
            one(name)
        except CfctlError as error:
            errors.append(error)
    if len(names) == 1 and errors:
        raise errors[0]
    document: dict[str, Any] = {word: done}
    if errors:
        document["errors"] = [error.as_dict() for error in errors]

    def show() -> None:
        for error in errors:
            show_error(error, json_=False)

    return Answer(document, show, errors[0].exit_code if errors else 0)


def _mode(gpu: str) -> str:
    from cfctl.gpu import modes

    modes.check(gpu)
    return gpu


def _directory(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path.expanduser().absolute())


def _document(container: Container, devices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a container as the contract shows it (docs/schema/container.json)."""
    from cfctl.docker import container as containers
    from cfctl.docker import names, publish, store

    record = store.load(container.engine.url, container.name)
    ours = record is not None and record.id == container.id
    ports = record.ports if record is not None and ours else ()
    adb = [address for device in devices for one in device["instances"] if (address := one["adb"])]
    return {
        "name": container.name,
        "state": container.state,
        "image": container.wish.image,
        "engine": container.engine.url,
        "numbers": container.numbers,
        "adb": adb,
        "published": [{"address": str(port), "inside": port.inside} for port in ports],
        "forwarding": bool(record and ports and publish.is_forwarding(record)),
        "owner": container.labels.get(names.OWNER),
        "fleet": container.labels.get(names.FLEET),
        "home": containers.home(container),
        "sockets": os.fspath(container.sockets),
        "devices": devices,
    }


def _show_made(container: Container) -> None:
    print(f"{container.name} runs, with instance {', '.join(map(str, container.numbers))}; no device is booted yet")
    print(f"  Go on with: cfctl docker start {container.name}, cfctl docker publish {container.name}")


def _table(documents: list[dict[str, Any]]) -> str:
    if not documents:
        return "There are no containers. Make one with: cfctl docker create"
    rows = [("NAME", "CONTAINER", "DEVICE", "INSTANCES", "ADB", "IMAGE", "FLEET")]
    for one in documents:
        device = ",".join(device["state"] for device in one["devices"]) or "-"
        numbers = ",".join(map(str, one["numbers"]))
        adb = ",".join(one["adb"]) or "not published"
        if one["published"] and not one["forwarding"]:
            adb = f"forwarder is gone: cfctl docker start {one['name']}"
        rows.append((one["name"], one["state"], device, numbers, adb, one["image"], one["fleet"] or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
