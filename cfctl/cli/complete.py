"""What the shell is offered when Tab is pressed."""

from __future__ import annotations

import click


def device_names() -> list[str]:
    """Return the names of this user's devices."""
    from cfctl.launch import registry

    return [record.name for record in registry.load_all()]


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
