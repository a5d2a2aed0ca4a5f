"""Carries out the repairs that are safe: they add what is missing and touch nothing that works."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, NeedsRoot
from cfctl.steps import note, step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.hostres.doctor.finding import Finding

_TIMEOUT_S = 30


def require_root() -> None:
    """Make sure that repairs can be made.

    :raises NeedsRoot: for an ordinary user.
    """
    if os.geteuid() != 0:
        raise NeedsRoot("host doctor --fix")


def run(findings: Iterable[Finding]) -> list[str]:
    """Carry out the repairs of all findings that have one; one that fails hinders none of the others.

    The group comes before the device files that it is to own: findings are not in that order.

    :return: the commands that were carried out.
    """
    done = []
    mends = dict.fromkeys(mend for finding in findings if finding.result != "ok" for mend in finding.mends)
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
