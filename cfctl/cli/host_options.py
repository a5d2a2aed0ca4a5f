"""The options that the verbs of ``cfctl host`` have in common, and the settings that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cfctl.config import Settings

Instances = Annotated[
    int | None,
    typer.Option(
        "--instances",
        metavar="N",
        help="How many instances the host serves, 0 to 128. Without it: the settings, else as many as now, else 10.",
        show_default=False,
    ),
]
Bridge = Annotated[
    str | None,
    typer.Option(
        "--bridge",
        metavar="IF",
        help="An existing bridge that the devices become members of, instead of two of cfctl's; '' for cfctl's own. "
        "Without it: the settings, else as now.",
        show_default=False,
    ),
]
Lazy = Annotated[
    bool | None,
    typer.Option(
        "--lazy/--no-lazy",
        help="Make the taps of an instance when its device is launched, instead of all now. Without it: the "
        "settings, else as now.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file instead of /etc/cfctl/config.toml.", show_default=False
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; exit 3 if anything would.", show_default=False)
]
Adopt = Annotated[
    bool,
    typer.Option("--adopt", help="Make cfctl's what upstream's script has set up here.", show_default=False),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Delete or move interfaces of running devices too: they lose their network.",
        show_default=False,
    ),
]

PodMode = Annotated[
    bool,
    typer.Option(
        "--pod",
        help="Give the VM of instance 1 this container's own address; not in the host's network.",
        show_default=False,
    ),
]
Netns = Annotated[
    Path | None,
    typer.Option(
        "--netns",
        metavar="PATH",
        help="Work in this network namespace, for example /proc/PID/ns/net.",
        show_default=False,
    ),
]


def settings(instances: int | None, bridge: str | None, file: Path | None, *, lazy: bool | None = None) -> Settings:
    """Return the settings with what was given on the command line."""
    from cfctl import config

    return config.load(
        config_file=file, flags={"host.instances": instances, "host.bridge": bridge, "host.lazy": lazy}
    )
