"""Which relay a verb is for: the one that was named, or the context that is in use, or none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.errors import RelayUntrusted

if TYPE_CHECKING:
    from cfctl.remote.contexts import Context


def in_use() -> str:
    """Return the name of the context that is in use; empty for this machine itself."""
    # Most have none, and every verb asks.
    if not paths.current().contexts.exists():
        return ""
    from cfctl.remote import contexts

    return contexts.load().current


def context(text: str) -> Context:
    """Return the context that ``--relay`` names, by its name or its address.

    :raises NoSuchContext: if there is none of that name.
    :raises RelayUntrusted: for an address that no certificate is pinned for.
    """
    from cfctl.remote import contexts

    book = contexts.load()
    if ":" not in text:
        return book.get(text)
    where = contexts.address(text)
    for known in book.contexts:
        if known.address == where:
            return known
    found = contexts.Context(name=where, address=where)
    if found.is_local_socket:
        return found
    raise RelayUntrusted(
        f"no certificate is known for the relay at {where}",
        "Whoever sits between here and there could be it. Nothing was sent.",
        f"Compare its fingerprint, and keep it: cfctl context add NAME {where}",
    )
