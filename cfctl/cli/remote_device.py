"""The life of devices behind a relay: the twins of the verbs in ``device``, with the same arguments and answers."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from cfctl.cli import device as here
from cfctl.cli import elsewhere
from cfctl.cli.common import Answer, answer_several
from cfctl.cli.ps import table
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


_STATES_UP = {"preparing", "booting", "running", "suspended", "stopping", "unreachable"}


def ps(*, watch: bool, all_contexts: bool, json_: bool) -> Answer | None:
    """List the devices behind a relay."""
    from cfctl.cli import ps as listing
    from cfctl.remote import calls

    if all_contexts:
        return listing.everywhere(watch=watch)
    if watch:
        with listing.drawing(json_=json_) as draw:
            live = not json_ and sys.stdout.isatty()
            elsewhere.ask(lambda relay: calls.watch(relay, draw, again_s=listing.TICK_S if live else None))
        return None
    devices = elsewhere.ask(calls.devices)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Answer({"devices": devices}, lambda: print("\n".join(table(devices, width))))


def status(*, name: str) -> Answer:
    """Show one device."""
    from cfctl.remote import calls

    found = elsewhere.ask(lambda relay: calls.device(relay, name))
    return Answer(found, lambda: here.show_document(dict(found)), 0 if found["state"] in _STATES_UP else 3)


def stop(*, names: list[str], events: bool) -> Answer:
    """Stop devices."""
    from cfctl.remote import calls

    def one(name: str) -> dict[str, Any]:
        found: dict[str, Any] = elsewhere.ask(lambda relay: calls.stop(relay, name))
        return found

    if events:
        if len(names) != 1:
            raise UsageError("--events is for one device at a time")
        return here.told(lambda: one(names[0]))
    stopped: list[dict[str, Any]] = []

    def keep(name: str) -> list[str]:
        stopped.append(one(name))
        return []

    errors = here.each("stop", names, keep)
    return answer_several({"devices": stopped}, errors)


def restart(*, name: str, wait: bool, timeout: int | None, events: bool, foreground: bool) -> Answer:
    """Stop a device if it is up, and boot it again."""
    from cfctl.remote import calls
    from cfctl.v1 import devices_pb2

    _no_foreground(foreground=foreground)
    _seconds(timeout, wait=wait)
    request = devices_pb2.RestartRequest(name=name, timeout_s=timeout or 0, no_wait=not wait)

    def work() -> dict[str, Any]:
        found: dict[str, Any] = elsewhere.ask(lambda relay: calls.restart(relay, request))
        return found

    return here.told(work) if events else _up(work())


def launch(
    *,
    words: list[str] | None,
    gpu: str,
    cpus: str | None,
    memory_mb: str | None,
    num_instances: int,
    host_package: Path | None,
    images: Path | None,
    restart: str,
    after_boot: Path | None,
    wait: bool,
    timeout: int | None,
    events: bool,
    force: bool,
    foreground: bool,
    quiet: bool,
) -> Answer | None:
    """Boot a new device behind a relay; Ctrl-C has it taken down again there."""
    from cfctl.remote import calls
    from cfctl.v1 import devices_pb2

    del quiet
    _no_foreground(foreground=foreground)
    for option, given in (("--after-boot", after_boot), ("--force", force)):
        if given:
            raise UsageError(f"{option} is not done through a relay", None, "Use it on the relay's host.")
    _seconds(timeout, wait=wait)
    name, flags = here.split(words or [])
    request = devices_pb2.LaunchRequest(
        name=name or "",
        # Names of the cache there; what is a path here means nothing there, and is refused.
        host_package=str(host_package or ""),
        images=str(images or ""),
        gpu=gpu,
        num_instances=num_instances,
        cpus=_numbers("--cpus", cpus),
        memory_mb=_numbers("--memory-mb", memory_mb),
        flags=_joined(flags),
        restart=restart,
        timeout_s=timeout or 0,
        no_wait=not wait,
    )

    def work() -> dict[str, Any]:
        found: dict[str, Any] = elsewhere.ask(lambda relay: calls.launch(relay, request))
        return found

    return here.told(work) if events else _up(work())


def _no_foreground(*, foreground: bool) -> None:
    if foreground:
        raise UsageError("--foreground is not done through a relay", "The device runs there, with nobody beside it.")


def _seconds(timeout: int | None, *, wait: bool) -> None:
    if timeout is not None and not wait:
        raise UsageError("--timeout and --no-wait contradict each other", "Without waiting nobody watches the clock.")


def _numbers(option: str, text: str | None) -> list[int]:
    found = here.per_instance(option, text)
    return [] if found is None else list(found) if isinstance(found, tuple) else [found]


def _joined(words: list[str]) -> list[str]:
    """Return flags in the form that the API has them in: ``--x_res 700`` is ``--x_res=700``, as launch_cvd has it."""
    flags: list[str] = []
    for word in words:
        if flags and flags[-1].startswith("-") and "=" not in flags[-1] and not word.startswith("-"):
            flags[-1] += f"={word}"
        else:
            flags.append(word)
    return flags


def _up(found: dict[str, Any]) -> Answer:
    """Answer with a device that was started, and say what a user wants to know next."""

    def show() -> None:
        name = found["name"]
        print(f"{name} is {found['state']}; GPU mode {found['gpu_mode']}: {found['gpu_reason']}")
        print(f"  Go on with: cfctl adb {name}, cfctl logs {name}, cfctl stop {name}, with the same --relay")

    return Answer(found, show)
