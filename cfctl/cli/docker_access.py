"""``cfctl docker login|home|publish|unpublish|push-images``: the ways into a container."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.docker_options import EngineOption, Name, connect
from cfctl.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verbs to the group."""
    verb(app, "login")(login)
    verb(app, "home")(home)
    verb(app, "publish")(publish)
    verb(app, "unpublish")(unpublish)
    verb(app, "push-images")(push_images)


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


def home(*, name: Name, engine: EngineOption = None) -> Answer:
    """Print the directory of the engine's machine that is the home of the container's user.

    \b
    Examples:
      cfctl docker home phone
    """
    from cfctl.docker import container

    directory = container.home(container.find(connect(engine), name))
    return Answer({"home": directory}, lambda: print(directory))


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
        if not documents:
            print(f"nothing was {word}")

    return Answer({word: documents}, show)


def push_images(
    *,
    name: Name,
    host_package: Annotated[
        str | None,
        typer.Option(help="A host package: archive, directory or name.", metavar="TAR|DIR|NAME", show_default=False),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="The guest's images, likewise.", metavar="ZIP|DIR|NAME", show_default=False)
    ] = None,
    engine: EngineOption = None,
) -> Answer:
    """Send a host package and images into a container over SSH; what was cut off goes on where it ended.

    \b
    Examples:
      cfctl docker push-images phone --host-package cvd-host_package.tar.gz --images aosp_cf_x86_64_phone-img.zip
    """
    from cfctl.docker import container, wares
    from cfctl.docker import push as pushing

    if host_package is None and images is None:
        raise UsageError("there is nothing to push", "Give --host-package, --images or both.")
    found = container.running(connect(engine), name)
    package, guest = wares.to_push(host_package, "host-package"), wares.to_push(images, "images")
    sent = pushing.push(found, host_package=package, images=guest)
    document = {"pushed": [{"name": one.name, "size": one.size, "sent": one.sent} for one in sent]}

    def show() -> None:
        for one in sent:
            print(f"{one.name}: {one.sent} of {one.size} bytes were sent")
        print(f"Boot it: cfctl docker restart {name}")

    return Answer(document, show)
