"""``cfctl docker create|list|status|rm|rm-all``: containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl import steps
from cfctl.cli.common import Answer, verb
from cfctl.cli.complete import gpu_modes
from cfctl.cli.docker_options import EngineOption, Name, Names, NumInstances, connect, pairs
from cfctl.cli.docker_show import document, each, show_made, table
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.docker.engine import Engine


def register(app: typer.Typer) -> None:
    """Add the verbs to the group."""
    verb(app, "create")(create)
    verb(app, "list")(list_)
    verb(app, "status")(status)
    verb(app, "rm")(rm)
    verb(app, "rm-all")(rm_all)


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
        str | None,
        typer.Option(
            help="A host package: archive, directory or name in the cache [default: the embedded Linux guest].",
            metavar="TAR|DIR|NAME",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="The guest's images, likewise [default: the host package's].", metavar="ZIP|DIR|NAME"),
    ] = None,
    singleshot: Annotated[
        bool, typer.Option("--singleshot", help="Log in at once, and remove it afterwards.", show_default=False)
    ] = False,
    engine: EngineOption = None,
    json_: bool = False,
) -> Answer | None:
    """Make a container and start it. Boot its device with: cfctl docker start NAME.

    Host package and images are mounted from the cache, or the directory, with a writable layer over them, and stay
    as they are. On another machine's engine they are directories of that machine; or push them.

    \b
    Examples:
      cfctl docker create phone
      cfctl docker create phone --cpus 4 --memory-mb 4096 --host-package cvd-host_package.tar.gz --images nightly
      cfctl docker create farm --num-instances 4 --restart always --engine ssh://me@rack1
      cfctl docker create try --singleshot
    """
    from msgspec import structs

    from cfctl.docker import create as create_
    from cfctl.docker import remove, terminal, wares
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
    )
    with wares.chosen(where, host_package, images) as chosen:
        made = create_.create(where, name, structs.replace(wish, host_package=chosen[0], images=chosen[1]))
    if not singleshot:
        return Answer(document(made, []), lambda: show_made(made))
    try:
        status = terminal.login(made, [])
    finally:
        remove.remove(where, name)
    return Answer({}, lambda: None, status)


def list_(*, engine: EngineOption = None) -> Answer:
    """List the containers of cfctl and the devices in them.

    \b
    Examples:
      cfctl docker list
      cfctl docker list --json | jq -r '.containers[].adb[]'
    """
    from cfctl.docker import container, device, store

    where = connect(engine)
    found = container.list_all(where)
    for name in store.without_container(where.url, [one.id for one in found]):
        steps.note(f"{name} was removed by other means; what else belonged to it goes with: cfctl docker rm {name}")
    devices = device.all_devices(found)
    documents = [document(one, devices[one.name]) for one in found]
    return Answer({"containers": documents}, lambda: print(table(documents)))


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
    shown = document(found, devices)
    up = any(device["state"] in ("booting", "running", "suspended", "unreachable") for device in devices)

    def show() -> None:
        for key in ("name", "state", "image", "engine", "owner", "fleet", "numbers", "home", "sockets"):
            if shown[key] is not None:
                print(f"{key:<10} {shown[key]}")
        for port in shown["published"]:
            print(f"{'published':<10} {port['address']} -> {port['inside']}")
        for device in devices:
            print(f"{'device':<10} {device['name']}, {device['state']}, GPU mode {device['gpu_mode']}")
        if not devices:
            why = "none has been booted" if found.is_running else f"the container is {found.state}"
            print(f"{'device':<10} {why}: cfctl docker start {name}")

    return Answer(shown, show, 0 if up else 3)


def rm(*, names: Names, engine: EngineOption = None) -> Answer:
    """Remove containers with their disks, keys and published ports. Shared directories are not touched.

    \b
    Examples:
      cfctl docker rm phone
    """
    return _remove(names, connect(engine))


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
    from cfctl.docker import container, store
    from cfctl.docker import names as labels
    from cfctl.launch import registry

    where = connect(engine)
    found = container.list_all(where)
    mine = [one.name for one in found if all_users or one.labels.get(labels.OWNER) == registry.owner()]
    return _remove([*mine, *store.without_container(where.url, [one.id for one in found])], where)


def _remove(names: list[str], engine: Engine) -> Answer:
    from cfctl.docker import remove

    def one(name: str) -> None:
        with steps.step(f"remove container {name}"):
            remove.remove(engine, name)
        removed.append(name)

    removed: list[str] = []
    return each(names, one, "removed", removed)


def _mode(gpu: str) -> str:
    from cfctl.gpu import modes

    modes.check(gpu)
    return gpu
