"""Set the host's network up, take it down, tell how it is: what the ``cfctl host`` verbs call."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from cfctl import config, locks, paths, process
from cfctl.errors import CfctlError, ForeignObject, NeedsRoot
from cfctl.hostres import apply, desired, observed, plan, safety
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed, number_of
from cfctl.hostres.plan import Plan
from cfctl.steps import note

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cfctl.config import Settings

_INSTANCES = "host.instances"


def status(settings: Settings, *, adopt: bool = False) -> tuple[Plan, Settings]:
    """Compare the host with what it should be; changes nothing and needs no root.

    Without a number of instances in the settings, the number that the host serves now is what it should serve: an
    administrator who has set 2 up does not want to hear that 10 is the default.

    :return: the plan that would mend it, and the settings that it follows from.
    :raises MissingCommand: without iproute2.
    """
    found = observed.read(desired.SYSCTLS)
    settings = _with_served_number(settings, found)
    return plan.compute(desired.state(settings), found, adopt=adopt), settings


def check(settings: Settings, *, adopt: bool = False, force: bool = False) -> tuple[Plan, Settings]:
    """Return the plan of a set-up that may be carried out.

    :raises MissingCommand: naming the package.
    :raises ForeignObject: if what is not ours stands in the way.
    :raises SubnetClash: if the host uses a subnet that is needed.
    :raises DevicesUp: if a tap that must go is in use, unless ``force``.
    """
    if settings[_INSTANCES]:
        for command in ("ip", "nft", "dnsmasq"):
            process.require(command)
    work, settings = status(settings, adopt=adopt)
    _refuse_foreign(work)
    _refuse_clash(work)
    _refuse_in_use(work, f"cfctl host setup --instances {settings[_INSTANCES]} --force", force=force)
    return work, settings


def setup(settings: Settings, *, adopt: bool = False, force: bool = False) -> tuple[Plan, Settings]:
    """Make the host ready for as many instances as the settings say, by doing no more than is missing.

    :param adopt: make ours what upstream's script has made.
    :param force: delete taps of devices that run.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    :raises CfctlError: see :func:`check`; if a step fails on a host that had nothing of ours, all that was made is
        taken down again.
    """
    _require_root("host setup")
    with _locked():
        work, settings = check(settings, adopt=adopt, force=force)
        # What was adopted is not taken down: devices may run on it.
        fresh = work.state == "absent" and not adopt
        try:
            apply.run(work)
        except BaseException:
            if fresh and work.changes:
                _roll_back()
            raise
    return work, settings


def check_teardown(*, force: bool = False) -> Plan:
    """Return the plan that takes down everything of ours, whatever the settings say now.

    :raises MissingCommand: naming the package.
    :raises DevicesUp: if a tap is in use, unless ``force``.
    """
    process.require("nft")
    work = plan.compute(State(), observed.read(()))
    _refuse_in_use(work, "cfctl host teardown --force", force=force)
    return work


def teardown(*, force: bool = False) -> Plan:
    """Take down everything of ours; forwarding and group cvdnetwork stay.

    :param force: delete the taps of running devices too.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    :raises DevicesUp: see :func:`check_teardown`.
    """
    _require_root("host teardown")
    with _locked():
        work = check_teardown(force=force)
        apply.run(work)
    for line in work.left:
        note(line)
    return work


def _roll_back() -> None:
    """Take down what a set-up made that failed; its error is the one that counts."""
    note("Taking down again what was made.")
    apply.run(plan.compute(State(), observed.read(())))


def expected_instances(settings: Settings) -> int:
    """Return how many instances the host is to serve: as the settings say, else as many as now; needs nothing."""
    # Without iproute2 nothing has been set up either.
    with contextlib.suppress(CfctlError):
        settings = _with_served_number(settings, observed.read(()))
    number: int = settings[_INSTANCES]
    return number


def _with_served_number(settings: Settings, found: Observed) -> Settings:
    if settings.origin(_INSTANCES) != "built-in" or not found.instances:
        return settings
    served = config.Value(found.instances, "observed on the host")
    return replace(settings, values={**settings.values, _INSTANCES: served})


def _require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise NeedsRoot(what)


def _locked() -> AbstractContextManager[None]:
    return locks.exclusive(
        paths.current().host_lock, on_wait=lambda: note("Waiting for another cfctl that changes the host.")
    )


# -- refusals ------------------------------------------------------------------------------------------------


def _refuse_foreign(work: Plan) -> None:
    if not work.conflicts:
        return
    lines = [f"{conflict.object}: {conflict.reason}." for conflict in work.conflicts]
    shown = [*lines[:6], f"... and {len(lines) - 6} more." if len(lines) > 6 else "Nothing was changed."]
    foreign = [conflict for conflict in work.conflicts if not conflict.adoptable]
    if foreign:
        kind, _, name = foreign[0].object.partition(" ")
        look = f"nft list table {name}" if kind == "table" else f"ip -d link show {name}"
        mend = f"nft delete table {name}" if kind == "table" else f"ip link delete {name}"
        raise ForeignObject(
            f"{foreign[0].object} is there, and not cfctl's",
            "\n".join(shown),
            f"Look at it: {look}\nIf nobody needs it: {mend}",
        )
    raise ForeignObject(
        "the host has been set up by upstream's cuttlefish-host-resources",
        "\n".join(shown),
        "Take it down first: systemctl disable --now cuttlefish-host-resources\n"
        "Or make it cfctl's, with devices running: cfctl host setup --adopt",
    )


def _refuse_clash(work: Plan) -> None:
    added = [
        work.desired.links[c.name]
        for kind in ("bridge", "tap")
        for c in work.of(kind, "create", "change")
        if c.action == "create" or "addresses" in c.fields
    ]
    wanted = [IPv4Interface(address.cidr).network for link in added for address in link.addresses]
    if wanted:
        ours = {found.link.name for found in work.observed.links.values() if found.link.alias == desired.MARK}
        safety.require_free(wanted, work.observed.addresses, ours=ours)


def _refuse_in_use(work: Plan, command: str, *, force: bool) -> None:
    # A tap that is to be mended must be opened, which the kernel forbids while a VMM has it: force does not help.
    removed = {change.name for change in work.of("tap", "remove")}
    taps = [name for name in work.in_use if not (force and name in removed)]
    numbers = sorted({number for name in taps if (number := number_of(name))})
    safety.require_idle(taps, numbers, command)
