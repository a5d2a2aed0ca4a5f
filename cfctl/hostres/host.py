"""Set the host's network up, take it down, tell how it is: what the ``cfctl host`` verbs call."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from cfctl import config, locks, paths, process, signals
from cfctl.errors import CfctlError, ForeignObject, HostLacks, NeedsRoot, UsageError
from cfctl.hostres import (
    apply,
    backends,
    commands,
    desired,
    dnsmasq,
    firewall,
    iptables,
    lazy,
    neighbours,
    nft,
    observed,
    plan,
    pod_state,
    resolvers,
    safety,
)
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed, number_of
from cfctl.hostres.plan import Plan
from cfctl.instance import instances
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cfctl.config import Settings

_INSTANCES = "host.instances"
_BRIDGE = "host.bridge"
_IPTABLES = (*iptables.LEGACY.TABLES, *iptables.NFT.TABLES)
_LAZY = "host.lazy"


def status(settings: Settings, *, adopt: bool = False, spare: bool = False) -> tuple[Plan, Settings]:
    """Compare the host with what it should be; changes nothing and needs no root.

    Without a number of instances in the settings, the number that the host serves now is what it should serve: an
    administrator who has set 2 up does not want to hear that 10 is the default. Likewise the bridge that they are on,
    and whether taps are made on request.

    :param spare: instances in use that should not be there any more stay until they are not.
    :return: the plan that would mend it, and the settings that it follows from.
    :raises MissingCommand: without iproute2.
    :raises HostLacks: if guests are to be told the host's DNS servers, and there are none that they could ask.
    """
    choice = backends.choose(settings)
    found = observed.read(desired.SYSCTLS, desired.subnets(settings), choice.backend)
    if found.pod:
        settings = _with_number(settings, pod_state.INSTANCE.number, "pod mode")
        return plan.compute(pod_state.state(found.pod.pod, settings["host.dns_servers"]), found), settings
    settings = _with_choice(_with_resolvers(_as_observed(settings, found)), choice)
    active = (_still_needed(settings, found) if settings[_LAZY] else set()) | (found.busy if spare else set())
    return plan.compute(desired.state(settings, choice.backend, active=active), found, adopt=adopt), settings


def _still_needed(settings: Settings, found: Observed) -> set[int]:
    """Return the instances whose taps stay in lazy mode: a device has them open, or somebody holds the number."""
    candidates = {number for number in found.numbers if number <= lazy.limit(settings)}
    return candidates & found.busy | lazy.held(candidates - found.busy)


def check(
    settings: Settings, *, adopt: bool = False, force: bool = False, spare: bool = False
) -> tuple[Plan, Settings]:
    """Return the plan of a set-up that may be carried out.

    :param spare: see :func:`status`.
    :raises MissingCommand: naming the package.
    :raises ForeignObject: if what is not ours stands in the way.
    :raises HostLacks: without the bridge that the settings name, or what is needed to route what arrives on it.
    :raises UsageError: if what they name is no bridge.
    :raises SubnetClash: if the host uses a subnet that is needed.
    :raises DevicesUp: if a tap in use must go, or move to another bridge or subnet, unless ``force``.
    """
    if lazy.limit(settings):
        for command in ("ip", "dnsmasq"):
            process.require(command)
        choice = backends.choose(settings)
        if choice.with_nft:
            process.require("nft")
        bridged = settings["host.ipv4_bridge"] and settings["host.ipv6_bridge"]
        backends.require(choice, routed=bool(settings[_BRIDGE]) and not bridged)
    chosen = settings
    work, settings = status(settings, adopt=adopt, spare=spare)
    if work.observed.pod:
        raise UsageError(
            "the VM has the pod's address here",
            "Other devices have no network beside it. Nothing was changed.",
            "Mend it with: cfctl host setup --pod\nOr take it down first: cfctl host teardown",
        )
    refuse(work, settings, commands.set_up(chosen, "--force"), force=force)
    return work, settings


def refuse(work: Plan, settings: Settings, command: str, *, force: bool) -> None:
    """Make sure that a plan does no harm.

    :param command: what goes on regardless of running devices.
    :raises CfctlError: see :func:`check`; nothing was changed.
    """
    _refuse_foreign(work)
    _refuse_other_bridge(work, settings)
    _refuse_clash(work, settings)
    _refuse_in_use(work, command, force=force)
    neighbours.refuse(work.observed.neighbours, work.desired.needs)
    # Only root may ask; an ordinary user's plan has no rules in it either.
    if work.observed.tables is not None and any("broute" in change.name for change in work.of("rule", "create")):
        nft.require_broute()


def setup(
    settings: Settings,
    *,
    adopt: bool = False,
    force: bool = False,
    spare: bool = False,
    on_wait: Callable[[], None] | None = None,
) -> tuple[Plan, Settings]:
    """Make the host ready for as many instances as the settings say, by doing no more than is missing.

    :param adopt: make ours what upstream's script has made.
    :param force: delete taps of devices that run.
    :param spare: see :func:`status`.
    :param on_wait: see :func:`carry_out`.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    :raises CfctlError: see :func:`check`; if a step fails on a host that had nothing of ours, all that was made is
        taken down again.
    """
    checked: list[Settings] = []

    def compute() -> Plan:
        work, followed = check(settings, adopt=adopt, force=force, spare=spare)
        checked.append(followed)
        return work

    # What was adopted is not taken down: devices may run on it.
    work = carry_out("host setup", compute, keep=adopt, on_wait=on_wait)
    if work.changes and (watcher := locks.holder(paths.current().watcher_lock)):
        note(f"cfctl host run (pid {watcher}) watches this host: what its own settings ask for, it sets up again.")
    return work, checked[0]


def carry_out(
    what: str, compute: Callable[[], Plan], *, keep: bool = False, on_wait: Callable[[], None] | None = None
) -> Plan:
    """Carry a plan of a set-up out, as root and alone.

    :param what: the verb.
    :param compute: makes the plan when nobody else changes the host.
    :param keep: what was made stays if a step fails; without it, all of it goes if there was nothing before.
    :param on_wait: called if somebody else changes the host; it may raise, and then nothing is done. Without it,
        people are told.
    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    """
    _require_root(what)
    with _locked(on_wait):
        work = compute()
        fresh = work.state == "absent" and not keep
        try:
            apply.run(work)
        except BaseException:
            if fresh and work.changes:
                with signals.undisturbed():
                    _roll_back()
            raise
    return work


def check_teardown(*, force: bool = False) -> Plan:
    """Return the plan that takes down everything of ours, whatever the settings say now.

    :raises MissingCommand: if the program is gone that made the rules, naming the package.
    :raises DevicesUp: if a tap is in use, unless ``force``.
    """
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


@dataclass(frozen=True, slots=True)
class Expected:
    """What the host is to be.

    :param instances: how many it is to serve.
    :param subnets: those that they take.
    :param needs: what other people's firewalls are to let through, whoever opens them.
    """

    instances: int
    subnets: tuple[safety.Network, ...]
    needs: firewall.Needs


def expected(settings: Settings) -> Expected:
    """Return what the host is to be; needs no right."""
    backend = backends.WITH_NFT
    # Without iproute2 nothing has been set up either, and without any program for rules there are none.
    with contextlib.suppress(CfctlError):
        backend = backends.choose(settings).backend
    with contextlib.suppress(CfctlError):
        settings = _as_observed(settings, observed.read(()))
    count = lazy.limit(settings)
    opened = config.Value("open", settings.origin("host.firewall"))
    asked = replace(settings, values={**settings.values, "host.firewall": opened})
    served = settings["host.numbers"] if not settings[_LAZY] else ()
    state = desired.state(asked, backend, active=served or range(1, count + 1))
    subnets = tuple(ip_interface(addr.cidr).network for link in state.links.values() for addr in link.addresses)
    return Expected(count, subnets, state.needs or firewall.Needs())


def _as_observed(settings: Settings, found: Observed) -> Settings:
    """Let the host stay as it is where no setting says otherwise."""
    seen = {_INSTANCES: found.instances or None, _BRIDGE: found.external_bridge}
    # What is damaged is written anew.
    with contextlib.suppress(CfctlError):
        if found.lazy is not None:
            written = lazy.parse(found.lazy)
            seen = {_LAZY: True, _INSTANCES: written[_INSTANCES], _BRIDGE: written[_BRIDGE] or None}
            # "0 of them from the start, any on request" is no number to set up.
            if settings.origin(_LAZY) != "built-in" and not settings[_LAZY]:
                seen[_INSTANCES] = seen[_INSTANCES] or None
    kept = {
        name: config.Value(value, "observed on the host")
        for name, value in seen.items()
        if value is not None and settings.origin(name) == "built-in"
    }
    return replace(settings, values={**settings.values, **kept})


def _with_resolvers(settings: Settings) -> Settings:
    # Without instances, or on somebody else's bridge, there is no DHCP server to tell it.
    if settings["host.dns"] != "host" or not lazy.limit(settings) or settings[_BRIDGE]:
        return settings
    found = resolvers.of_host()
    if not found.ipv4:
        raise HostLacks(
            "the host has no DNS server that guests could ask",
            f"host.dns = host ({settings.origin('host.dns')}), and no IPv4 address is left of: {found.seen}.",
            "Name the servers: host.dns = servers, and host.dns_servers = those of your network",
        )
    told = {"host.dns_servers": found.ipv4, "host.dns6_servers": found.ipv6}
    values = {name: config.Value(servers, found.origin) for name, servers in told.items()}
    return replace(settings, values={**settings.values, **values})


def _with_choice(settings: Settings, choice: backends.Choice) -> Settings:
    """Say what makes the rules, where the settings leave it open and it is not nft."""
    if choice.with_nft:
        return settings
    value = config.Value(choice.backend.NAME, choice.reason)
    return replace(settings, values={**settings.values, "host.rules": value})


def _with_number(settings: Settings, number: int, origin: str) -> Settings:
    return replace(settings, values={**settings.values, _INSTANCES: config.Value(number, origin)})


def _require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise NeedsRoot(what)


def _locked(on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
    def say() -> None:
        note("Waiting for another cfctl that changes the host.")

    return locks.exclusive(paths.current().host_lock, on_wait=on_wait or say)


# -- refusals ------------------------------------------------------------------------------------------------


def _refuse_foreign(work: Plan) -> None:
    if not work.conflicts:
        return
    lines = [f"{conflict.object}: {conflict.reason}." for conflict in work.conflicts]
    shown = [*lines[:6], f"... and {len(lines) - 6} more." if len(lines) > 6 else "Nothing was changed."]
    foreign = [conflict for conflict in work.conflicts if not conflict.adoptable]
    if foreign:
        kind, _, name = foreign[0].object.partition(" ")
        look, mend = f"ip -d link show {name}", f"ip link delete {name}"
        if kind == "table":
            look, mend = f"nft list table {name}", f"nft delete table {name}"
        if kind == "table" and name in _IPTABLES:
            program, table = name.split()
            look = mend = f"{program} -t {table} -S"
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


def _refuse_other_bridge(work: Plan, settings: Settings) -> None:
    name, origin = settings[_BRIDGE], settings.origin(_BRIDGE)
    if not name or not work.desired.links:
        return
    kind = work.observed.kinds.get(name)
    if kind is None:
        raise HostLacks(
            f"there is no bridge {name}",
            f"host.bridge ({origin}) names it. Nothing was changed.",
            f"See which there are: ip -br link show type bridge\nMake it: ip link add {name} type bridge",
        )
    if kind != "bridge":
        raise UsageError(
            f"{name} is no bridge of the kernel",
            f"host.bridge ({origin}) names it; {f'its kind is {kind}' if kind else 'it is a plain interface'}. "
            "Nothing was changed.",
            "See which bridges there are: ip -br link show type bridge",
        )


def _refuse_clash(work: Plan, settings: Settings) -> None:
    added = [
        work.desired.links[c.name]
        for kind in ("bridge", "tap")
        for c in work.of(kind, "create", "change")
        if c.action == "create" or "addresses" in c.fields
    ]
    wanted = [ip_interface(address.cidr).network for link in added for address in link.addresses]
    if work.of("mode", "create", "change"):
        # Better now than at somebody's launch.
        later = instances(work.desired.instances, work.observed.subnets)
        wanted += [net.network for one in later for net in (one.mobile, one.wifi_ap)]
    if wanted:
        ours = {found.link.name for found in work.observed.links.values() if found.link.alias == desired.MARK}
        if work.desired.pod:
            # Its addresses and routes go.
            ours.add(work.desired.pod.interface)
        named = {name: _network(settings[name]) for name in config.NETWORKS if settings[name]}
        safety.require_free(wanted, work.observed.addresses, ours=ours, settings=named)


def _network(value: str) -> safety.Network:
    """Return the network that a setting names; an IPv6 prefix has its length elsewhere."""
    return ip_network(value if "/" in value else dnsmasq.gateway6(value), strict=False)


def _refuse_in_use(work: Plan, command: str, *, force: bool) -> None:
    # A tap that is to be mended must be opened, which the kernel forbids while a VMM has it: force does not help.
    opened = {change.name for change in work.of("tap", "change") if plan.needs_opening(change.fields)}
    taps = [name for name in work.in_use if name in opened or not force]
    numbers = sorted({number for name in taps if (number := number_of(name))})
    safety.require_idle(taps, numbers, command)
