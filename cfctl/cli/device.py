"""The life of a device: launch, stop, restart, ps, status, rm."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, print_json, show_error, verb
from cfctl.cli.complete import device_names, gpu_modes
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.launch.observe import Device


Name = Annotated[str, typer.Argument(help="The device.", metavar="NAME", autocompletion=device_names)]
Names = Annotated[
    list[str], typer.Argument(help="The devices.", metavar="NAME...", autocompletion=device_names, show_default=False)
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
    gpu: Annotated[
        str,
        typer.Option(help="auto, or a GPU mode (see cfctl gpu probe).", metavar="MODE", autocompletion=gpu_modes),
    ] = "auto",
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
    options: dict[str, Any] = {
        "host_package": host_package,
        "gpu": gpu,
        "cpus": cpus,
        "memory_mb": memory_mb,
        "num_instances": num_instances,
        "images": os.fspath(images.absolute()) if images else None,
    }
    seconds = _timeout(timeout, wait=wait)
    if not events:
        device = _launch(words or [], options, timeout=seconds, wait=wait)
        return Answer(device.as_dict(), lambda: _show_up(device))
    with steps.reporting(Events()):
        try:
            device = _launch(words or [], options, timeout=seconds, wait=wait)
        except CfctlError as error:
            document = {"event": "error", "error": error.as_dict()}
            return Answer(document, lambda: print_json(document), error.exit_code)
    document = {"event": "device", "device": device.as_dict()}
    return Answer(document, lambda: print_json(document))


def _launch(words: list[str], options: dict[str, Any], *, timeout: int, wait: bool) -> Device:
    from cfctl.launch import launcher
    from cfctl.launch.registry import Request

    name, flags = _split(words)
    package = os.fspath(_package(options.pop("host_package")))
    return launcher.launch(
        name, Request(host_package=package, flags=tuple(flags), **options), timeout=timeout, wait=wait
    )


def restart(*, name: Name, wait: Wait = True, timeout: Timeout = None) -> Answer:
    """Stop a device if it is up, and boot it again as it was launched.

    \b
    Examples:
      cfctl restart phone
    """
    from cfctl.launch import launcher

    device = launcher.restart(name, timeout=_timeout(timeout, wait=wait), wait=wait)
    return Answer(device.as_dict(), lambda: _show_up(device))


def stop(*, names: Names) -> Answer:
    """Stop devices. Their disks and logs are kept.

    \b
    Examples:
      cfctl stop phone
      cfctl stop phone tablet --json
    """
    from cfctl.launch import manage

    def one(name: str) -> list[str]:
        device, said = manage.stop_device(name)
        stopped.append(device)
        return said

    stopped: list[Device] = []
    errors = _each("stop", names, one)
    return _answer({"devices": [device.as_dict() for device in stopped]}, errors)


def rm(
    *,
    names: Names,
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

    def one(name: str) -> list[str]:
        said = manage.remove_device(name, force=force)
        removed.append(name)
        return said

    removed: list[str] = []
    errors = _each("remove", names, one)
    return _answer({"removed": removed}, errors)


def _each(what: str, names: list[str], one: Callable[[str], list[str]]) -> list[CfctlError]:
    """Do the same to several devices; one that fails does not keep the others from their turn."""
    errors: list[CfctlError] = []
    for name in dict.fromkeys(names):
        try:
            with steps.step(f"{what} {name}"):
                said = one(name)
        except CfctlError as error:
            errors.append(error)
            continue
        for line in said:
            steps.note(line)
    if len(names) == 1 and errors:
        raise errors[0]
    return errors


def _answer(document: dict[str, Any], errors: list[CfctlError]) -> Answer:
    """Return the answer about several devices: what was done, and what could not be."""
    if errors:
        document["errors"] = [error.as_dict() for error in errors]

    def show() -> None:
        for error in errors:
            show_error(error, json_=False)

    return Answer(document, show, errors[0].exit_code if errors else 0)


def ps(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every second.", show_default=False)
    ] = False,
    json_: bool = False,
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


class Events:
    """The reporter of ``--events``: one JSON document per line on standard output."""

    def begin(self, title: str) -> None:
        """Print nothing: the end of the step is what counts."""

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        """Print a finished step."""
        print_json({"event": "step", "title": title, "seconds": round(seconds, 3), "ok": bool(ok)})

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
    return given.expanduser().absolute() if given is not None else embedded_package()


def embedded_package() -> Path:
    """Return the embedded host package, built if need be, on a host of which it is known whether KVM works."""
    from cfctl.guest import kvm, package

    built = package.ensure()
    if not kvm.known():
        # The launcher would find out as well, but three seconds without a word look like a fault.
        with steps.step("try whether a kernel boots under KVM (once per boot of the host)"):
            kvm.usable(package.kernel(built))
    return built


def _timeout(flag: int | None, *, wait: bool) -> int:
    from cfctl import config

    if flag is not None and not wait:
        raise UsageError("--timeout and --no-wait contradict each other", "Without waiting nobody watches the clock.")

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
