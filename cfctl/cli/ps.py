"""The table of all devices, once or live."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.common import Answer, print_json
from cfctl.cli.elsewhere import LOCAL
from cfctl.docker import contained
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: How often what is watched is shown again. Asking takes a quarter of the time at most: each container is asked by a
#: program of its own in it, and twenty of them would else keep a server busy for as long as somebody watches.
TICK_S = 1.0
_RESTS = 3

#: How long a server may take to answer, where all are asked at once.
_EVERYWHERE_S = 10.0

#: xterm's control sequences: the alternate screen keeps what was on the terminal; written over line by line, with
#: what is right of and below the text erased last, nothing flickers.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

#: Columns that are cut where the terminal is too narrow, and the width that they keep.
_CUT = {"NAME": 12, "GPU": 9, "OWNER": 6}


def ps(
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Show it again every second or so, until Ctrl-C.", show_default=False),
    ] = False,
    all_contexts: Annotated[
        bool,
        typer.Option(
            "--all-contexts",
            help="Also those of every server in cfctl context list, in one table.",
            show_default=False,
        ),
    ] = False,
    json_: bool = False,
) -> Answer | None:
    """List all devices of this host, and of your containers.

    Whoever started them.

    BY says who made a device: cfctl, cvd, or launch_cvd by hand. A stale device has died and left something behind:
    cfctl clean. MEMORY is what its processes hold now.

    \b
    Examples:
      cfctl ps
      cfctl ps --watch
      cfctl ps --all-contexts
      cfctl ps --json
    """
    if all_contexts:
        return everywhere(watch=watch)
    if not watch:
        devices = _everything()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return Answer({"devices": devices}, lambda: print("\n".join(table(devices, width))))
    with drawing(json_=json_) as draw:
        while True:
            asked = time.monotonic()
            draw(_everything())
            time.sleep(max(TICK_S, _RESTS * (time.monotonic() - asked)))


def _everything() -> list[dict[str, Any]]:
    """Return the devices of this host and those in this user's containers, as the ``--json`` contract shows them."""
    from cfctl.launch import census

    return [*(device.as_dict() for device in census.everything()), *contained.devices()]


def everywhere(*, watch: bool = False) -> Answer:
    """Answer with the devices of this host and of every context; those that do not answer are named.

    :raises UsageError: for ``watch``: several servers are not watched at once.
    """
    from cfctl.control import sync
    from cfctl.remote import calls, contexts

    if watch:
        raise UsageError(
            "--watch and --all-contexts are not done together", None, "Watch one: cfctl --relay NAME ps -w"
        )
    known = contexts.load().contexts
    census = sync.run(calls.everywhere(known, _EVERYWHERE_S))
    devices = [*({**device, "context": LOCAL} for device in _everything()), *census.devices]
    lost = [{"context": name, "error": error.as_dict()} for name, error in census.unreachable]

    def show() -> None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(table(devices, width)))
        for name, error in census.unreachable:
            print(
                f"{name}: {error.brief}{f' ({error.details.splitlines()[0]})' if error.details else ''}",
                file=sys.stderr,
            )

    return Answer({"devices": devices, "unreachable": lost}, show, 1 if lost else 0)


@contextlib.contextmanager
def drawing(*, json_: bool) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Give what shows devices that are watched: as JSON, as tables one after another, or on a screen of its own."""
    if json_:
        yield lambda devices: print_json({"devices": devices})
    elif not sys.stdout.isatty():
        yield lambda devices: print("\n".join(table(devices, None)), flush=True)
    else:
        sys.stdout.write(_ENTER)
        try:
            yield _draw
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _draw(devices: list[dict[str, Any]]) -> None:
    size = shutil.get_terminal_size()
    lines = [f"{time.strftime('%H:%M:%S')}  Ctrl-C ends"[: size.columns], *table(devices, size.columns)]
    if len(lines) > size.lines:
        lines[size.lines - 1 :] = [f"... and {len(lines) - size.lines + 1} more"[: size.columns]]
    text = "\n".join(f"{line}{_TO_END_OF_LINE}" for line in lines)
    sys.stdout.write(f"{_HOME}{text}{_TO_END_OF_SCREEN}")
    sys.stdout.flush()


def table(devices: Sequence[dict[str, Any]], width: int | None) -> list[str]:
    """Return the lines of the table; plain text, because drawing one with rich takes longer than all the rest.

    :param devices: as the ``--json`` contract shows them.
    :param width: cut what does not fit into so many columns; None is as wide as need be.
    """
    if not devices:
        return ["There are no devices. Boot one with: cfctl launch"]
    header: tuple[str, ...] = ("NAME", "STATE", "GPU", "ADB", "UPTIME", "MEMORY", "OWNER", "BY")
    rows = [header, *map(_row, devices)]
    if any("context" in device for device in devices):
        servers = ("CONTEXT", *(device["context"] for device in devices))
        rows = [(server, *row) for server, row in zip(servers, rows, strict=True)]
        header = rows[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    if width is not None:
        for title, least in _CUT.items():
            column = header.index(title)
            too_much = max(0, sum(widths) + 2 * (len(widths) - 1) - width)
            widths[column] = max(min(widths[column], least), widths[column] - too_much)
    lines = ("  ".join(map(_fit, row, widths)).rstrip() for row in rows)
    return [line[:width] for line in lines]


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"


def _row(device: dict[str, Any]) -> tuple[str, ...]:
    instances = device["instances"]
    more = f" +{len(instances) - 1}" if len(instances) > 1 else ""
    memory = device["memory_mb"]
    wall = f", in container {device['container']}" if "container" in device else ""
    return (
        device["name"],
        device["state"],
        device["gpu_mode"] or "-",
        f"{instances[0]['adb'] or 'not published'}{more}",
        uptime(device["uptime_s"]),
        "-" if memory is None else size(memory),
        device["owner"] or "-",
        f"{device['source']}{wall}",
    )


def uptime(seconds: float | None) -> str:
    """Return a time for people, in its two largest units."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    for large, one, small, other in ((days, "d", hours, "h"), (hours, "h", minutes, "m"), (minutes, "m", rest, "s")):
        if large:
            return f"{large}{one}{small:02d}{other}"
    return f"{rest}s"


def size(megabytes: int) -> str:
    """Return an amount of memory for people."""
    return f"{megabytes} MB" if megabytes < 1024 else f"{megabytes / 1024:.1f} GB"
