"""``cfctl host doctor``: what this host lacks for devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli import complete
from cfctl.cli.common import Answer, as_typed, console, verb
from cfctl.cli.host_options import Bridge, Config, Instances, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.hostres.doctor import Report
    from cfctl.hostres.doctor.finding import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
#: Without colour, a word that can be searched for.
_WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
_WORST_FIRST = ("fail", "warn", "ok")

#: Exit status: the host lacks something.
_LACKS = 4


def register(app: typer.Typer) -> None:
    """Add the verb to the group ``host``."""
    verb(app, "doctor")(doctor)


def doctor(
    *,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Load missing modules, make the group, open the device files to it.", show_default=False
        ),
    ] = False,
    host_package: Annotated[
        Path | None,
        typer.Option(
            "--host-package",
            metavar="DIR|TAR|NAME",
            autocompletion=complete.host_packages,
            help="Look also for the shared libraries of this package's programs.",
            show_default=False,
        ),
    ] = None,
    instances: Instances = None,
    bridge: Bridge = None,
    config: Config = None,
) -> Answer:
    """Look for what devices lack on this host, and what mends it.

    The exit status is 4 if something lacks. Changes nothing without --fix, which needs root. Anybody may ask; what
    only root can see is said to be unknown.

    \b
    Examples:
      cfctl host doctor
      sudo cfctl host doctor --instances 20
      sudo cfctl host doctor --fix
      cfctl host doctor --host-package ./cvd-host_package
      cfctl host doctor --json | jq -r '.findings[] | select(.result == "fail") | .help'
    """
    from cfctl import api
    from cfctl.artifacts import choose
    from cfctl.hostres import doctor as examination
    from cfctl.hostres.doctor import facts
    from cfctl.hostres.doctor import fix as repair
    from cfctl.steps import step

    if fix:
        repair.require_root()
    package = choose.directory(host_package, "host-package")
    chosen = settings(instances, bridge, config)

    def look() -> examination.Report:
        with step("boot a kernel under KVM"):
            trial = api.kvm_trial()
        with step("look at the host"):
            return examination.examine(facts.of_settings(chosen, trial), host_package=package)

    report, mended = repair.until_done(look) if fix else (look(), [])
    document = examination.document(report, mended)
    return Answer(document, lambda: _show(report, mended), _LACKS if document["result"] == "fail" else 0)


def _show(report: Report, mended: Sequence[str]) -> None:
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
    commands = as_typed(finding.help or "").splitlines()
    return [(finding.why, True), *((f"-> {command}", False) for command in commands)]


def _sum(findings: Sequence[Finding]) -> str:
    count = {result: sum(finding.result == result for finding in findings) for result in _WORST_FIRST}
    said = f"{count['fail']} failed, {count['warn']} to look at, {count['ok']} fine."
    fixable = sum(finding.fixable for finding in findings)
    if fixable:
        said += as_typed(f" {fixable} of them are mended by: sudo cfctl host doctor --fix")
    return said
