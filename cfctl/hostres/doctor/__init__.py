"""Looks at everything on a host that decides whether devices will run, and says what mends it.

One file per family of checks. Each check is a function of :class:`~cfctl.hostres.doctor.facts.Facts`, pure but for
reading files below the facts' root.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from cfctl.hostres.doctor import access, firewalls, kernel, libraries, network, place, room, tools
from cfctl.hostres.doctor.finding import Finding, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cfctl.hostres.doctor.facts import Facts

#: What was found, by family.
Report = dict[str, list[Finding]]

FAMILIES: dict[str, Callable[[Facts], Iterable[Finding]]] = {
    "where it runs": place.checks,
    "kernel": kernel.checks,
    "rights": access.checks,
    "room": room.checks,
    "programs": tools.checks,
    "network": network.checks,
    "firewalls": firewalls.checks,
}


def examine(facts: Facts, *, host_package: Path | None = None) -> Report:
    """Return what all checks found, by family; never raises.

    :param host_package: look as well whether its programs find their libraries.
    """
    report = {name: _checked(name, checks, facts) for name, checks in FAMILIES.items()}
    if host_package is not None:
        look = functools.partial(libraries.checks, package=host_package)
        report["host package"] = _checked("host package", look, facts)
    return report


def document(report: Report, mended: Sequence[str] = ()) -> dict[str, Any]:
    """Return a report as docs/schema/doctor.json has it.

    :param mended: the commands that ``--fix`` has carried out.
    """
    findings = [(family, finding) for family, several in report.items() for finding in several]
    return {
        "result": worst([finding for _, finding in findings]),
        "findings": [{**finding.as_dict(), "family": family} for family, finding in findings],
        "mended": list(mended),
    }


def _checked(name: str, checks: Callable[[Facts], Iterable[Finding]], facts: Facts) -> list[Finding]:
    """Run a family of checks; one that breaks on an odd file says so, and the others go on."""
    found = []
    try:
        for finding in checks(facts):
            found.append(finding)  # noqa: PERF402 (those before the broken one stay)
    except Exception as exc:  # noqa: BLE001 (a doctor that dies of a symptom helps nobody)
        found.append(
            Finding(
                name,
                "warn",
                f"the rest could not be checked: {type(exc).__name__}: {exc}",
                "A host with such a file has not been seen before.",
                "Please report this line.",
            )
        )
    return found
