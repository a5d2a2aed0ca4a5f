"""Which of upstream's three generations a launcher is of. They differ in who keeps the numbers and the homes."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from mmap import mmap


class Generation(Enum):
    """How a launcher and ``cvd`` stand to each other.

    CLASSIC: the launcher is all there is. DATABASE: the package has a ``cvd`` with a database of its own, beside a
    launcher that works without it. FORWARDING (1.56 and later): the launcher itself hands over to ``cvd``, with
    homes and numbers of cvd's choice, unless its parent process is called ``cvd`` (launcher.md T1 and section 15).
    """

    CLASSIC = "classic"
    DATABASE = "database"
    FORWARDING = "forwarding"


#: What a launcher that forwards hands to ``cvd create``, and what it looks for in its parent's name; both stand in
#: the program of Debian's 1.57 as they are.
_HANDS_OVER = (b"--reuse=true", b"/cvd")


def detect(programs: Collection[str], start: bytes | mmap) -> Generation:
    """Tell the generation of a host package.

    :param programs: the names in its ``bin``.
    :param start: the launcher's program itself.
    """
    if all(start.find(text) >= 0 for text in _HANDS_OVER):
        return Generation.FORWARDING
    return Generation.DATABASE if "cvd" in programs else Generation.CLASSIC
