"""What several verbs of ``cfctl docker`` show alike: a container, a table of them, what became of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cfctl.cli.common import Answer, answer_several
from cfctl.errors import CfctlError
from cfctl.instance import Instance

if TYPE_CHECKING:
    from cfctl.docker.container import Container


def each(names: list[str], one: Any, word: str, done: list[str]) -> Answer:
    """Do the same to several containers; one that fails does not keep the others from their turn."""
    errors: list[CfctlError] = []
    for name in dict.fromkeys(names):
        try:
            one(name)
        except CfctlError as error:
            errors.append(error)
    if len(names) == 1 and errors:
        raise errors[0]
    return answer_several({word: done}, errors)


def document(container: Container, devices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a container as the contract shows it (docs/schema/container.json)."""
    from cfctl.docker import container as containers
    from cfctl.docker import names, publish, store

    record = store.load(container.engine.url, container.name)
    ours = record is not None and record.id == container.id
    ports = record.ports if record is not None and ours else ()
    adb_ports = {Instance(number).adb_port for number in container.numbers}
    adb = [str(port) for port in ports if port.inside in adb_ports]
    return {
        "name": container.name,
        "state": container.state,
        "image": container.wish.image,
        "engine": container.engine.url,
        "numbers": container.numbers,
        "adb": adb,
        "published": [{"address": str(port), "inside": port.inside} for port in ports],
        "forwarding": bool(record and ports and publish.is_forwarding(record)),
        "owner": container.labels.get(names.OWNER),
        "fleet": container.labels.get(names.FLEET),
        "home": containers.home(container),
        "sockets": os.fspath(container.sockets),
        "devices": devices,
    }


def show_made(container: Container) -> None:
    """Show people a new container."""
    print(f"{container.name} runs, with instance {', '.join(map(str, container.numbers))}; no device is booted yet")
    print(f"  Go on with: cfctl docker start {container.name}, cfctl docker publish {container.name}")


def table(documents: list[dict[str, Any]]) -> str:
    """Return the table of ``docker list``."""
    if not documents:
        return "There are no containers. Make one with: cfctl docker create"
    rows = [("NAME", "CONTAINER", "DEVICE", "INSTANCES", "ADB", "IMAGE", "FLEET")]
    for one in documents:
        device = ",".join(device["state"] for device in one["devices"]) or "-"
        numbers = ",".join(map(str, one["numbers"]))
        adb = ",".join(one["adb"]) or "not published"
        if one["published"] and not one["forwarding"]:
            adb = f"forwarder is gone: cfctl docker start {one['name']}"
        rows.append((one["name"], one["state"], device, numbers, adb, one["image"], one["fleet"] or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
