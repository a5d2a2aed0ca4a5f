"""The devices in containers, for ``cfctl ps``: asked only where this user has made containers."""

from __future__ import annotations

from typing import Any


def devices() -> list[dict[str, Any]]:
    """Return the devices in this user's containers; an engine that does not answer is a note, not an error."""
    from cfctl import paths

    # Before anything is imported for it: most users have no containers, and `ps` is to be quick.
    if not any((paths.current().state / "docker").glob("*/[!.]*/record.json")):
        return []
    from cfctl import steps
    from cfctl.docker import container, device, engine, store
    from cfctl.errors import CfctlError

    known: dict[str, set[str]] = {}
    for record in store.load_all():
        known.setdefault(record.engine, set()).add(record.id)
    found: list[dict[str, Any]] = []
    for url, ids in known.items():
        try:
            ours = [one for one in container.list_all(engine.connect(url)) if one.id in ids]
        except CfctlError as error:
            steps.note(f"Containers are left out: {error.brief}")
            continue
        found += [one for inside in device.all_devices(ours).values() for one in inside]
    return found
