"""Screens: a link that opens one in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.complete import device_names

if TYPE_CHECKING:
    from cfctl.v1 import relay_pb2


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verb(app, "open")(open_)


def open_(
    *,
    name: Annotated[
        str,
        typer.Argument(
            help="The device; NAME/2 is its second instance. Without it: all of yours.",
            metavar="[NAME]",
            autocompletion=device_names,
        ),
    ] = "",
    role: Annotated[
        str,
        typer.Option(
            help="viewer looks, operator touches.",
            metavar="ROLE",
            autocompletion=lambda: ["viewer", "operator", "admin"],
        ),
    ] = "operator",
    own: Annotated[bool, typer.Option("--own", help="At your own relay.", show_default=False)] = False,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", "--print", help="Only print the link.", show_default=False),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.", show_default=False)
    ] = False,
) -> Answer:
    """Show a device's screen in the browser, or print a link.

    The link lets one browser in, once, within five minutes, and for twelve hours. It is printed always, and opened
    too if you type this in a graphical session, not as root.

    The relay must show screens: cfctl relay serve --web 127.0.0.1:8443

    \b
    Examples:
      cfctl open phone
      cfctl open phone --role viewer --print
      cfctl open phone --json | jq -r .url
    """
    import os
    import sys

    from cfctl.errors import NotRunning
    from cfctl.relay import browser, local
    from cfctl.v1 import relay_pb2

    path = local.chosen(own=own)
    if path is None:
        raise NotRunning(
            "no relay runs", None, "Start one that shows screens: cfctl relay serve --web 127.0.0.1:8443"
        )
    link = local.call(path, lambda relay: relay.OpenScreen, relay_pb2.OpenScreenRequest(name=name, role=role))
    # A script reads the link; a person at a terminal wants to see the device.
    opened = not (no_browser or json_) and sys.stdout.isatty() and browser.graphical(os.environ, os.geteuid())
    if opened:
        browser.show(link.url)
    return Answer(_document(link, opened=opened), lambda: print(link.url))


def _document(link: relay_pb2.Link, *, opened: bool) -> dict[str, object]:
    return {"url": link.url, "device": link.device, "role": link.role, "seconds": link.seconds, "opened": opened}
