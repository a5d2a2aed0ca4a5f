"""``cfctl docker``: devices in containers, on this machine's engine or another's."""

from __future__ import annotations

import typer

from cfctl.cli import docker_access, docker_container, docker_device, docker_fleet, docker_image

app = typer.Typer(help="Devices in containers, without --privileged.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Run devices in containers: images, containers, fleets of them."""


# The order of `cfctl docker --help`.
for group in (docker_image, docker_container, docker_device, docker_access, docker_fleet):
    group.register(app)
