"""``cfctl gpu``: what this host can draw with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.common import Answer, console, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(help="Find out what this host can draw with.", no_args_is_help=True)


@verb(app, "probe")
def probe(
    *,
    gpu: Annotated[str, typer.Option("--gpu", metavar="MODE", help="auto, or the mode to be judged.")] = "auto",
    vm_manager: Annotated[
        str, typer.Option(metavar="NAME", help="The program that runs the VM: crosvm, qemu_cli or gem5.")
    ] = "crosvm",
    guest_gfxstream: Annotated[
        bool, typer.Option(help="Take it that the guest's images say gfxstream=supported.")
    ] = True,
) -> Answer:
    """Show what was found, which mode `--gpu auto` means here, why not a better one, and what would help.

    \b
    Examples:
      cfctl gpu probe
      cfctl gpu probe --gpu gfxstream              would this mode work, and what is missing?
      cfctl gpu probe --json | jq -r .mode
    """
    from cfctl.gpu import decide, report
    from cfctl.gpu import probe as prober
    from cfctl.steps import step

    decide.check(gpu, vm_manager=vm_manager)
    with step("ask the graphics drivers"):
        found = prober.probe()
    decision = decide.decide(found, guest_gfxstream=guest_gfxstream, vm_manager=vm_manager, wanted=gpu)
    document = report.document(found, decision)
    document["assumed"] = {"vm_manager": vm_manager, "guest_gfxstream": guest_gfxstream}
    return Answer(document, lambda: _show(document))


def _show(document: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    def line(label: str, text: str, style: str = "") -> Text:
        return Text.assemble((f"{label:<9}", "dim"), (text, style))

    rows = Table.grid(padding=(0, 1))
    for device in document["devices"]:
        colour = {"hardware": "green", "virtual": "yellow"}.get(device["kind"], "red")
        rows.add_row(Text(device["kind"], style=colour), Text(f"{device['name']}\n{_details(device)}\n"))
    for verdict in document["modes"]:
        mark = Text("works", style="green") if verdict["works"] else Text("does not", style="red")
        about = Text(verdict["mode"], style="bold").append(f"\n{verdict['why']}", style="not bold")
        if verdict["help"]:
            about.append(f"\n{verdict['help']}", style="not bold dim")
        rows.add_row(mark, about)

    board = console()
    board.print(line("mode", document["mode"], "bold"))
    board.print(line("because", document["reason"]), soft_wrap=True)
    for finding in document["findings"]:
        board.print(line("note", finding, "yellow"), soft_wrap=True)
    assumed = document["assumed"]
    guest = "supports" if assumed["guest_gfxstream"] else "does not support"
    board.print(line("assumed", f"VM manager {assumed['vm_manager']}, a guest that {guest} gfxstream"))
    board.print()
    board.print(rows)


def _details(device: Mapping[str, Any]) -> str:
    if device["seen_by"] == "pci":
        parts = (device["address"], f"driver {device['driver'] or 'none'}", device["render_node"] or "no render node")
    elif device["seen_by"] == "vulkan":
        parts = (device["type"], f"Vulkan {device['api_version']}", f"driver {device['driver_version']}")
    else:
        parts = (f"{device['display']} display", device["version"], device["vendor"])
    return ", ".join(parts)
