"""``cfctl gpu``: what this host can draw with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli import complete
from cfctl.cli.common import Answer, console, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

app = typer.Typer(help="Find out what this host can draw with.", no_args_is_help=True)


@verb(app, "probe")
def probe(
    *,
    gpu: Annotated[
        str,
        typer.Option(
            "--gpu", metavar="MODE", help="auto, or the mode to be judged.", autocompletion=complete.gpu_modes
        ),
    ] = "auto",
    vm_manager: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The program that runs the VM: crosvm, qemu_cli or gem5 [default: the host package's, or crosvm].",
        ),
    ] = None,
    host_package: Annotated[
        Path | None,
        typer.Option(
            help="A host package, as for cfctl launch: its graphics_detector is asked too.",
            metavar="DIR|TAR|NAME",
            autocompletion=complete.host_packages,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The guest's images, as for cfctl launch [default: the host package's].",
            metavar="DIR|ZIP|NAME",
            autocompletion=complete.images,
        ),
    ] = None,
    guest_gfxstream: Annotated[
        bool | None,
        typer.Option(
            help="Take it that the guest's images say gfxstream=supported [default: read them; without images, yes].",
            show_default=False,
        ),
    ] = None,
) -> Answer:
    """Show what there is, what --gpu auto means here, and why.

    What was found; the mode; why not a better one; and what would help.

    \b
    Examples:
      cfctl gpu probe
      cfctl gpu probe --gpu gfxstream              would this mode work, and what is missing?
      cfctl gpu probe --host-package ~/cf --images ~/cf    for exactly these
      cfctl gpu probe --json | jq -r .mode
    """
    from cfctl.artifacts import choose
    from cfctl.gpu import CROSVM, QEMU, decide, detector, guest, report, surroundings
    from cfctl.gpu import probe as prober
    from cfctl.launch.hostpackage import HostPackage
    from cfctl.steps import step

    host_package, images = choose.directory(host_package, "host-package"), choose.directory(images, "images")
    package = HostPackage.open(host_package) if host_package else None
    manager = vm_manager or (package.vm_manager if package else CROSVM)
    described = _guest(images or host_package, guest_gfxstream)
    decide.check(gpu, vm_manager=manager, guest=described)
    with step("ask the graphics drivers"):
        found = prober.probe(graphics_detector=detector.find(package.path if package else None), qemu=manager == QEMU)
    with step("look at access, libraries and containers"):
        around = surroundings.read()
    decision = decide.decide(found, guest=described, vm_manager=manager, wanted=gpu)
    document = report.document(found, decision, guest=described, around=around)
    document["assumed"] = {"vm_manager": manager, "guest_gfxstream": described.gfxstream}
    return Answer(document, lambda: _show(document, assumed=described.source == guest.ASSUMED))


def _guest(images: Path | None, gfxstream: bool | None) -> Any:  # noqa: FBT001 (what the flag says)
    """Return what is known of the guest: what the flag says, else what the images say, else today's Android."""
    from cfctl.gpu import guest

    if gfxstream is not None or images is None:
        return guest.assumed(gfxstream=gfxstream is not False)
    return guest.read(images)


def _show(document: Mapping[str, Any], *, assumed: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    def line(label: str, text: str, style: str = "") -> Text:
        return Text.assemble((f"{label:<9}", "dim"), (text, style))

    def block(title: str, rows: list[tuple[Text, Text]]) -> list[RenderableType]:
        if not rows:
            return []
        grid = Table.grid(padding=(0, 1))
        for row in rows:
            grid.add_row(*row)
        return [Text(f"\n{title}", style="bold"), grid]

    board = console()
    board.print(line("mode", document["mode"], "bold"))
    board.print(line("because", document["reason"]), soft_wrap=True)
    for finding in document["findings"]:
        board.print(line("note", finding, "yellow"), soft_wrap=True)
    board.print(line("assumed" if assumed else "for", _case(document)), soft_wrap=True)

    devices = [
        (
            Text(device["kind"], style=_COLOURS.get(device["kind"], "red")),
            Text(f"{device['name']}\n{_details(device)}"),
        )
        for device in document["devices"]
    ]
    for part in (
        *block("Devices and drivers", devices),
        *block("Device files and groups", [_good(item["usable"], _access(item)) for item in document["access"]]),
        *block("Libraries", [_good(not item["error"], _library(item)) for item in document["libraries"]]),
        *block("Containers", _containers(document["containers"])),
        *block("Modes", [_mode(verdict) for verdict in document["modes"]]),
    ):
        board.print(part)


_COLOURS = {"hardware": "green", "virtual": "yellow"}


def _good(good: bool, text: str) -> tuple[Any, Any]:  # noqa: FBT001 (a cell of a table)
    from rich.text import Text

    return Text("yes", style="green") if good else Text("no", style="red"), Text(text)


def _mode(verdict: Mapping[str, Any]) -> tuple[Any, Any]:
    from rich.text import Text

    about = Text(verdict["mode"], style="bold").append(f"\n{verdict['why']}", style="not bold")
    if verdict["help"]:
        about.append(f"\n{verdict['help']}", style="not bold dim")
    return Text("works", style="green") if verdict["works"] else Text("does not", style="red"), about


def _case(document: Mapping[str, Any]) -> str:
    """Return what the decision was made for."""
    guest = document["guest"]
    parts = [f"a guest that {'supports' if guest['gfxstream'] else 'does not support'} gfxstream"]
    if guest["candidates"]:
        parts.append(f"and wants {', '.join(guest['candidates'])}")
    elif guest["prefer_virgl"]:
        parts.append("and prefers drm_virgl")
    if not guest["known"]:
        parts = ["a guest of which nothing is known"]
    return f"VM manager {document['assumed']['vm_manager']}, {' '.join(parts)}"


def _details(device: Mapping[str, Any]) -> str:
    if device["seen_by"] == "pci":
        parts = (device["address"], f"driver {device['driver'] or 'none'}", device["render_node"] or "no render node")
    elif device["seen_by"] == "vulkan":
        parts = (device["type"], f"Vulkan {device['api_version']}", f"driver {device['driver_version']}")
    else:
        parts = (f"{device['display']} display", device["version"], device["vendor"])
    return ", ".join(parts)


def _access(item: Mapping[str, Any]) -> str:
    text = f"{item['path']} ({item['purpose']}), group {item['group']}"
    return f"{text}\n{item['help']}" if item["help"] else text


def _library(item: Mapping[str, Any]) -> str:
    text = item["name"] if item["what"] == "library" else f"{item['what']} {item['name']}: {item['library']}"
    return "\n".join(part for part in (text, item["error"], item["help"]) if part)


def _containers(found: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    rows = []
    for engine in found["engines"]:
        about = engine["problem"] or engine["version"]
        if engine["nvidia_runtime"]:
            about += ", with NVIDIA's runtime"
        rows.append(_good(not engine["problem"], f"{engine['name']}: {about}"))
    if found["toolkit"]:
        rows.append(_good(True, f"NVIDIA's container toolkit {found['toolkit']}"))  # noqa: FBT003 (a cell)
    if found["cdi"]:
        rows.append(_good(True, f"CDI devices: {', '.join(found['cdi'])}"))  # noqa: FBT003 (a cell)
    return rows
