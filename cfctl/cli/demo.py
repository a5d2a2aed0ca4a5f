"""``cfctl demo``: the whole path once, from an empty host to a VM that answers over ADB, and back."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli import progress
from cfctl.cli.colour import use_colour
from cfctl.cli.common import Answer, console, verb
from cfctl.cli.elsewhere import MACHINE
from cfctl.errors import CfctlError, NeedsRoot

if TYPE_CHECKING:
    from cfctl.launch.observe import Device

#: What the device of the demo is called.
_NAME = "demo"

#: Said before the first change.
_WILL_CHANGE = (
    "On this host, until the end of the demo: bridges cvd-ebr and cvd-wbr, taps cvd-*-01, three nftables tables and "
    "two dnsmasq processes on those bridges. For good: group cvdnetwork, and IP forwarding (net.ipv4.ip_forward and "
    "net.ipv6.conf.all.forwarding) stays on."
)

#: How long the embedded guest may take on a slow machine without KVM.
_BOOT_S = 180


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb(app, "demo", remote=MACHINE)(demo)


@dataclass
class _Report:
    """What was done, and how long it took."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Time a step; what the block appends is its result."""
        said: list[str] = []
        started = time.monotonic()
        with steps.step(title):
            yield said
        self.rows.append((title, time.monotonic() - started, "; ".join(said)))


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the device running and the network up.", show_default=False)
    ] = False,
) -> Answer:
    """Show the whole path once, and undo it.

    Prepare the host, boot a VM, talk to it over ADB, take everything down again.

    Uses this host's network. Refuses, changing nothing, if upstream's service has set it up already.

    \b
    Examples:
      cfctl demo
      cfctl demo --keep
    """
    from cfctl import signals

    if os.geteuid() != 0:
        raise NeedsRoot("demo")
    report = _Report()
    outcome: dict[str, Any] = {}
    undo = contextlib.ExitStack()
    try:
        _run(report, outcome, undo, keep=keep)
    except BaseException:
        with signals.undisturbed():
            undo.close()
        raise
    if not keep:
        with signals.undisturbed():
            undo.close()
    document = {
        **outcome,
        "steps": [{"title": title, "seconds": round(s, 2), "result": said} for title, s, said in report.rows],
        "kept": keep,
    }
    return Answer(document, lambda: _show(report, outcome, keep=keep))


def _run(report: _Report, outcome: dict[str, Any], undo: contextlib.ExitStack, *, keep: bool) -> None:
    """Do all steps; what must be undone goes onto ``undo``, also when a later step fails."""
    from cfctl import api, gpu, process
    from cfctl.launch import launcher, registry

    for program in ("ip", "nft", "dnsmasq", "adb"):
        process.require(program)
    if any(record.name == _NAME for record in registry.load_all()):
        raise CfctlError(
            "a device named 'demo' is there already",
            "It was kept by an earlier demo, or is yours.",
            f"Remove it: cfctl rm --force {_NAME}",
        )
    _prepare_host(report, undo)
    with report.step("build the guest") as said:
        built = api.embedded_package()
        said.append(f"kernel, busybox and adbd of the distribution, in {built.name}")
    request = registry.Request(host_package=os.fspath(built))
    with report.step("ask the GPU drivers") as said:
        # For the embedded guest nothing depends on them; for the Android guests that come next everything does.
        android = gpu.choose("auto", vm_manager=gpu.CROSVM, guest=gpu.guest.assumed(gfxstream=True))
        said.append(f"an Android guest would get {android.mode}")
    outcome["android_gpu"] = {"mode": android.mode, "reason": android.reason}
    with report.step("boot a VM") as said:
        device = launcher.launch(_NAME, request, timeout=_BOOT_S, brief=not keep)
        undo.callback(_take_down_device, report)
        said += [f"{Path(p.argv[0]).name}, process {p.pid}" for p in device.processes if p.is_vm]
    outcome["device"] = device.as_dict()
    with report.step("ask it over ADB: uname -a") as said:
        outcome["uname"] = _uname(device, keep=keep)
        said.append(f"{device.record.instances[0].adb} answers")


