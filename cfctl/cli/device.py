"""The verbs of a device: launch, stop, restart, ps, status, logs, adb, rm."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, print_json, verb
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.launch.observe import Device


def _names() -> list[str]:
    from cfctl.launch import registry

    return [record.name for record in registry.load_all()]


Name = Annotated[str, typer.Argument(help="The device.", metavar="NAME", autocompletion=_names)]
Target = Annotated[
    str,
    typer.Argument(help="The device; NAME/2 is its second instance.", metavar="NAME", autocompletion=_names),
]
Timeout = Annotated[int | None, typer.Option(help="Seconds that it may take to boot [default: 600].", min=1)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has booted, or when it is started.")]


def register(app: typer.Typer) -> None:
    """Add the device verbs to the command line."""
    verb(app, "launch")(launch)
    verb(app, "stop")(stop)
    verb(app, "restart")(restart)
    verb(app, "ps")(ps)
    verb(app, "status")(status)
    verb(app, "logs")(logs)
    verb(app, "adb", passes_flags=True)(adb)
    verb(app, "rm")(rm)


def launch(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [-- FLAGS]",
            help="What to call the device [default: cvd-N]; after -- further flags of launch_cvd.",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[str, typer.Option(help="auto, or a GPU mode (see cfctl gpu probe).", metavar="MODE")] = "auto",
    cpus: Annotated[int | None, typer.Option(help="Virtual processors of each instance.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="Memory of each instance in MiB.")] = None,
    num_instances: Annotated[int, typer.Option(help="How many instances the device has.")] = 1,
    host_package: Annotated[
        Path | None,
        typer.Option(help="An unpacked host package [default: the embedded Linux guest].", metavar="DIR"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Directory with the guest's images [default: the host package's].", metavar="DIR"),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = None,
    events: Annotated[
        bool,
        typer.Option("--events", help="Print each phase of the boot as a line of JSON.", show_default=False),
    ] = False,
    quiet: bool = False,
) -> Answer | None:
    """Boot a new device and wait until it is up.

    Without a host package, a small Linux guest is booted that proves the host; it is built on first use.

    \b
    Examples:
      cfctl launch
      cfctl launch phone --gpu auto --cpus 4 --memory-mb 4096 --host-package ~/cf --images ~/cf
      cfctl launch farm --num-instances 4 --no-wait
      cfctl launch phone --host-package ~/cf -- --x_res=1080 --y_res=1920
    """
    from cfctl.launch import launcher
    from cfctl.launch.registry import Request

    name, flags = _split(words or [])
    request = Request(
        host_package=os.fspath(_package(host_package)),
        gpu=gpu,
        cpus=cpus,
        memory_mb=memory_mb,
        num_instances=num_instances,
        images=os.fspath(images.absolute()) if images else None,
        flags=tuple(flags),
    )
    if not events:
        device = launcher.launch(name, request, timeout=_timeout(timeout), wait=wait)
        return Answer(device.as_dict(), lambda: _show_up(device))
    try:
        with steps.reporting(Events()):
            device = launcher.launch(name, request, timeout=_timeout(timeout), wait=wait)
    except CfctlError as error:
        print_json({"event": "error", "error": error.as_dict()})
        raise
    print_json({"event": "device", "device": device.as_dict()})
    return None


def restart(*, name: Name, wait: Wait = True, timeout: Timeout = None) -> Answer:
    """Stop a device if it is up, and boot it again as it was launched.

    \b
    Examples:
      cfctl restart phone
    """
    from cfctl.launch import launcher, registry

    device = launcher.restart(registry.load(name), timeout=_timeout(timeout), wait=wait)
    return Answer(device.as_dict(), lambda: _show_up(device))


def stop(*, names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The devices.")]) -> Answer:
    """Stop devices. Their disks and logs are kept.

    \b
    Examples:
      cfctl stop phone
      cfctl stop phone tablet --json
    """
    from cfctl.launch import manage

    stopped = []
    for name in names:
        with steps.step(f"stop {name}"):
            device, said = manage.stop_device(name)
        for line in said:
            steps.note(line)
        stopped.append(device)
    return Answer(_devices(stopped), lambda: None)


def rm(
    *,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The devices.")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Stop it first if it is up.", show_default=False)
    ] = False,
) -> Answer:
    """Remove devices with their disks and logs.

    \b
    Examples:
      cfctl rm phone
      cfctl rm --force phone tablet
    """
    from cfctl.launch import manage

    for name in names:
        with steps.step(f"remove {name}"):
            said = manage.remove_device(name, force=force)
        for line in said:
            steps.note(line)
    return Answer({"removed": names}, lambda: None)


def ps(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every second.", show_default=False)
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.", show_default=False)
    ] = False,
) -> Answer | None:
    """List your devices.

    \b
    Examples:
      cfctl ps
      cfctl ps --watch
      cfctl ps --json
    """
    from cfctl.launch import observe

    if not watch:
        devices = observe.devices()
        return Answer(_devices(devices), lambda: print(_table(devices)))
    while True:
        devices = observe.devices()
        if json_:
            print_json(_devices(devices))
        else:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            print(f"{clear}{_table(devices)}", flush=True)
        time.sleep(1)


def status(*, name: Name) -> Answer:
    """Show one device; the exit status is 3 if it is not up.

    \b
    Examples:
      cfctl status phone
      cfctl status phone --json | jq -r '.instances[0].adb'
    """
    from cfctl.launch import observe

    device = observe.device(name)
    return Answer(device.as_dict(), lambda: _show(device), 0 if device.state.is_up else 3)


def logs(
    *,
    target: Target,
    which: Annotated[
        str, typer.Option(help="kernel (the guest's console), launcher (run_cvd), launch (launch_cvd).")
    ] = "kernel",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.", show_default=False)] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", help="Only the last so many lines.", min=0)] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print each line as a JSON document.", show_default=False)
    ] = False,
) -> None:
    """Print a log of a device.

    \b
    Examples:
      cfctl logs phone
      cfctl logs phone/2 --which launcher -f
      cfctl logs phone -n 20
    """
    from cfctl.launch import boot, manage, observe

    name, position = manage.target(target)
    log = manage.log_file(observe.device(name), position, which)

    def show(line: str) -> None:
        if json_:
            print_json({"line": line})
        else:
            print(line, flush=follow)

    if not log.exists():
        raise UsageError(
            f"{name} has no {which} log yet", f"It would be {log}.", f"See its state: cfctl status {name}"
        )
    source: Iterable[str]
    if follow:
        source = manage.follow(log)
    elif lines is not None:
        source = boot.last_lines(log, lines) if lines else []
    else:
        source = log.read_text(errors="replace").splitlines()
    for line in source:
        show(line)


def adb(
    *,
    target: Target,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]", help="What adb is to do [default: shell].", show_default=False),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    """Run adb against a device; everything after the name is adb's.

    \b
    Examples:
      cfctl adb phone
      cfctl adb phone shell getprop ro.product.model
      cfctl adb phone/2 install app.apk
    """
    from cfctl.launch import manage

    if json_:
        raise UsageError("adb is interactive and has no --json")
    manage.run_adb(target, args or [])


class Events:
    """The reporter of ``--events``: one JSON document per line on standard output."""

    def begin(self, title: str) -> None:
        """Print nothing: the end of the step is what counts."""

    def finish(self, title: str, seconds: float, *, ok: bool) -> None:
        """Print a finished step."""
        print_json({"event": "step", "title": title, "seconds": round(seconds, 3), "ok": ok})

    def note(self, text: str) -> None:
        """Print a note."""
        print_json({"event": "note", "text": text})

    def phase(self, name: str, detail: str, seconds: float) -> None:
        """Print a boot phase."""
        print_json({"event": "phase", "phase": name, "detail": detail, "seconds": round(seconds, 3)})


# -- helpers -----------------------------------------------------------------------------------------------


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Split ``[NAME] [-- FLAGS]``; click has taken the ``--`` out, and a name cannot begin with a dash."""
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    return None, words


