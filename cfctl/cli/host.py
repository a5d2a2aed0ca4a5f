"""``cfctl host``: the network that the devices of this host need."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli import doctor
from cfctl.cli.common import Answer, verb
from cfctl.cli.host_options import Adopt, Bridge, Config, DryRun, Force, Instances, Lazy, Netns, PodMode
from cfctl.cli.host_options import settings as settings_of
from cfctl.cli.host_plan import DIFFERS, answer, as_document, plural, show_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.config import Settings
    from cfctl.hostres.pod import Pod

#: How long the VM has to take a pod's address.
_DEADLINE_S = 180

app = typer.Typer(
    help="Prepare this host's network for devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@verb(app, "setup")
def setup(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
    lazy: Lazy = None,
    config: Config = None,
    dry_run: DryRun = False,
    adopt: Adopt = False,
    force: Force = False,
    pod: PodMode = False,
    netns: Netns = None,
) -> Answer:
    """Make the host ready: taps, bridges, NAT, DHCP.

    Makes what is missing, mends what is not as it should be, removes what is too much. Needs root. A second call does
    nothing; another number adds or removes the difference and leaves running devices alone. Another bridge or other
    subnets move the devices, which is refused while they run. With --pod the VM gets the address of the container or
    pod in which it runs (docs/pod.md).

    \b
    Examples:
      sudo cfctl host setup
      sudo cfctl host setup --instances 4
      sudo cfctl host setup --bridge br0
      sudo cfctl host setup --lazy
      sudo CFCTL_HOST_DNS=host cfctl host setup
      cfctl host setup --instances 4 --dry-run
      cfctl host setup --pod
    """
    from cfctl.hostres import host

    if pod:
        return _set_pod_up(instances, config, netns, adopt=adopt, force=force, dry_run=dry_run)
    _refuse_netns(netns)
    act = host.check if dry_run else host.setup
    work, settings = act(settings_of(instances, bridge, config, lazy=lazy), adopt=adopt, force=force)
    return answer(work, settings, done=not dry_run)


@verb(app, "plan")
def plan(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
    lazy: Lazy = None,
    config: Config = None,
    adopt: Adopt = False,
    pod: PodMode = False,
    netns: Netns = None,
) -> Answer:
    """Say what setup would do, and why.

    The exit status is 3 if it would do anything.

    \b
    Examples:
      cfctl host plan
      cfctl host plan --instances 64 --json
      cfctl host plan --bridge br0
      cfctl host plan --pod
    """
    from cfctl.hostres import host

    if pod:
        return _set_pod_up(instances, config, netns, adopt=adopt, force=True, dry_run=True)
    _refuse_netns(netns)
    work, settings = host.check(settings_of(instances, bridge, config, lazy=lazy), adopt=adopt, force=True)
    return answer(work, settings, done=False)


@verb(app, "teardown")
def teardown(*, dry_run: DryRun = False, force: Force = False, netns: Netns = None) -> Answer:
    """Remove everything that setup has made.

    Whatever the settings say now. Needs root. Refuses while devices are up. IP forwarding and group cvdnetwork stay.
    In pod mode, the container gets its address and routes back.

    \b
    Examples:
      sudo cfctl host teardown
      cfctl host teardown --dry-run
      sudo cfctl host teardown --netns /proc/4711/ns/net
    """
    from cfctl.hostres import host

    _enter(netns, "host teardown")
    work = host.check_teardown(force=force) if dry_run else host.teardown(force=force)
    return answer(work, None, done=not dry_run)


@verb(app, "status")
def status(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
    lazy: Lazy = None,
    config: Config = None,
    netns: Netns = None,
) -> Answer:
    """Tell whether the host is ready.

    The exit status is 3 if setup would have something to do. Anybody may ask; only root can read the firewall rules.

    \b
    Examples:
      cfctl host status
      cfctl host status --json
    """
    from cfctl.hostres import commands, dnsmasq, host, tap

    _enter(netns, "host status --netns")
    chosen = settings_of(instances, bridge, config, lazy=lazy)
    work, settings = host.status(chosen)
    document = as_document(work, settings, state=work.state)
    leases = {lease.mac: lease.address for lease in dnsmasq.guests()}
    busy = sorted(tap.busy_numbers())
    document |= {
        "served": work.observed.instances,
        "lazy": work.observed.lazy is not None,
        "active": sorted(work.observed.numbers),
        "conflicts": [{"object": c.object, "reason": c.reason, "adoptable": c.adoptable} for c in work.conflicts],
        "servers": [{"bridge": s.bridge, "pid": s.pid, "ours": s.marked} for s in work.observed.servers],
        "guests": [_guest(number, leases) for number in busy],
    }
    if work.desired.pod:
        document["pod"] = _pod_document(work.desired.pod)

    def show() -> None:
        served = work.observed.instances
        print(f"{work.state}: {_STATES[work.state].format(plural(served, 'instance'))}")
        if document["lazy"]:
            print(f"lazy       taps are made on request; now there are those of: {_numbers(document['active'])}")
        print(f"instances  {settings['host.instances']} ({settings.origin('host.instances')})")
        for name, value in _chosen(settings):
            print(f"setting    {name} = {value} ({settings.origin(name)})")
        if work.desired.pod:
            print(f"pod        {work.desired.pod.interface} {work.desired.pod.address}, which is the VM's")
        for server in document["servers"]:
            print(f"dnsmasq    {server['bridge']}, pid {server['pid']}{'' if server['ours'] else ', not of cfctl'}")
        for guest in document["guests"]:
            print(f"device up  cvd-{guest['number']} {guest['address'] or ''}".rstrip())
        for conflict in work.conflicts:
            print(f"conflict   {conflict.object}: {conflict.reason}")
        for line in document["unchecked"]:
            print(f"unchecked  {line}")
        show_changes(work.changes, done=False)
        if work.changes and not work.conflicts:
            in_pod = "cfctl host setup --pod" + (f" --netns {shlex.quote(str(netns))}" if netns else "")
            print(f"Mend it with: {in_pod if work.desired.pod else commands.set_up(chosen)}")
        elif work.conflicts:
            print("See what helps: cfctl host plan")

    return Answer(document, show, DIFFERS if work.changes or work.conflicts else 0)


@verb(app, "run")
def run(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
    lazy: Lazy = None,
    config: Config = None,
    pod: PodMode = False,
    netns: Netns = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            "--deadline",
            metavar="SECONDS",
            min=1,
            help=f"With --pod: how long the VM has to take its address.  [default: {_DEADLINE_S}]",
            show_default=False,
        ),
    ] = None,
    json_: bool = False,
) -> Answer | None:
    """Set up, stay, and mend what changes.

    Says what it mends, line by line. Where taps are made on request (--lazy), it makes them for the members of group
    cvdnetwork. SIGHUP has the settings read again; SIGTERM ends it, and everything stays. It waits where something is
    in the way, and leaves a host alone that was taken down.

    With --pod it is a container's entry point. When the VM has not taken the pod's address before the deadline, the
    pod gets it back, and the exit status is 5. SIGTERM takes everything down.

    \b
    Examples:
      sudo cfctl host run
      sudo cfctl host run --lazy --instances 16
      sudo cfctl host run --json
      cfctl host run --pod --deadline 600
    """
    import signal
    import threading

    from cfctl.errors import UsageError
    from cfctl.hostres import pod_mode
    from cfctl.steps import note

    if not pod:
        from cfctl.cli import host_run

        _refuse_netns(netns)
        if deadline is not None:
            raise UsageError("--deadline goes with --pod", "A host's watcher waits for no VM.")
        host_run.watch(lambda: settings_of(instances, bridge, config, lazy=lazy), json_=json_)
        return None
    if bridge is not None or lazy is not None or instances not in (None, 1):
        raise UsageError(
            "a pod has one address, for one instance", "--pod goes with no --instances, --bridge, --lazy."
        )
    _enter(netns, "host run --pod")
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    work = pod_mode.run(
        settings_of(None, None, config),
        deadline_s=_DEADLINE_S if deadline is None else deadline,
        stop=stop,
        named=netns is not None,
        confirmed=lambda address: note(f"The VM has {address}."),
    )
    return answer(work, None, done=True)


doctor.register(app)


def _set_pod_up(
    instances: int | None, config: Path | None, netns: Path | None, *, adopt: bool, force: bool, dry_run: bool
) -> Answer:
    from cfctl.errors import UsageError
    from cfctl.hostres import pod_mode

    if adopt or instances not in (None, 1):
        raise UsageError("a pod has one address, for one instance", "--pod goes with no --adopt, and no --instances.")
    _enter(netns, "host setup --pod")
    act = pod_mode.check if dry_run else pod_mode.setup
    work = act(settings_of(None, None, config), named=netns is not None, force=force)
    return answer(work, None, done=not dry_run)


def _enter(netns: Path | None, what: str) -> None:
    if netns is None:
        return
    import os

    from cfctl.errors import NeedsRoot
    from cfctl.hostres import container

    if os.geteuid():
        raise NeedsRoot(what)
    container.enter(netns)


def _refuse_netns(netns: Path | None) -> None:
    if netns is not None:
        from cfctl.errors import UsageError

        raise UsageError("--netns goes with --pod", "A host's devices are served in the host's own network.")


_STATES = {
    "ready": "the host serves {}",
    "absent": "nothing is set up here",
    "drift": "the host serves {}, but not as it should",
}


def _chosen(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings of the host that somebody has chosen, as one writes them in the environment."""
    from cfctl.hostres.commands import as_text

    for name, found in settings.values.items():
        if name.startswith("host.") and name != "host.instances" and found.origin != "built-in":
            yield name, as_text(found) or "none"


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _pod_document(pod: Pod) -> dict[str, Any]:
    return {
        "interface": pod.interface,
        "address": pod.address,
        "mac": pod.mac,
        "mtu": pod.mtu,
        "routes": [{"network": str(network), "gateway": gateway} for network, gateway in pod.dhcp_routes],
        "dns": list(pod.dns),
        "search": list(pod.search),
    }


def _guest(number: int, leases: dict[str, str]) -> dict[str, Any]:
    from cfctl.instance import Instance

    mac = Instance(number).ethernet_mac
    return {"number": number, "mac": mac, "address": leases.get(mac)}
