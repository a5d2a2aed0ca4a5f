"""The life of a device: launch, stop, restart, ps, status, rm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli import foreground as foreground_
from cfctl.cli.common import Answer, answer_several, print_json, verb
from cfctl.cli.complete import device_names, gpu_modes, host_packages
from cfctl.cli.complete import images as images_
from cfctl.cli.ps import ps, size, uptime
from cfctl.errors import CfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.launch.census import Listed
    from cfctl.launch.observe import Device


#: What does the same through a relay.
_TWINS = "cfctl.cli.remote_device"

Name = Annotated[str, typer.Argument(help="The device.", metavar="NAME", autocompletion=device_names)]
Target = Annotated[
    str,
    typer.Argument(help="The device; NAME/2 is its second instance.", metavar="NAME", autocompletion=device_names),
]
Names = Annotated[
    list[str], typer.Argument(help="The devices.", metavar="NAME...", autocompletion=device_names, show_default=False)
]
Timeout = Annotated[int | None, typer.Option(help="Seconds that it may take to boot [default: 600].", min=1)]
Events = Annotated[
    bool, typer.Option("--events", help="Print each step and phase as a line of JSON.", show_default=False)
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has booted, or when it is started.")]


def register(app: typer.Typer) -> None:
    """Add the device verbs to the command line."""
    verb(app, "launch", remote=f"{_TWINS}:launch")(launch)
    verb(app, "stop", remote=f"{_TWINS}:stop")(stop)
    verb(app, "restart", remote=f"{_TWINS}:restart")(restart)
    verb(app, "ps", remote=f"{_TWINS}:ps")(ps)
    verb(app, "status", remote=f"{_TWINS}:status")(status)
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
    cpus: Annotated[
        str | None,
        typer.Option(help="Virtual processors of each instance; or one each: 2,4.", metavar="N,..."),
    ] = None,
    memory_mb: Annotated[
        str | None, typer.Option(help="Memory of each instance in MiB; or one number each.", metavar="N,...")
    ] = None,
    num_instances: Annotated[int, typer.Option(help="How many instances the device has.")] = 1,
    host_package: Annotated[
        Path | None,
        typer.Option(
            help="A host package: cvd-host_package.tar.gz, the directory it was unpacked into, or a name of "
            "cfctl images list [default: $ANDROID_HOST_OUT, or the embedded Linux guest].",
            metavar="DIR|TAR|NAME",
            autocompletion=host_packages,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The guest's images: a zip, a directory with *.img, or a name of cfctl images list "
            "[default: the host package's, or $ANDROID_PRODUCT_OUT].",
            metavar="DIR|ZIP|NAME",
            autocompletion=images_,
        ),
    ] = None,
    restart: Annotated[
        str,
        typer.Option(
            help="Boot it again by itself: no, on-failure (it died) or always (also after the host was booted).",
            metavar="POLICY",
            autocompletion=lambda: ["no", "on-failure", "always"],
        ),
    ] = "no",
    after_boot: Annotated[
        Path | None,
        typer.Option(help="adb commands, one a line, or an APK: done before it counts as ready.", metavar="FILE"),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = None,
    events: Events = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", help="Even if it does not fit into memory or onto the disk.", show_default=False
        ),
    ] = False,
    foreground: foreground_.Foreground = False,
    quiet: bool = False,
) -> Answer | None:
    """Boot a new device and wait until it is up.

    Without a host package, a small Linux guest is booted that proves the host; it is built on first use.

    \b
    Examples:
      cfctl launch
      cfctl launch phone --gpu auto --cpus 4 --memory-mb 4096 --host-package ~/cf --images ~/cf
      cfctl launch phone --host-package cvd-host_package.tar.gz --images aosp_cf_x86_64_phone-img-123.zip
      cfctl launch phone --host-package nightly --images nightly-images
      cfctl launch farm --num-instances 4 --no-wait
      cfctl launch phone --host-package ~/cf -- --x_res=1080 --y_res=1920
      cfctl launch phone --restart always --after-boot app.apk
    """

    def launched() -> Device:
        foreground_.check(foreground=foreground, wait=wait, events=events)
        options: dict[str, Any] = {
            "gpu": gpu,
            "cpus": per_instance("--cpus", cpus),
            "memory_mb": per_instance("--memory-mb", memory_mb),
            "num_instances": num_instances,
            "restart": restart,
            "after_boot": os.fspath(after_boot.expanduser().absolute()) if after_boot else None,
        }
        seconds = _timeout(timeout, wait=wait)
        return _launch(words or [], host_package, images, options, timeout=seconds, wait=wait, force=force)

    if events:
        return told(lambda: launched().as_dict())
    device = launched()
    return foreground_.attended(device) if foreground else Answer(device.as_dict(), lambda: show_up(device))


def told(work: Callable[[], dict[str, Any]]) -> Answer:
    """Do something to a device, and tell of it by events; the device is the last, or an error.

    :param work: returns the device's document.
    """
    with steps.reporting(steps.Events(print_json)):
        try:
            device = work()
        except CfctlError as error:
            failed = {"event": "error", "error": error.as_dict()}
            return Answer(failed, lambda: print_json(failed), error.exit_code)
    document = {"event": "device", "device": device}
    return Answer(document, lambda: print_json(document))


def _launch(
    words: list[str],
    host_package: Path | None,
    images: Path | None,
    options: dict[str, Any],
    *,
    timeout: int,
    wait: bool,
    force: bool,
) -> Device:
    from cfctl import api
    from cfctl.launch import flagpaths, launcher
    from cfctl.launch.registry import Request

    name, flags = split(words)
    with api.chosen(host_package, images) as (package, guest):
        absolute = tuple(flagpaths.absolute(flags, Path.cwd()))
        request = Request(host_package=package, images=guest, flags=absolute, **options)
        return launcher.launch(name, request, timeout=timeout, wait=wait, force=force)


def restart(
    *,
    name: Name,
    wait: Wait = True,
    timeout: Timeout = None,
    events: Events = False,
    foreground: foreground_.Foreground = False,
) -> Answer:
    """Boot a device again as it was launched; stop it first.

    \b
    Examples:
      cfctl restart phone
      cfctl restart phone --foreground
    """
    from cfctl.launch import launcher

    foreground_.check(foreground=foreground, wait=wait, events=events)
    seconds = _timeout(timeout, wait=wait)
    if events:
        return told(lambda: launcher.restart(name, timeout=seconds, wait=wait).as_dict())
    device = launcher.restart(name, timeout=seconds, wait=wait)
    return foreground_.attended(device) if foreground else Answer(device.as_dict(), lambda: show_up(device))


def stop(*, names: Names, events: Events = False) -> Answer:
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

    stopped: list[Listed] = []
    if events:
        if len(names) != 1:
            raise UsageError("--events is for one device at a time")

        def last() -> dict[str, Any]:
            each("stop", names, one)
            return stopped[0].as_dict()

        return told(last)
    errors = each("stop", names, one)
    return answer_several({"devices": [device.as_dict() for device in stopped]}, errors)


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
    errors = each("remove", names, one)
    return answer_several({"removed": removed}, errors)


def each(what: str, names: list[str], one: Callable[[str], list[str]]) -> list[CfctlError]:
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


def answer_each(what: str, names: list[str], one: Callable[[str], Device]) -> Answer:
    """Do the same to several devices, and answer with what they are then."""
    devices: list[Device] = []

    def call(name: str) -> list[str]:
        devices.append(one(name))
        return []

    errors = each(what, names, call)
    return answer_several({"devices": [device.as_dict() for device in devices]}, errors)


def status(*, name: Target) -> Answer:
    """Show one device, or one instance of it.

    The exit status is 3 if it is not up.

    \b
    Examples:
      cfctl status phone
      cfctl status phone/2
      cfctl status phone --json | jq -r '.instances[0].adb'
    """
    from cfctl.launch import census, manage

    whole, position = manage.target(name)
    device = census.find(whole, position if "/" in name else None)
    return Answer(device.as_dict(), lambda: show_document(device.as_dict()), 0 if device.state.is_up else 3)


def per_instance(option: str, text: str | None) -> int | tuple[int, ...] | None:
    """Read one number, or one for each instance."""
    if text is None:
        return None
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"{option} {text}: a whole number is needed, or one for each instance: 2,4")
    numbers = tuple(map(int, words))
    return numbers[0] if len(numbers) == 1 else numbers


# -- helpers -----------------------------------------------------------------------------------------------


def split(words: list[str]) -> tuple[str | None, list[str]]:
    """Split ``[NAME] [-- FLAGS]``; click has taken the ``--`` out, and a name cannot begin with a dash."""
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    return None, words


def _timeout(flag: int | None, *, wait: bool) -> int:
    from cfctl import config

    if flag is not None and not wait:
        raise UsageError("--timeout and --no-wait contradict each other", "Without waiting nobody watches the clock.")

    seconds: int = config.load(flags={"launch.timeout": flag})["launch.timeout"]
    return seconds


def show_up(device: Device) -> None:
    """Say what a user wants to know next about a device that was started."""
    record = device.record
    print(f"{record.name} is {device.state.value}; GPU mode {record.gpu_mode}: {record.gpu_reason}")
    for instance in record.instances:
        print(f"  {instance.id:<8} adb connect {instance.adb}")
    print(f"  Go on with: cfctl adb {record.name}, cfctl logs {record.name}, cfctl stop {record.name}")


def show_document(document: dict[str, Any]) -> None:
    """Show one device to people."""
    instances, name = document.pop("instances"), document["name"]
    failure = document.pop("failure", None)
    for key, value in document.items():
        if value not in (None, ""):
            print(f"{_TITLES.get(key, key.replace('_', ' ')):<13} {_for_people(key, value)}")
    if failure:
        print(f"{'failure':<13} {failure['brief']}")
    for position, instance in enumerate(instances, start=1):
        called, number = f"instance {instance['number']}", ""
        if len(instances) > 1:
            # What the verbs call it, which is not its number.
            called, number = f"{name}/{position}", f"instance {instance['number']}, "
        vm = f"VM process {instance['vm_pid']}" if instance["vm_pid"] else "no VM process"
        print(f"{called:<13} {number}adb {instance['adb']}, vsock CID {instance['vsock_cid']}, {vm}")
        if document.get("guest_memory_mb") is None and instance.get("guest_memory_mb"):
            print(f"{'  memory':<13} {size(instance['guest_memory_mb'])}")
        if instance["ports"]:
            print(f"{'  listens on':<13} {', '.join(f'{port} ({what})' for what, port in instance['ports'].items())}")


#: What is called otherwise than its key in JSON.
_TITLES = {"source": "made by", "uptime_s": "uptime", "memory_mb": "memory", "guest_memory_mb": "guest memory"}


def _for_people(key: str, value: Any) -> str:
    if key == "uptime_s":
        return uptime(value)
    return size(value) if key.endswith("memory_mb") else str(value)
