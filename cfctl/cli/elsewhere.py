"""Verbs for devices of another server: which relay they are for, and what does them there."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import click

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.cli.common import Answer
    from cfctl.remote.contexts import Context

#: The twin of a verb that is always about this machine, whatever context is in use.
HERE = ""

#: The twin of a verb that is about this machine, and refused where a relay is named; the verbs of groups are so too.
MACHINE = "machine"

#: Says this machine itself, where a context is in use.
LOCAL = "local"

#: Why verbs for devices have none; the others are about this machine.
_WHY = {
    "rm": "It deletes a device's disks and logs for good.",
    "powerwash": "It wipes a guest's disks for good.",
    "snapshot": "A snapshot is a directory of the relay's host, and nobody from elsewhere says where it writes.",
    "screen-record": "A film is a file of the relay's host.",
    "bugreport": "A bug report is a file of the relay's host.",
    "open": "A link lets a browser in for hours, whatever becomes of the token that asked for it.",
}

#: What does instead, where there is more than the relay's host.
_INSTEAD = {
    "open": "Or open the relay's page (https://HOST:PORT, relay serve --web) and enter your token.",
    "screen": "Or ask the relay's page with your token: export CFCTL_SCREEN_TOKEN=...\n"
    "cfctl --relay local screen NAME --png now.png --operator https://HOST:PORT --operator-cert certificate.pem",
}

#: Verbs that have a twin, as people write them.
_verbs: list[str] = []

#: What ``--relay`` or its variable says; empty is nothing.
_named = ""


def name(relay: str | None) -> None:
    """Hear what ``--relay`` says, for the verb that follows."""
    global _named
    _named = relay or ""


def register(verb: str) -> None:
    """Hear that a verb can be done elsewhere too."""
    _verbs.append(verb)


def pick(function: Callable[..., Answer | None], twin: str | None) -> Callable[..., Answer | None]:
    """Return what does a verb: the function itself, or its twin if the verb is for another server.

    :param twin: ``module:function``, called with the same arguments; None is none.
    :raises UsageError: if the verb is for another server, and can only be done here.
    """
    if twin == HERE or _named == LOCAL:
        return function
    if not _named and (twin == MACHINE or _in_group()):
        # Groups such as `host` are about this machine; the context in use is for devices.
        return function
    wanted = _named or _in_use()
    if not wanted:
        return function
    if twin is None or twin == MACHINE:
        path = click.get_current_context().command_path.split(" ", 1)[1]
        about = [
            *([_WHY[path]] if path in _WHY else []),
            f"The relay {wanted} was named." if _named else f"The context {wanted} is in use.",
            f"Verbs that are done there: {', '.join(sorted(_verbs))}.",
        ]
        ways = [
            f"Log in on the relay's host, and there: cfctl {path}",
            *([_INSTEAD[path]] if path in _INSTEAD else []),
            f"For this machine itself: cfctl --relay local {path}",
        ]
        raise UsageError(f"cfctl {path} is not done through a relay", " ".join(about), "\n".join(ways))
    module, _, attribute = twin.partition(":")
    found: Callable[..., Answer | None] = getattr(importlib.import_module(module), attribute)
    return found


def meant(ctx: click.Context) -> str:
    """Return the relay that a command line is for which is still being written; empty for this machine."""
    if ctx.info_name not in _verbs or ctx.parent is None or ctx.parent.parent is not None:
        return ""
    # While a shell completes, nothing has been named yet.
    relay = ctx.parent.params.get("relay") or _in_use()
    return "" if relay == LOCAL else relay


def aimed(text: str | None) -> str | None:
    """Return what helps, as it must be typed here: the verbs in it are for the relay that was named."""
    if not text or _named in ("", LOCAL):
        return text
    verbs = re.compile(rf"\bcfctl (?=(?:{'|'.join(_verbs)})\b)")
    # What is to be done on the relay's host is to be done there.
    return "\n".join(
        line if "relay's host" in line else verbs.sub(f"cfctl --relay {_named} ", line) for line in text.split("\n")
    )


def context() -> Context:
    """Return the relay that the verb is for.

    :raises NoSuchContext: if there is none of that name.
    :raises RelayUntrusted: for an address that no certificate is pinned for.
    """
    from cfctl.remote import choice

    return choice.context(_named or choice.in_use())


def ask(question: Any) -> Any:
    """Ask the relay that the verb is for one question; a coroutine function that gets the relay."""
    from cfctl.control import sync
    from cfctl.remote import calls

    return sync.run(calls.asked(context(), question))


def _in_group() -> bool:
    """Tell whether the verb that runs is one of a group: ``host setup``."""
    path = click.get_current_context(silent=True)
    return path is not None and path.parent is not None and path.parent.parent is not None


def _in_use() -> str:
    from cfctl.remote import choice

    return choice.in_use()
