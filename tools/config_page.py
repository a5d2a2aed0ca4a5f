"""Write docs/config.md from the table of settings. Run it with ``make docs``; a test compares the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfctl.config import KEYS, Key

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"

_HEAD = """\
# Settings

This page is made from the table in `cfctl/config.py` (`make docs`).

A setting may be given in five places. The later one wins:

1. what is built in;
2. `/etc/default/cuttlefish-host-resources`, the file of upstream's package. cfctl reads its `name=value` lines and
   never executes it: a line that only a shell understands is an error that names the line;
3. `config.toml` in `/etc/cfctl` (root) or `~/.config/cfctl` (any other user);
4. the environment;
5. the flags of the command line.

`cfctl host status --json` says where each value came from.

```toml
# /etc/cfctl/config.toml
[host]
instances = 20
dns_servers = ["9.9.9.9", "1.1.1.1"]
```

| setting | built in | environment | in upstream's file |
|---|---|---|---|
"""

_TAIL = """
`CFCTL_PATHS_CONFIG`, `CFCTL_PATHS_STATE`, `CFCTL_PATHS_CACHE` and `CFCTL_PATHS_RUNTIME` move the folders that cfctl
keeps its files in (`cfctl/paths.py`). `NO_COLOR` switches colours off.
"""


def _shown(value: Any) -> str:
    """Return a value as one writes it in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _row(key: Key) -> str:
    upstream = f"`{key.upstream}`" if key.upstream else ""
    return f"| `{key.name}`<br>{key.doc} | `{_shown(key.default)}` | `{key.variable}` | {upstream} |\n"


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(_row(key) for key in KEYS.values()) + _TAIL


if __name__ == "__main__":
    PAGE.write_text(page())
