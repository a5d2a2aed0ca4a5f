"""``cfctl host``: the network that the devices of this host need."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.common import Answer, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.config import Settings
    from cfctl.hostres.doctor.facts import Kvm
    from cfctl.hostres.plan import Change, Plan
    from cfctl.hostres.pod import Pod

app = typer.Typer(
    help="Prepare this host's network for devices, take it down, see how it is.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Exit status: the host lacks something.
_LACKS = 4
#: Exit status: the state differs from what it should be.
_DIFFERS = 3
#: More changes of one sort than this are shown as a range.
_SHOWN = 4

Instances = Annotated[
    int | None,
    typer.Option(
        "--instances",
        metavar="N",
        help="How many instances the host serves, 0 to 128. Without it: the settings, else as many as now, else 10.",
        show_default=False,
    ),
]
Bridge = Annotated[
    str | None,
    typer.Option(
        "--bridge",
        metavar="IF",
        help="An existing bridge that the devices become members of, instead of two of cfctl's; '' for cfctl's own. "
        "Without it: the settings, else as now.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file instead of /etc/cfctl/config.toml.", show_default=False
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; exit 3 if anything would.", show_default=False)
]
Adopt = Annotated[
    bool,
    typer.Option("--adopt", help="Make cfctl's what upstream's script has set up here.", show_default=False),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Delete or move interfaces of running devices too: they lose their network.",
        show_default=False,
    ),
]

PodMode = Annotated[
    bool,
    typer.Option(
        "--pod",
        help="Give the VM of instance 1 this container's own address; not in the host's network.",
        show_default=False,
    ),
]
Netns = Annotated[
    Path | None,
    typer.Option(
        "--netns",
        metavar="PATH",
        help="Work in this network namespace, for example /proc/PID/ns/net.",
        show_default=False,
    ),
]


@verb(app, "setup")
def setup(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
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
      sudo CFCTL_HOST_DNS=host cfctl host setup
      cfctl host setup --instances 4 --dry-run
      cfctl host setup --pod
    """
    from cfctl.hostres import host

    if pod:
        return _set_pod_up(instances, config, netns, adopt=adopt, force=force, dry_run=dry_run)
    _refuse_netns(netns)
    act = host.check if dry_run else host.setup
    work, settings = act(_settings(instances, bridge, config), adopt=adopt, force=force)
    return _answer(work, settings, done=not dry_run)


@verb(app, "plan")
def plan(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
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
    work, settings = host.check(_settings(instances, bridge, config), adopt=adopt, force=True)
    return _answer(work, settings, done=False)


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
    return _answer(work, None, done=not dry_run)


@verb(app, "status")
def status(
    *, instances: Instances = None, bridge: Bridge = None, config: Config = None, netns: Netns = None
) -> Answer:
    """Tell whether the host is ready.

    The exit status is 3 if setup would have something to do. Anybody may ask; only root can read the firewall rules.

    \b
    Examples:
      cfctl host status
      cfctl host status --json
    """
    from cfctl.hostres import dnsmasq, host, tap

    _enter(netns, "host status --netns")
    work, settings = host.status(_settings(instances, bridge, config))
    document = _document(work, settings, state=work.state)
    leases = {lease.mac: lease.address for lease in dnsmasq.guests()}
    busy = sorted(tap.busy_numbers())
    document |= {
        "served": work.observed.instances,
        "conflicts": [{"object": c.object, "reason": c.reason, "adoptable": c.adoptable} for c in work.conflicts],
        "servers": [{"bridge": s.bridge, "pid": s.pid, "ours": s.marked} for s in work.observed.servers],
        "guests": [_guest(number, leases) for number in busy],
    }
    if work.desired.pod:
        document["pod"] = _pod_document(work.desired.pod)

    def show() -> None:
        served = work.observed.instances
        print(f"{work.state}: {_STATES[work.state].format(_plural(served, 'instance'))}")
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
        _show_changes(work.changes, done=False)
        if work.changes and not work.conflicts:
            print("Mend it with: sudo cfctl host setup")
        elif work.conflicts:
            print("See what helps: cfctl host plan")

    return Answer(document, show, _DIFFERS if work.changes or work.conflicts else 0)


@verb(app, "run")
def run(
    *,
    config: Config = None,
    pod: PodMode = False,
    netns: Netns = None,
    deadline: Annotated[
        float, typer.Option("--deadline", metavar="SECONDS", min=1, help="How long the VM has to take its address.")
    ] = 180,
) -> Answer:
    """Set up, stay in front, and take everything down at the end: a container's entry point.

    Only with --pod. When the VM has not taken the pod's address before the deadline, the pod gets it back, and the
    exit status is 5. SIGTERM ends it.

    \b
    Examples:
      cfctl host run --pod
      cfctl host run --pod --deadline 600
    """
    import signal
    import threading

    from cfctl.errors import UsageError
    from cfctl.hostres import pod_mode
    from cfctl.steps import note

    if not pod:
        raise UsageError("host run needs --pod", "On a host, setup and teardown are two commands.", None)
    _enter(netns, "host run --pod")
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    work = pod_mode.run(
        _settings(None, None, config),
        deadline_s=deadline,
        stop=stop,
        named=netns is not None,
        confirmed=lambda address: note(f"The VM has {address}."),
    )
    return _answer(work, None, done=True)


def _set_pod_up(
    instances: int | None, config: Path | None, netns: Path | None, *, adopt: bool, force: bool, dry_run: bool
) -> Answer:
    from cfctl.errors import UsageError
    from cfctl.hostres import pod_mode

    if adopt or instances not in (None, 1):
        raise UsageError("a pod has one address, for one instance", "--pod goes with no --adopt, and no --instances.")
    _enter(netns, "host setup --pod")
    act = pod_mode.check if dry_run else pod_mode.setup
    work = act(_settings(None, None, config), named=netns is not None, force=force)
    return _answer(work, None, done=not dry_run)


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


@verb(app, "doctor")
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
            metavar="DIR",
            help="Look also for the shared libraries of this package's programs.",
            show_default=False,
        ),
    ] = None,
    instances: Instances = None,
    bridge: Bridge = None,
    config: Config = None,
) -> Answer:
    """Look at everything that decides whether devices run here, and say what mends it; exit 4 if something lacks.

    Changes nothing without --fix, which needs root. Anybody may ask; what only root can see is said to be unknown.

    \b
    Examples:
      cfctl host doctor
      sudo cfctl host doctor --instances 20
      sudo cfctl host doctor --fix
      cfctl host doctor --host-package ./cvd-host_package
      cfctl host doctor --json | jq -r '.findings[] | select(.result == "fail") | .help'
    """
    from cfctl.cli import doctor as shown
    from cfctl.hostres import doctor as examination
    from cfctl.hostres import host
    from cfctl.hostres.doctor import facts
    from cfctl.hostres.doctor import fix as repair
    from cfctl.steps import step

    if fix:
        repair.require_root()
    count, subnets = host.expected(_settings(instances, bridge, config))

    def look() -> examination.Report:
        with step("boot a kernel under KVM"):
            trial = _trial()
        with step("look at the host"):
            return examination.examine(
                facts.gather(trial, instances=count, subnets=subnets), host_package=host_package
            )

    report, mended = repair.until_done(look) if fix else (look(), [])
    document = examination.document(report, mended)
    return Answer(document, lambda: shown.show(report, mended), _LACKS if document["result"] == "fail" else 0)


