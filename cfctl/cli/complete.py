"""What the shell is offered when Tab is pressed."""

from __future__ import annotations

from pathlib import Path

import click

#: Seconds that somebody who has pressed Tab is kept waiting for a relay.
_RELAY_S = 3.0


def device_names(ctx: click.Context) -> list[str]:
    """Return the names of this user's devices, or of those behind the relay that the verb is for."""
    from cfctl.cli import elsewhere
    from cfctl.errors import CfctlError

    try:
        relay = elsewhere.meant(ctx)
    except CfctlError:
        return []  # the contexts cannot be read: whoever presses Tab wants no error
    if relay:
        return _names_behind(relay)
    from cfctl.launch import registry

    return [record.name for record in registry.load_all()]


def _names_behind(relay: str) -> list[str]:
    import asyncio

    from cfctl.control import sync
    from cfctl.errors import CfctlError
    from cfctl.remote import calls, choice

    try:
        asked = calls.asked(choice.context(relay), calls.devices)
        return [device["name"] for device in sync.run(asyncio.wait_for(asked, _RELAY_S))]
    except (CfctlError, TimeoutError):
        return []


def context_names() -> list[str]:
    """Return the names of the relays that this user knows."""
    from cfctl.remote import contexts

    return [context.name for context in contexts.load().contexts]


def gpu_modes() -> list[str]:
    """Return what ``--gpu`` takes."""
    from cfctl.gpu import modes

    return [modes.AUTO, *modes.MODES]


def log_names() -> list[str]:
    """Return what ``logs --which`` takes."""
    from cfctl.launch import manage

    return list(manage.LOGS)


def operation_words(ctx: click.Context) -> list[str]:
    """Return the words that `control NAME` takes next."""
    from cfctl.control import operations

    return operations.completions(ctx.params.get("words") or [])


def host_packages(incomplete: str) -> list[str]:
    """Return what ``--host-package`` takes: names in the cache, and files beside them."""
    return _wares("host-package", incomplete)


def images(incomplete: str) -> list[str]:
    """Return what ``--images`` takes."""
    return _wares("images", incomplete)


def _wares(kind: str, incomplete: str) -> list[str]:
    from cfctl.artifacts import store

    names = [entry.name or entry.short for entry in store.entries() if kind in entry.kinds]
    if "/" in incomplete or not any(name.startswith(incomplete) for name in names):
        return []  # the shell then completes the names of files by itself
    return [*names, *(f"{file.name}/" if file.is_dir() else file.name for file in sorted(Path().glob("[!.]*")))]
