"""What a check has to say, and the few ways to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Result = Literal["ok", "warn", "fail"]

#: From the best to the worst: a report is as bad as its worst finding.
SEVERITY: tuple[Result, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Mend:
    """A repair that is safe to carry out unasked: it only adds what is missing, and a second time does nothing.

    :param argv: the command.
    """

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    :param check: what, in a word or two; the same on every host.
    :param result: ``fail``: devices will not run; ``warn``: some may not, or nobody could look; ``ok``.
    :param found: what there is, one line.
    :param why: what Cuttlefish needs it for.
    :param help: the command that mends it here; None where nothing needs mending.
    :param mends: what ``--fix`` runs; empty where only the administrator should.
    """

    check: str
    result: Result
    found: str
    why: str
    help: str | None = None
    mends: tuple[Mend, ...] = ()

    @property
    def fixable(self) -> bool:
        """Whether ``--fix`` mends it."""
        return bool(self.mends)

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as docs/schema/doctor.json has it."""
        return {
            "check": self.check,
            "result": self.result,
            "found": self.found,
            "why": self.why,
            "help": self.help,
            "fixable": self.fixable,
        }


def worst(findings: list[Finding]) -> Result:
    """Return the result of a whole report."""
    return max((finding.result for finding in findings), key=SEVERITY.index, default="ok")