def _trial() -> Kvm:
    """Ask the embedded guest, which the doctor itself must not know, whether KVM works."""
    from cfctl.errors import CfctlError
    from cfctl.guest import kvm
    from cfctl.hostres.doctor.facts import Kvm

    try:
        verdict = kvm.usable()
    except (CfctlError, OSError) as exc:
        return Kvm(ok=None, reason=f"not known: {getattr(exc, 'brief', exc)}")
    return Kvm(ok=verdict.ok if verdict.known else None, reason=verdict.reason)


_STATES = {
    "ready": "the host serves {}",
    "absent": "nothing is set up here",
    "drift": "the host serves {}, but not as it should",
}


def _settings(instances: int | None, bridge: str | None, file: Path | None) -> Settings:
    from cfctl import config

    return config.load(config_file=file, flags={"host.instances": instances, "host.bridge": bridge})


def _chosen(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings of the host that somebody has chosen, as one writes them in the environment."""
    for name, found in settings.values.items():
        if name.startswith("host.") and name != "host.instances" and found.origin != "built-in":
            value = ",".join(found.value) if isinstance(found.value, tuple) else str(found.value)
            yield name, value.lower() if isinstance(found.value, bool) else value or "none"


def _answer(work: Plan, settings: Settings | None, *, done: bool) -> Answer:
    state = ("ready" if work.desired.instances else "absent") if done else work.state

    def show() -> None:
        for line in _unchecked(work):
            print(f"unchecked  {line}")
        _show_changes(work.changes, done=done)
        if done and work.desired.pod:
            print(f"The VM of instance 1 gets the pod's address {work.desired.pod.address}.")
        elif done and work.desired.instances:
            print(f"The host serves {_plural(work.desired.instances, 'instance')}.")
        elif done:
            print("Nothing of cfctl is left on the host.")

    return Answer(_document(work, settings, state=state), show, 0 if done or not work.changes else _DIFFERS)


def _document(work: Plan, settings: Settings | None, *, state: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "state": state,
        "instances": work.desired.instances,
        "changes": [{"action": c.action, "object": c.object, "reason": c.reason} for c in work.changes],
        "unchecked": _unchecked(work),
    }
    if settings is not None:
        document["settings"] = {
            name: {"value": value.value, "origin": value.origin}
            for name, value in settings.values.items()
            if name.startswith("host.")
        }
    return document


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


def _unchecked(work: Plan) -> list[str]:
    return ["firewall rules: only root may read them"] if work.observed.tables is None else []


def _guest(number: int, leases: dict[str, str]) -> dict[str, Any]:
    from cfctl.instance import Instance

    mac = Instance(number).ethernet_mac
    return {"number": number, "mac": mac, "address": leases.get(mac)}


def _show_changes(changes: Sequence[Change], *, done: bool) -> None:
    """Print changes; many of one sort, such as 512 taps, as one line."""
    for (action, kind, reason), group in itertools.groupby(changes, key=lambda c: (c.action, c.kind, _sort(c))):
        several = list(group)
        if len(several) > _SHOWN:
            print(f"{action:7} {len(several)} {kind}s {_names(several)}: {reason}")
            continue
        for change in several:
            print(f"{action:7} {change.object}: {change.reason}")
    print(f"{_plural(len(changes), 'change')}{'' if done or not changes else ' to make'}.")


def _names(changes: Sequence[Change]) -> str:
    """Return what says where many changes are: the first and the last tap, the chain of rules."""
    where, colon, _ = changes[0].name.partition(": ")
    return f"in {where}" if colon else f"{where} ... {changes[-1].name}"


def _sort(change: Change) -> str:
    """Return what changes of one sort have in common; taps that go say their own number each."""
    return "no longer needed" if change.action == "remove" and change.kind == "tap" else change.reason


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
