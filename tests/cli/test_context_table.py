"""The table of contexts: in rows where they fit, else a line for each cell; nothing is cut."""

from __future__ import annotations

import pytest

from cfctl.cli.context import table
from cfctl.remote.contexts import Book, Context

_BOOK = Book(
    current="lab",
    contexts=(
        Context(
            "lab", "lab.example:7070", fingerprint="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        ),
        Context("here", "unix:/run/cfctl/relay.sock"),
    ),
)


@pytest.mark.parametrize("width", [None, 80, 56])
def test_in_rows(width: int | None) -> None:
    assert table(_BOOK, width) == [
        "   NAME  ADDRESS                     CERTIFICATE",
        "*  lab   lab.example:7070            9f86d081884c7d65...",
        "   here  unix:/run/cfctl/relay.sock  -",
    ]


def test_on_a_narrow_terminal_nothing_is_wider_and_nothing_is_lost() -> None:
    lines = table(_BOOK, 40)
    assert lines == [
        "* lab",
        "    lab.example:7070",
        "    9f86d081884c7d65...",
        "  here",
        "    unix:/run/cfctl/relay.sock",
        "    -",
    ]
    assert max(map(len, table(Book(), 40))) <= 41  # a command is not broken
