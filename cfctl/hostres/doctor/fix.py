"""Carries out the repairs that are safe: they add what is missing and touch nothing that works."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, NeedsRoot
from cfctl.steps import note, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.hostres.doctor import Report
    from cfctl.hostres.doctor.finding import Finding, Mend

_TIMEOUT_S = 30


def require_root() -> None:
    """Make sure that repairs can be made.

    :raises NeedsRoot: for an ordinary user.
    """
    if os.geteuid() != 0:
        raise NeedsRoot(
            "host doctor --fix", "It loads kernel modules, makes groups, and sets who may open device files."
        )


def until_done(look: Callable[[], Report]) -> tuple[Report, list[str]]:
    """Look, repair, and look again, until a repair makes no new one possible: a module brings its device file.

    :param look: examines the host.
    :return: the last report, and the commands that were carried out.
    """
    report, mended = look(), list[str]()
    tried: set[Mend] = set()
    while due := {mend for finding in _findings(report) for mend in _due(finding)} - tried:
        tried |= due
        mended += run(finding for finding in _findings(report) if due & set(_due(finding)))
        report = look()
    return report, mended


def _findings(report: Report) -> list[Finding]:
    return [finding for several in report.values() for finding in several]


def _due(finding: Finding) -> tuple[Mend, ...]:
    return () if finding.result == "ok" else finding.mends


def run(findings: Iterable[Finding]) -> list[str]:
    """Carry out the repairs of all findings that have one; one that fails hinders none of the others.

    The group comes before the device files that it is to own: findings are not in that order.

    :return: the commands that were carried out.
    """
    done = []
    mends = dict.fromkeys(mend for finding in findings for mend in _due(finding))
    for mend in sorted(mends, key=lambda mend: mend.argv[0] in ("chgrp", "chmod")):
        command = " ".join(mend.argv)
        try:
            with step(command):
                process.run(mend.argv, timeout=_TIMEOUT_S)
        except CfctlError as exc:
            note(f"{command}: {exc.details or exc.brief}")
        else:
            done.append(command)
    return done
