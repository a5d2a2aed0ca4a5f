"""What run_cvd writes into its log when it refuses something: the reason, which its one-byte answer cannot hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl.launch import boot

if TYPE_CHECKING:
    from cfctl.instance import Instance
    from cfctl.launch.registry import Record

#: More would be a trace, of which the end says most.
_LINES = 3

#: Upstream's lines: who, the level and the moment, ids, where in the source (launcher.md section 11).
_HEAD = re.compile(r"^\S+\s+[VDIWEF] \d\d-\d\d \d\d:\d\d:\d\d\S* +\d+ +\d+ \S+:\d+\] ")


class Complaint:
    """The lines that come into an instance's launcher log from now on."""

    def __init__(self, record: Record, instance: Instance) -> None:
        self._tail = boot.Tail(boot.launcher_log(record, instance))
        self._tail.lines()

    def text(self) -> str | None:
        """Return what it said, for people; None if it said nothing."""
        lines = [_HEAD.sub("", boot.clean(line)) for line in self._tail.lines()]
        return "\n".join(boot.shorten(line) for line in lines[-_LINES:]) or None
