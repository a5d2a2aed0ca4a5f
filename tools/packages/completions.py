"""Completion scripts: each asks `cfctl` itself, so they never say anything else than it does."""

from __future__ import annotations

from collections.abc import Iterator

from typer._completion_shared import get_completion_script

#: Shell -> where its scripts go.
PLACES = {
    "bash": "usr/share/bash-completion/completions/cfctl",
    "zsh": "usr/share/zsh/site-functions/_cfctl",
    "fish": "usr/share/fish/vendor_completions.d/cfctl.fish",
}


def scripts() -> Iterator[tuple[str, str]]:
    """Return the scripts: where it goes, text."""
    for shell, place in PLACES.items():
        script = get_completion_script(prog_name="cfctl", complete_var="_CFCTL_COMPLETE", shell=shell)
        yield place, script.rstrip() + "\n"
