"""Completion scripts: each asks `cfctl` itself, so they never say anything else than it does."""

from __future__ import annotations

from collections.abc import Iterator

from typer._completion_shared import get_completion_script

#: zsh takes the file for the function itself when it is first needed: it has to complete then, not only to define.
_ZSH_FIRST = """
if [[ ${funcstack[1]} == _cfctl ]]; then
  _cfctl_completion "$@"
fi
"""


def places(family: str) -> dict[str, str]:
    """Return where each shell looks for scripts: of a ``deb`` or an ``rpm`` system."""
    # Debian's zsh does not look into the folder that everybody else's does.
    zsh = "vendor-completions" if family == "deb" else "site-functions"
    return {
        "bash": "usr/share/bash-completion/completions/cfctl",
        "zsh": f"usr/share/zsh/{zsh}/_cfctl",
        "fish": "usr/share/fish/vendor_completions.d/cfctl.fish",
    }


def scripts(family: str) -> Iterator[tuple[str, str]]:
    """Return the scripts: where it goes, text."""
    for shell, place in places(family).items():
        script = get_completion_script(prog_name="cfctl", complete_var="_CFCTL_COMPLETE", shell=shell)
        yield place, script.rstrip() + "\n" + (_ZSH_FIRST if shell == "zsh" else "")
