"""The taps, addresses and rules of one instance, made and removed on request in lazy mode.

It is the same desired state, plan and apply as a set-up's, of which nothing is carried out but what is the instance's
own: whoever launches a device changes nothing for others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cfctl.errors import HostLacks
from cfctl.hostres import backends, desired, host, lazy, observed, plan
from cfctl.hostres.plan import Plan, rule_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.config import Settings
    from cfctl.hostres.desired import State


def make(number: int) -> Plan:
    """Give an instance its taps; the caller holds its number.

    :return: what was done.
    :raises HostLacks: if the host makes no taps on request, not for this number, or lacks what they are joined to.
    :raises CfctlError: see :func:`cfctl.hostres.host.check`; nothing was changed then.
    """
    return host.carry_out(f"make the taps of instance {number}", _work(number, present=True), keep=True)


def remove(number: int) -> Plan:
    """Take an instance's taps away; the caller holds its number.

    :return: what was done.
    :raises HostLacks: as :func:`make`.
    :raises DevicesUp: if one of them is in use; nothing was changed then.
    """
    return host.carry_out(f"remove the taps of instance {number}", _work(number, present=False), keep=True)


def _work(number: int, *, present: bool) -> Callable[[], Plan]:
    def compute() -> Plan:
        settings = required(number)
        backend = backends.choose(settings).backend
        found = observed.read((), desired.subnets(settings), backend)
        others = found.numbers - {number}
        without, with_it = (desired.state(settings, backend, active=active) for active in (others, others | {number}))
        wanted = with_it if present else without
        if present:
            _require_whole(wanted, found)
        own = {*(with_it.links.keys() - without.links.keys()), *(_rules(with_it) - _rules(without))}
        work = _only(plan.compute(wanted, found), own)
        host.refuse(work, settings, "cfctl host teardown --force", force=False)
        return work

    return compute


def required(number: int) -> Settings:
    """Return the settings by which the taps of an instance are made.

    :raises HostLacks: if the host makes none on request, or not for this number.
    """
    settings = lazy.recorded()
    if settings is None:
        raise HostLacks(
            "this host makes no taps on request",
            "It has not been set up in lazy mode (host.lazy), or was taken down.",
            "Set it up: sudo CFCTL_HOST_LAZY=true cfctl host setup",
        )
    if number > lazy.limit(settings):
        raise HostLacks(
            f"the host serves instances 1 to {lazy.limit(settings)}, not {number}",
            "That is host.instances, as the host was set up.",
            f"Let it serve more: sudo cfctl host setup --instances {number}",
        )
    return settings


def _rules(state: State) -> set[str]:
    return {rule_name(table.id, rule) for table in state.tables.values() for rule in table.rules}


def _only(work: Plan, own: set[str]) -> Plan:
    """Return what of a plan is about the objects of ``own``."""
    return replace(
        work,
        changes=tuple(change for change in work.changes if change.kind in ("tap", "rule") and change.name in own),
        conflicts=tuple(conflict for conflict in work.conflicts if conflict.object.partition(" ")[2] in own),
        in_use=tuple(name for name in work.in_use if name in own),
    )


def _require_whole(wanted: State, found: observed.Observed) -> None:
    """Make sure that there is what taps and rules are joined to.

    :raises HostLacks: naming what is missing; whoever watches the host mends it.
    """
    masters = {link.master for link in wanted.links.values() if link.master}
    missing = [f"bridge {name}" for name in sorted(masters) if found.kinds.get(name) != "bridge"]
    missing += [f"table {name}" for name in wanted.tables if name not in (found.tables or {})]
    missing += [] if found.group_exists else [f"group {desired.GROUP}"]
    if missing:
        raise HostLacks(
            "the host's network is damaged",
            f"Missing: {', '.join(missing)}.",
            "Mend it: sudo cfctl host setup",
        )
