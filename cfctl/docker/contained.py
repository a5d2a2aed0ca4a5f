"""The containers that this user has made, on whichever engine: asked for only where there are any.

Nothing heavy is imported before that is known: most users have no containers, and `ps` is to be quick.
"""

from __future__ import annotations

from typing import Any

from cfctl import paths


def is_any() -> bool:
    """Tell whether this user has made containers."""
    return any((paths.current().state / "docker").glob("*/[!.]*/record.json"))


def devices() -> list[dict[str, Any]]:
    """Return the devices in this user's containers, as ``cfctl ps --json`` does.

    An engine that does not answer is a note, not an error.
    """
    if not is_any():
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


def engine_of(name: str) -> str | None:
    """Return the address of the engine on which this user has made a container of that name; None if there is none.

    :raises UsageError: if there are several.
    """
    if not is_any():
        return None
    from cfctl.docker import store
    from cfctl.errors import UsageError

    found = sorted({record.engine for record in store.load_all() if record.name == name})
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} containers {name}",
            "\n".join(found),
            f"Say which, with --engine: --engine {found[0]}",
        )
    return found[0] if found else None
