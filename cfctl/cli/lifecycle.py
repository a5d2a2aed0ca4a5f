"""What is done to a device that is up: suspend, resume, snapshot, powerwash, powerbtn, bugreport."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.complete import device_names
from cfctl.cli.device import Name, Names, Timeout, answer_each, show_up
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.launch.observe import Device

Target = Annotated[
    str,
    typer.Argument(help="The device; NAME/2 is its second instance.", metavar="NAME", autocompletion=device_names),
]
Deadline = Annotated[
    int | None, typer.Option("--timeout", help="Seconds that each instance may take [default: 60].", min=1)
]


#: What does the same through a relay.
_TWINS = "cfctl.cli.remote_control"


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verb(app, "suspend", remote=f"{_TWINS}:suspend")(suspend)
    verb(app, "resume", remote=f"{_TWINS}:resume")(resume)
    verb(app, "snapshot")(snapshot)
    verb(app, "powerwash")(powerwash)
    verb(app, "powerbtn", remote=f"{_TWINS}:powerbtn")(powerbtn)
    verb(app, "bugreport")(bugreport)


def suspend(*, names: Names, timeout: Deadline = None) -> Answer:
    """Stop the processors of devices. They keep their memory, and go on with resume.

    \b
    Examples:
      cfctl suspend phone
      cfctl suspend phone tablet --timeout 30
    """
    from cfctl.launch import lifecycle

    seconds = float(timeout or lifecycle.SUSPEND_S)
    return answer_each("suspend", names, lambda name: lifecycle.suspend(name, seconds=seconds))


def resume(*, names: Names, timeout: Deadline = None) -> Answer:
    """Let suspended devices go on.

    \b
    Examples:
      cfctl resume phone
    """
    from cfctl.launch import lifecycle

    seconds = float(timeout or lifecycle.SUSPEND_S)
    return answer_each("resume", names, lambda name: lifecycle.resume(name, seconds=seconds))


def snapshot(
    *,
    name: Name,
    action: Annotated[
        str, typer.Argument(help="take or restore.", autocompletion=lambda: ["take", "restore"], metavar="ACTION")
    ],
    directory: Annotated[Path, typer.Argument(help="The snapshot's directory.", metavar="DIRECTORY")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="take: replace an older snapshot.", show_default=False)
    ] = False,
    timeout: Timeout = None,
) -> Answer:
    """Save a device in a directory, or go on from there.

    take suspends a running device for it; a suspended one stays so. restore stops the device first, if it is up.
    A snapshot belongs to the instance numbers of its device, and to its host package.

    \b
    Examples:
      cfctl snapshot phone take ~/clean
      cfctl snapshot phone restore ~/clean
    """
    from cfctl import config
    from cfctl.launch import snapshot as snapshots

    path = directory.expanduser().absolute()
    if action == "take":
        device = snapshots.take(name, path, force=force, seconds=float(timeout or snapshots.TAKE_S))
        document = {**device.as_dict(), "snapshot": str(path)}
        return Answer(document, lambda: print(f"{name} is saved in {path}, and {device.state.value}"))
    if action != "restore":
        raise UsageError(f"{action!r} is not one of: take, restore")
    if force:
        raise UsageError("--force is for take", "restore stops the device if it is up.")
    seconds = config.load(flags={"launch.timeout": timeout})["launch.timeout"]
    restored = snapshots.restore(name, path, timeout=seconds)
    return Answer({**restored.as_dict(), "snapshot": str(path)}, lambda: show_up(restored))


def powerwash(*, name: Name, timeout: Timeout = None) -> Answer:
    """Give a device blank disks and boot it again. What it had stored is lost.

    \b
    Examples:
      cfctl powerwash phone
    """
    from cfctl.launch import lifecycle

    device = lifecycle.powerwash(name, seconds=float(timeout or lifecycle.POWERWASH_UP_S))
    return Answer(device.as_dict(), lambda: show_up(device))


def powerbtn(
    *,
    target: Target,
    timeout: Annotated[int | None, typer.Option(help="Seconds that it may take [default: 15].", min=1)] = None,
) -> Answer:
    """Press the power button. What comes of it is the guest's: Android's screen goes on or off.

    The embedded guest powers itself off, and its device ends.

    \b
    Examples:
      cfctl powerbtn phone
      cfctl powerbtn phone/2
    """
    from cfctl.launch import lifecycle

    device = lifecycle.powerbtn(target, seconds=float(timeout or lifecycle.POWERBTN_S))
    return _said(device, f"The power button of {target} was pressed.")


def bugreport(
    *,
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(help="The zip file to write [default: NAME-bugreport.zip].", metavar="[FILE]")
    ] = None,
    from_guest: Annotated[
        bool, typer.Option("--from-guest", help="Also Android's own report, by adb.", show_default=False)
    ] = False,
    timeout: Annotated[int | None, typer.Option(help="Seconds that it may take [default: 300].", min=1)] = None,
) -> Answer:
    """Put all that tells what a device did into a zip file.

    \b
    Examples:
      cfctl bugreport phone
      cfctl bugreport phone /tmp/report.zip --from-guest
    """
    from cfctl.launch import bugreport as bugreports

    path = (file.expanduser() if file else Path(f"{name}-bugreport.zip")).absolute()
    files = bugreports.collect(name, path, from_guest=from_guest, seconds=float(timeout or bugreports.SECONDS))
    document = {"name": name, "bugreport": str(path), "bytes": path.stat().st_size, "files": files}
    return Answer(document, lambda: print(f"{path}: {len(files)} files"))


def _said(device: Device, text: str) -> Answer:
    return Answer(device.as_dict(), lambda: print(text))
