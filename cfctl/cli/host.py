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


@verb(app, "setup")
def setup(
    *,
    instances: Instances = None,
    bridge: Bridge = None,
    config: Config = None,
    dry_run: DryRun = False,
    adopt: Adopt = False,
    force: Force = False,
) -> Answer:
    """Make the host ready: taps, bridges, NAT, DHCP.

    Makes what is missing, mends what is not as it should be, removes what is too much. Needs root. A second call does
    nothing; another number adds or removes the difference and leaves running devices alone. Another bridge or other
    subnets move the devices, which is refused while they run.

    \b
    Examples:
      sudo cfctl host setup
      sudo cfctl host setup --instances 4
      sudo cfctl host setup --bridge br0
      sudo CFCTL_HOST_DNS=host cfctl host setup
      cfctl host setup --instances 4 --dry-run
    """
    from cfctl.hostres import host

    act = host.check if dry_run else host.setup
    work, settings = act(_settings(instances, bridge, config), adopt=adopt, force=force)
    return _answer(work, settings, done=not dry_run)


@verb(app, "plan")
def plan(
    *, instances: Instances = None, bridge: Bridge = None, config: Config = None, adopt: Adopt = False
) -> Answer:
    """Say what setup would do, and why.

    The exit status is 3 if it would do anything.

    \b
    Examples:
      cfctl host plan
      cfctl host plan --instances 64 --json
      cfctl host plan --bridge br0
    """
    from cfctl.hostres import host

    work, settings = host.check(_settings(instances, bridge, config), adopt=adopt, force=True)
    return _answer(work, settings, done=False)


@verb(app, "teardown")
def teardown(*, dry_run: DryRun = False, force: Force = False) -> Answer:
    """Remove everything that setup has made.

    Whatever the settings say now. Needs root. Refuses while devices are up. IP forwarding and group cvdnetwork stay.

    \b
    Examples:
      sudo cfctl host teardown
      cfctl host teardown --dry-run
    """
    from cfctl.hostres import host

    work = host.check_teardown(force=force) if dry_run else host.teardown(force=force)
    return _answer(work, None, done=not dry_run)


@verb(app, "status")
def status(*, instances: Instances = None, bridge: Bridge = None, config: Config = None) -> Answer:
    """Tell whether the host is ready.

    The exit status is 3 if setup would have something to do. Anybody may ask; only root can read the firewall rules.

    \b
    Examples:
      cfctl host status
      cfctl host status --json
    """
    from cfctl.hostres import dnsmasq, host, tap

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

    def show() -> None:
        served = work.observed.instances
        print(f"{work.state}: {_STATES[work.state].format(_plural(served, 'instance'))}")
        print(f"instances  {settings['host.instances']} ({settings.origin('host.instances')})")
        for name, value in _chosen(settings):
            print(f"setting    {name} = {value} ({settings.origin(name)})")
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
        if done and work.desired.instances:
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
