"""The screen of a device: display list, add, remove, screenshot; screen-record start, stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.lifecycle import Target
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.control.displays import Display

_ACTIONS = ("list", "add", "remove", "screenshot")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verb(app, "display", remote="cfctl.cli.remote_control:display")(display)
    verb(app, "screen-record")(screen_record)


def display(
    *,
    target: Target,
    action: Annotated[
        str,
        typer.Argument(
            help="list, add, remove or screenshot.", metavar="ACTION", autocompletion=lambda: list(_ACTIONS)
        ),
    ] = "list",
    argument: Annotated[
        str | None,
        typer.Argument(
            help="add: WIDTHxHEIGHT; remove: the display's number; screenshot: a file (.png, .jpg, .webp), or - "
            "for a PNG on standard output.",
            metavar="[WHAT]",
            show_default=False,
        ),
    ] = None,
    dpi: Annotated[int, typer.Option(help="add: dots per inch.", min=1)] = 320,
    refresh_rate: Annotated[int, typer.Option(help="add: pictures per second.", min=1)] = 60,
    number: Annotated[int, typer.Option("--display", help="screenshot: of which display.", min=0)] = 0,
) -> Answer:
    """List, add or remove displays, or save what one shows.

    Displays come and go only where the VM manager can do that while a guest runs: crosvm, not QEMU.

    \b
    Examples:
      cfctl display phone
      cfctl display phone add 1280x800 --dpi 160
      cfctl display phone remove 1
      cfctl display phone/2 screenshot screen.png
      cfctl display phone screenshot - >screen.png
    """
    from cfctl.launch import display as displays

    if action not in _ACTIONS:
        raise UsageError(f"{action!r} is not one of: {', '.join(_ACTIONS)}")
    if action == "list":
        if argument is not None:
            raise UsageError("list takes nothing more")
        return _answer(target, displays.displays(target))
    if argument is None:
        wanted = {"add": "a size, such as 1280x800", "remove": "a display's number", "screenshot": "a file"}[action]
        raise UsageError(f"display {target} {action} needs {wanted}")
    if action == "add":
        width, height = size_of(argument)
        return _answer(target, displays.add(target, width, height, dpi=dpi, refresh_rate_hz=refresh_rate))
    if action == "remove":
        if not argument.isdecimal():
            raise UsageError(f"{argument!r} is not a display's number", None, f"See: cfctl display {target}")
        return _answer(target, displays.remove(target, int(argument)))
    if argument == "-":
        return _picture(target, displays.picture(target, number=number), number)
    path = Path(argument).expanduser().absolute()
    size = displays.screenshot(target, path, number=number)
    document = {"target": target, "display": number, "screenshot": str(path), "bytes": size}
    return Answer(document, lambda: print(path))


def screen_record(
    *,
    target: Target,
    action: Annotated[
        str, typer.Argument(help="start or stop.", metavar="ACTION", autocompletion=lambda: ["start", "stop"])
    ],
) -> Answer:
    """Film the screen of an instance. The host package does it; the embedded guest does not (see cfctl screen).

    \b
    Examples:
      cfctl screen-record phone start
      cfctl screen-record phone stop
    """
    from cfctl.launch import recording

    if action == "start":
        recording.start(target)
        return Answer({"target": target, "recording": True, "films": []}, lambda: print("The film has begun."))
    if action != "stop":
        raise UsageError(f"{action!r} is not one of: start, stop")
    films = [str(path) for path in recording.stop(target)]
    return Answer({"target": target, "recording": False, "films": films}, lambda: print("\n".join(films)))


def _picture(target: str, png: bytes, number: int) -> Answer:
    """Answer with a picture itself: as it is for a file, in base64 for JSON."""
    import base64
    import sys

    document = {
        "target": target,
        "display": number,
        "screenshot": "-",
        "bytes": len(png),
        "picture": base64.b64encode(png).decode(),
    }

    def show() -> None:
        sys.stdout.buffer.write(png)

    return Answer(document, show)


def size_of(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``.

    :raises UsageError: if it is none.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{text!r} is not a size", "Write WIDTHxHEIGHT, such as 1280x800.")
    return int(width), int(height)


def _answer(target: str, found: list[Display]) -> Answer:
    return listed(target, [display.as_dict() for display in found])


def listed(target: str, displays: list[dict[str, Any]]) -> Answer:
    """Answer with the displays of an instance, as the ``--json`` contract has them."""

    def show() -> None:
        if not displays:
            print(f"{target} has no displays")
        for one in displays:
            known = [f"{one['width']}x{one['height']}" if one["width"] else "size unknown"]
            known += [f"{one['dpi']} dpi"] if one["dpi"] else []
            known += [f"{one['refresh_rate_hz']} Hz"] if one["refresh_rate_hz"] else []
            print(f"{one['id']:<3} {', '.join(known)}")

    return Answer({"target": target, "displays": displays}, show)
