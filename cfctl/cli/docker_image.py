"""``cfctl docker build|push|pull``: the image that containers are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.docker_options import EngineOption, Tag, connect, pairs


def register(app: typer.Typer) -> None:
    """Add the verbs to the group."""
    verb(app, "build")(build)
    verb(app, "push")(push)
    verb(app, "pull")(pull)


def build(
    *,
    tag: Tag = "cfctl",
    base: Annotated[str, typer.Option(help="The image to begin with: of Debian's family or RHEL's.")] = "debian:12",
    gpu: Annotated[
        str, typer.Option(help="auto, none, or a GPU vendor: whose libraries go in.", metavar="VENDOR")
    ] = "auto",
    build_arg: Annotated[
        list[str] | None,
        typer.Option(help="A build argument, such as http_proxy=URL.", metavar="NAME=VALUE", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build it even if nothing has changed.", show_default=False)
    ] = False,
    engine: EngineOption = None,
) -> Answer:
    """Build the image that containers are made from, unless it is there and current.

    \b
    Examples:
      cfctl docker build
      cfctl docker build --base rockylinux:9 --gpu nvidia --tag farm/cfctl:1
    """
    from cfctl import arch
    from cfctl.docker import image

    where = connect(engine)
    vendor = gpu
    if gpu == "auto":
        vendor = image.detected_vendor() if where.is_local else image.NO_GPU
    machine = arch.host()
    recipe = image.Recipe(
        base=base,
        vendor=vendor,
        guest=_guest_image(),
        arch=machine.name,
        build_args=pairs(build_arg or [], "--build-arg"),
    )
    built = image.build(where, recipe, tag=tag, force=force)
    document = {"tag": built.tag, "id": built.id, "gpu": built.vendor, "key": built.key, "changed": built.changed}
    said = "is built" if built.changed else "is current, nothing was done"
    return Answer(document, lambda: print(f"{built.tag} {said}; GPU libraries: {built.vendor}"))


def _guest_image() -> Path:
    from cfctl import arch
    from cfctl.guest import image

    return image.ensure(arch.host()).directory


def push(
    *, tag: Annotated[str, typer.Argument(help="The image, with its registry.")], engine: EngineOption = None
) -> Answer:
    """Push the image to a registry, for other machines.

    \b
    Examples:
      docker tag cfctl registry.example.com/farm/cfctl:1
      cfctl docker push registry.example.com/farm/cfctl:1
    """
    from cfctl.docker import image

    digest = image.push(connect(engine), tag)
    return Answer({"tag": tag, "digest": digest}, lambda: print(f"{tag} {digest}"))


def pull(
    *,
    name: Annotated[str, typer.Argument(help="The image, with its registry.", metavar="IMAGE")],
    tag: Tag = "cfctl",
    engine: EngineOption = None,
) -> Answer:
    """Pull the image from a registry, and call it what create looks for.

    \b
    Examples:
      cfctl docker pull registry.example.com/farm/cfctl:1
    """
    from cfctl.docker import image

    id_ = image.pull(connect(engine), name, tag=tag)
    return Answer({"image": name, "tag": tag, "id": id_}, lambda: print(f"{name} is {tag}"))
