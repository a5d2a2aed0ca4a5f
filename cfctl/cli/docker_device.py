"""``cfctl docker start|restart|stop|logs``: the devices in containers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, print_json, verb
from cfctl.cli.device import Events, told
from cfctl.cli.docker_options import EngineOption, Name, Names, Timeout, connect
from cfctl.cli.docker_show import each


def register(app: typer.Typer) -> None:
    """Add the verbs to the group."""
    verb(app, "start")(start)
    verb(app, "restart")(restart)
    verb(app, "stop")(stop)
    verb(app, "logs")(logs)


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


def restart(
    *,
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has booted, or is started.")] = True,
    timeout: Timeout = None,
    events: Events = False,
    engine: EngineOption = None,
) -> Answer:
    """Boot the device of a container again.

    \b
    Examples:
      cfctl docker restart phone
      cfctl docker restart phone --events
    """
    if events:
        return told(lambda: _booted(name, (), engine, wait=wait, timeout=timeout, again=True))
    return _boot(name, (), engine, wait=wait, timeout=timeout, again=True)


def _booted(
    name: str, flags: tuple[str, ...], engine: str | None, *, wait: bool, timeout: int | None, again: bool
) -> dict[str, Any]:
    from cfctl import config
    from cfctl.docker import container, device, publish

    seconds = config.load(flags={"launch.timeout": timeout})["launch.timeout"]
    where = connect(engine)
    booted = device.start(where, name, timeout=seconds, wait=wait, flags=flags, again=again)
    publish.revive(container.find(where, name))
    return booted


def _boot(
    name: str, flags: tuple[str, ...], engine: str | None, *, wait: bool, timeout: int | None, again: bool
) -> Answer:
    booted = _booted(name, flags, engine, wait=wait, timeout=timeout, again=again)

    def show() -> None:
        print(f"{name} is {booted['state']}; GPU mode {booted['gpu_mode']}: {booted['gpu_reason']}")
        for instance in booted["instances"]:
            adb = instance["adb"]
            print(f"  cvd-{instance['number']:<4} {f'adb connect {adb}' if adb else f'cfctl docker publish {name}'}")

    return Answer(booted, show)


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
        found = containers.thaw(containers.find(where, name))
        if found.is_running:
            with steps.step(f"stop the device of {name}"):
                device.stop(found)
            if container:
                remove.stop(found)
        stopped.append(name)

    stopped: list[str] = []
    return each(names, one, "stopped", stopped)


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