def _package(given: Path | None) -> Path:
    if given is not None:
        return given.expanduser().absolute()
    from cfctl.guest import package

    return package.ensure()


def _timeout(flag: int | None) -> int:
    from cfctl import config

    seconds: int = config.load(flags={"launch.timeout": flag})["launch.timeout"]
    return seconds


def _devices(devices: list[Device]) -> dict[str, Any]:
    return {"devices": [device.as_dict() for device in devices]}


def _show_up(device: Device) -> None:
    """Say what a user wants to know next about a device that was started."""
    record = device.record
    print(f"{record.name} is {device.state.value}; GPU mode {record.gpu_mode}: {record.gpu_reason}")
    for instance in record.instances:
        print(f"  {instance.id:<8} adb connect {instance.adb}")
    print(f"  Go on with: cfctl adb {record.name}, cfctl logs {record.name}, cfctl stop {record.name}")


def _show(device: Device) -> None:
    document = device.as_dict()
    instances = document.pop("instances")
    failure = document.pop("failure", None)
    for key, value in document.items():
        if value is not None:
            print(f"{key.replace('_', ' '):<13} {value}")
    if failure:
        print(f"{'failure':<13} {failure['brief']}")
    for instance in instances:
        vm = f"VM process {instance['vm_pid']}" if instance["vm_pid"] else "no VM process"
        print(f"instance {instance['number']:<4} adb {instance['adb']}, vsock CID {instance['vsock_cid']}, {vm}")


def _table(devices: list[Device]) -> str:
    """Return the table of ``ps``; plain text, because drawing one with rich takes longer than all the rest."""
    if not devices:
        return "There are no devices. Boot one with: cfctl launch"
    rows = [("NAME", "STATE", "GPU", "ADB", "SINCE", "HOST PACKAGE")]
    for device in devices:
        record = device.record
        addresses = ",".join(instance.adb for instance in record.instances)
        since = (record.started_at or record.created_at)[:19].replace("T", " ")
        package = Path(record.request.host_package)
        rows.append((record.name, device.state.value, record.gpu_mode, addresses, since, package.name))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
