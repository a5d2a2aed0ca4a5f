"""Draw the terminal picture of the README: run a command on a terminal, write what it showed as SVG.

    .venv/bin/python tools/picture.py docs/images/demo.svg "make demo" .venv/bin/cfctl demo

The second argument is the command as the picture shows it.
"""

from __future__ import annotations

import os
import pty
import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLUMNS = 110


def record(argv: list[str]) -> str:
    """Run ``argv`` on a terminal of its own and return the bytes that it sent there, as text."""
    chunks: list[bytes] = []

    def read(fd: int) -> bytes:
        data = os.read(fd, 4096)
        chunks.append(data)
        return data

    os.environ.update(COLUMNS=str(_COLUMNS), LINES="50", TERM="xterm-256color")
    status = pty.spawn(argv, read)
    if status != 0:
        sys.exit(f"{argv} ended with {os.waitstatus_to_exitcode(status)}")
    return b"".join(chunks).decode()


def final(shown: str) -> list[str]:
    """Return the lines as they stood at the end: what a spinner drew over is gone."""
    return [line.rstrip("\r").rpartition("\r\x1b[K")[2] for line in shown.split("\n")]


def main() -> None:
    """Run, draw, write."""
    target, title, *argv = sys.argv[1:]
    console = Console(record=True, width=_COLUMNS, file=StringIO(), force_terminal=True, highlight=False)
    console.print(Text.assemble(("$ ", "bold green"), title))
    for line in final(record(argv)):
        console.print(Text.from_ansi(line))
    svg = console.export_svg(title="cfctl")
    # rich asks the web for its font; a picture in a repository asks nobody.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    Path(target).write_text(svg)


if __name__ == "__main__":
    main()
