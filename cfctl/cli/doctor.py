"""How the findings of ``cfctl host doctor`` look to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.cli.common import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.hostres.doctor import Report
    from cfctl.hostres.doctor.finding import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
#: Without colour, a word that can be searched for.
_WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
_WORST_FIRST = ("fail", "warn", "ok")


def show(report: Report, mended: Sequence[str]) -> None:
    """Print a report, family by family, the worst of each first, and the sum at the end."""
    from rich.text import Text

    board = console()
    colour = board.is_terminal and board.encoding.startswith("utf")
    width = max((len(finding.check) for findings in report.values() for finding in findings), default=0)
    for family, findings in report.items():
        board.print(Text(family, style="bold"))
        for finding in sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.result)):
            mark, style = _MARKS[finding.result]
            label = mark if colour else f"{_WORDS[finding.result]:4}"
            line = Text.assemble("  ", (label, style), f" {finding.check:<{width}}  {finding.found}")
            board.print(line, soft_wrap=True)
            for text, dim in _about(finding):
                board.print(Text(f"    {'' if colour else '   '}{text}", style="dim" if dim else ""), soft_wrap=True)
        board.print()
    for command in mended:
        board.print(Text(f"mended: {command}", style="green"), soft_wrap=True)
    board.print(Text(_sum([finding for findings in report.values() for finding in findings])), soft_wrap=True)


def _about(finding: Finding) -> list[tuple[str, bool]]:
    if finding.result == "ok":
        return []
    commands = (finding.help or "").splitlines()
    return [(finding.why, True), *((f"-> {command}", False) for command in commands)]


def _sum(findings: Sequence[Finding]) -> str:
    count = {result: sum(finding.result == result for finding in findings) for result in _WORST_FIRST}
    said = f"{count['fail']} failed, {count['warn']} to look at, {count['ok']} fine."
    fixable = sum(finding.fixable for finding in findings)
    if fixable:
        said += f" {fixable} of them are mended by: sudo cfctl host doctor --fix"
    return said