def _prepare_host(report: _Report, undo: contextlib.ExitStack) -> None:
    """Set the network up for one instance, unless ours is there already; then it is used, and left as it is."""
    from cfctl import config
    from cfctl.hostres import host

    work, _ = host.status(config.load())
    if work.state == "ready" and work.desired.instances:
        steps.note(f"The host network is set up already, for {work.desired.instances} instances: it is left so.")
        return
    settings = config.load(flags={"host.instances": 1})
    work, _ = host.check(settings)
    if work.state != "absent":
        raise CfctlError(
            "the host network is set up, but not as it should be",
            "\n".join(f"{change.object}: {change.reason}" for change in work.changes[:10]),
            "Mend it: cfctl host setup\nOr take it down: cfctl host teardown",
        )
    steps.note(_WILL_CHANGE)
    with report.step("set up the host network") as said:
        undo.callback(_take_down_host, report)
        work, _ = host.setup(settings)
        said.append(f"{len(work.changes)} changes: bridges, taps, addresses, NAT, DHCP")


def _take_down_host(report: _Report) -> None:
    from cfctl.hostres import host

    with report.step("take the host network down") as said:
        said.append(f"{len(host.teardown().changes)} changes")


def _take_down_device(report: _Report) -> None:
    from cfctl.launch import manage

    with report.step("stop and remove the VM") as said:
        said.extend(manage.remove_device(_NAME, force=True) or ["its processes, sockets and disks are gone"])


def _uname(device: Device, *, keep: bool) -> str:
    """Ask the guest's kernel over ADB; with a server of our own, so that none is left behind."""
    from cfctl import process
    from cfctl.launch import adb

    serial = device.record.instances[0].adb
    env = dict(os.environ)
    if not keep:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            env["ANDROID_ADB_SERVER_PORT"] = str(probe.getsockname()[1])
    try:
        adb.connect(serial, env=env)
        return process.run(["adb", "-s", serial, "shell", "uname", "-a"], timeout=30, env=env).stdout.strip()
    finally:
        if not keep:
            process.run(["adb", "kill-server"], timeout=30, env=env, success=None)


def _show(report: _Report, outcome: dict[str, Any], *, keep: bool) -> None:
    """Sum up: the steps have been shown as they were done, so only what they brought is said again."""
    device = outcome["device"]
    results = [(title, progress.duration(seconds), said) for title, seconds, said in report.rows]
    answers = [
        ("the VM says", outcome["uname"]),
        ("GPU mode", f"{device['gpu_mode']}: {device['gpu_reason']}"),
        ("for Android", "{mode}: {reason}".format(**outcome["android_gpu"])),
    ]
    if use_colour(sys.stdout):
        from rich.table import Table
        from rich.text import Text

        table = Table(show_edge=False, box=None, padding=(0, 2, 0, 0))
        table.add_column("step")
        table.add_column("time", justify="right", style="cyan")
        table.add_column("result", overflow="fold")
        for row in results:
            table.add_row(*row)
        board = console()
        board.print()
        board.print(table)
        board.print()
        said_by = Table.grid(padding=(0, 2, 0, 0))
        for title, text in answers:
            said_by.add_row(f"[bold green]{title}[/]", Text(text))
        board.print(said_by)
    else:
        for title, seconds, said in results:
            print(f"{seconds:>7}  {title}{f': {said}' if said else ''}")
        for title, text in answers:
            print(f"{title}: {text}")
    if keep:
        print(f"It runs on. Look around: cfctl adb {_NAME}, cfctl ps, cfctl logs {_NAME} -f")
        print(f"Take it down: cfctl rm --force {_NAME} && cfctl host teardown")
    else:
        print("Everything was taken down again. To keep it running: cfctl demo --keep")
