"""Set the host's network up, take it down, tell how it is: what the ``cfctl host`` verbs call."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from cfctl import config, locks, paths, process
from cfctl.errors import ForeignObject, NeedsRoot, UsageError
from cfctl.hostres import apply, desired, observed, plan, pod_state, safety
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed, number_of
from cfctl.hostres.plan import Plan
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Callable
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
    if found.pod:
        settings = _with_number(settings, pod_state.INSTANCE.number, "pod mode")
        return plan.compute(pod_state.state(found.pod.pod, settings["host.dns_servers"]), found), settings
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
    if work.observed.pod:
        raise UsageError(
            "the VM has the pod's address here",
            "Other devices have no network beside it. Nothing was changed.",
            "Mend it with: cfctl host setup --pod\nOr take it down first: cfctl host teardown",
        )
    refuse(work, f"cfctl host setup --instances {settings[_INSTANCES]} --force", force=force)
    return work, settings


def refuse(work: Plan, command: str, *, force: bool) -> None:
    """Make sure that a plan does no harm.

    :param command: what goes on regardless of running devices.
    :raises CfctlError: see :func:`check`; nothing was changed.
    """
    _refuse_foreign(work)
    _refuse_clash(work)
    _refuse_in_use(work, command, force=force)


def setup(settings: Settings, *, adopt: bool = False, force: bool = False) -> tuple[Plan, Settings]:
    """Make the host ready for as many instances as the settings say, by doing no more than is missing.

    :param adopt: make ours what upstream's script has made.
    :param force: delete taps of devices that run.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    :raises CfctlError: see :func:`check`; if a step fails on a host that had nothing of ours, all that was made is
        taken down again.
    """
    checked: list[Settings] = []

    def compute() -> Plan:
        work, followed = check(settings, adopt=adopt, force=force)
        checked.append(followed)
        return work

    # What was adopted is not taken down: devices may run on it.
    work = carry_out("host setup", compute, keep=adopt)
    return work, checked[0]


def carry_out(what: str, compute: Callable[[], Plan], *, keep: bool = False) -> Plan:
    """Carry a plan of a set-up out, as root and alone.

    :param what: the verb.
    :param compute: makes the plan when nobody else changes the host.
    :param keep: what was made stays if a step fails; without it, all of it goes if there was nothing before.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    """
    _require_root(what)
    with _locked():
        work = compute()
        fresh = work.state == "absent" and not keep
        try:
            apply.run(work)
        except BaseException:
            if fresh and work.changes:
                _roll_back()
            raise
    return work


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


def _with_served_number(settings: Settings, found: Observed) -> Settings:
    if settings.origin(_INSTANCES) != "built-in" or not found.instances:
        return settings
    return _with_number(settings, found.instances, "observed on the host")


def _with_number(settings: Settings, number: int, origin: str) -> Settings:
    return replace(settings, values={**settings.values, _INSTANCES: config.Value(number, origin)})


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
        if work.desired.pod:
            # Its addresses and routes go.
            ours.add(work.desired.pod.interface)
        safety.require_free(wanted, work.observed.addresses, ours=ours)


def _refuse_in_use(work: Plan, command: str, *, force: bool) -> None:
    # A tap that is to be mended must be opened, which the kernel forbids while a VMM has it: force does not help.
    removed = {change.name for change in work.of("tap", "remove")}
    taps = [name for name in work.in_use if not (force and name in removed)]
    numbers = sorted({number for name in taps if (number := number_of(name))})
    safety.require_idle(taps, numbers, command)
