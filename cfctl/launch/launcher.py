"""Running the launcher of a host package and following the boot."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import gpu, process, steps
from cfctl.errors import CfctlError, DeadlinePassed, HostLacks, LaunchFailed, NameTaken, NoSuchDevice, UsageError
from cfctl.instance import MAX_INSTANCES
from cfctl.launch import boot, images, numbers, observe, registry, stop
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.registry import Failure, Record, Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from cfctl.locks import NumberLock
    from cfctl.process import Child

#: Flags that decide what cfctl decides; two masters would contradict each other.
_OURS = {
    "assembly_dir": None,
    "base_instance_num": "--num-instances K",
    "cpus": "--cpus N",
    "daemon": "--wait or --no-wait",
    "gpu_mode": "--gpu MODE",
    "instance_dir": None,
    "instance_nums": "--num-instances K",
    "memory_mb": "--memory-mb N",
    "num_instances": "--num-instances K",
}

#: How often the logs are looked at.
_TICK_S = 0.03


def launch(name: str | None, request: Request, *, timeout: float, wait: bool = True) -> observe.Device:
    """Make a device and boot it.

    :param name: what to call it; None makes it ``cvd-N`` after its first number.
    :param timeout: seconds that it may take to boot.
    :param wait: return when it has booted; otherwise as soon as the launcher runs.
    :return: the device, running (or booting, without ``wait``).
    :raises NameTaken, UsageError, HostLacks, NumberTaken: before anything was made.
    :raises LaunchFailed: the launcher crashed (nothing is left) or the guest did not boot (the device is left
        ``failed``, with its logs).
    :raises DeadlinePassed: it did not boot in time; it was stopped and is left ``failed``, with its logs.
    """
    started = time.monotonic()
    package = HostPackage.open(Path(request.host_package))
    _check(request)
    if name is not None:
        _check_free(name)
    with numbers.allocated(request.num_instances) as locked:
        instances = tuple(lock.instance.number for lock in locked)
        choice = choose_gpu(request)
        record = Record(
            name=name or f"cvd-{instances[0]}",
            owner=registry.owner(),
            created_at=registry.now(),
            request=request,
            numbers=instances,
            gpu_mode=choice.mode,
            gpu_reason=choice.reason,
        )
        if name is None:
            _check_free(record.name)
        registry.create(record)
        try:
            with registry.held(record):
                child = _start(record, package, locked)
        except BaseException:
            registry.remove(record)
            raise
    return _follow(record, child, started=started, timeout=timeout, wait=wait, new=True)


def restart(record: Record, *, timeout: float, wait: bool = True) -> observe.Device:
    """Stop a device, if it is up, and boot it again with what was asked for at first; its disks are kept.

    :raises CfctlError: as :func:`launch` and :func:`stop.stop`; the device stays, stopped or failed.
    """
    started = time.monotonic()
    package = HostPackage.open(Path(record.request.host_package))
    with registry.held(record):
        if record.holds_numbers:
            with steps.step(f"stop {record.name}"):
                stop.stop(record)
        with numbers.taken_again(record.numbers) as locked:
            choice = choose_gpu(record.request)
            record.gpu_mode, record.gpu_reason = choice.mode, choice.reason
            child = _start(record, package, locked)
    return _follow(record, child, started=started, timeout=timeout, wait=wait, new=False)


def _check(request: Request) -> None:
    if not 1 <= request.num_instances <= MAX_INSTANCES:
        raise UsageError(
            f"a device has 1 to {MAX_INSTANCES} instances, not {request.num_instances}",
        )
    for what, value in (("--cpus", request.cpus), ("--memory-mb", request.memory_mb)):
        if value is not None and value < 1:
            raise UsageError(f"{what} must be 1 or more, not {value}")
    for flag in request.flags:
        if not flag.startswith("-"):
            raise UsageError(
                f"{flag!r} is not a flag of launch_cvd",
                "After -- come flags in the form --flag=value.",
                "Bare on/off flags swallow the next word in some versions: always write the value.",
            )
        word = flag.lstrip("-").partition("=")[0].replace("-", "_")
        word = word if word in _OURS else word.removeprefix("no")
        if word in _OURS:
            own = _OURS[word]
            raise UsageError(
                f"{flag} cannot be handed on to the launcher",
                "cfctl sets it itself, so that names, numbers and directories stay in step.",
                f"Use: {own}" if own else None,
            )
    if request.images is not None and not Path(request.images).is_dir():
        raise UsageError(f"--images {request.images} is not a directory")


def _check_free(name: str) -> None:
    registry.check_name(name)
    try:
        device = observe.device(name)
    except NoSuchDevice:
        return
    raise NameTaken(name, device.state.value)


def choose_gpu(request: Request) -> gpu.Decision:
    """Return the GPU mode for a request: what the host can do, what the guest and the VM manager support.

    :raises UsageError: for a mode or a VM manager that does not exist.
    """
    vm_manager = HostPackage.open(Path(request.host_package)).vm_manager
    for flag in request.flags:
        key, _, value = flag.lstrip("-").partition("=")
        if key == "vm_manager" and value:
            vm_manager = value
    guest = images.supports_gfxstream(Path(request.images or request.host_package))
    return gpu.choose(request.gpu, vm_manager=vm_manager, guest_supports_gfxstream=guest)


def _flags(record: Record) -> list[str]:
    """Return the launcher's flags; always with ``=``, because some on/off flags are strings (launcher.md T5)."""
    first, count = record.numbers[0], len(record.numbers)
    flags = ["--daemon=true", f"--gpu_mode={record.gpu_mode}", "--report_anonymous_usage_stats=n"]
    if record.numbers == tuple(range(first, first + count)):
        flags += [f"--base_instance_num={first}", f"--num_instances={count}"]
    else:
        flags += [f"--instance_nums={','.join(map(str, record.numbers))}"]
    if record.request.cpus is not None:
        flags.append(f"--cpus={record.request.cpus}")
    if record.request.memory_mb is not None:
        flags.append(f"--memory_mb={record.request.memory_mb}")
    if record.request.images is not None:
        flags.append(f"--system_image_dir={','.join([record.request.images] * count)}")
    return [*flags, *record.request.flags]


def _environment(record: Record) -> dict[str, str]:
    env = dict(os.environ)
    # It would move upstream's sockets away from where everybody looks for them.
    env.pop("TMPDIR", None)
    return env | {
        "HOME": os.fspath(record.home),
        observe.MARK: os.fspath(record.home),
        "ANDROID_HOST_OUT": record.request.host_package,
        "ANDROID_PRODUCT_OUT": record.request.images or record.request.host_package,
        "CUTTLEFISH_INSTANCE": str(record.numbers[0]),
    }


def _start(record: Record, package: HostPackage, locked: Sequence[NumberLock]) -> Child:
    """Start the launcher; the locks of the numbers go with it, for as long as the device lives."""
    log = record.home / boot.LAUNCH_LOG
    # What an earlier boot said must not pass for this one's.
    for instance in record.instances:
        for old in (boot.kernel_log(record, instance), boot.launcher_log(record, instance)):
            old.unlink(missing_ok=True)
    try:
        log.write_bytes(b"")
    except OSError as exc:
        raise registry.disk_error(record.home, exc) from exc
    record.started_at, record.booted_at, record.stopped_at, record.failure = registry.now(), None, None, None
    registry.save(record)
    return process.start(
        [package.start, *_flags(record)],
        output=log,
        env=_environment(record),
        pass_fds=[fd for lock in locked for fd in lock.fds],
    )


def _follow(record: Record, child: Child, *, started: float, timeout: float, wait: bool, new: bool) -> observe.Device:
    """Report the boot until it ends, well or not."""
    if not wait:
        return observe.device(record.name)
    watch = boot.Watch(record, started=started)
    try:
        while (status := child.poll()) is None:
            watch.poll()
            if time.monotonic() - started > timeout:
                raise _timed_out(record, watch, timeout)
            time.sleep(_TICK_S)
        watch.poll()
        if status != 0 or not watch.booted:
            raise _failed(record, watch, status)
    except KeyboardInterrupt:
        steps.note(f"Interrupted: stopping {record.name} ...")
        _give_up(record, child, None, remove=new)
        raise
    except CfctlError as error:
        phase = watch.slowest.phase.name
        # A launcher that never came to a VM leaves nothing worth keeping; a boot that failed leaves its logs.
        crashed = phase == "assemble" and not isinstance(error, DeadlinePassed)
        _give_up(record, child, Failure(phase, error.brief), remove=new and crashed)
        raise
    with registry.held(record):
        current = registry.load(record.name)
        current.booted_at = registry.now()
        registry.save(current)
    return observe.device(record.name)


def _give_up(record: Record, child: Child, failure: Failure | None, *, remove: bool) -> None:
    """Stop what runs of a device that did not boot; keep it as failed, or remove it."""
    child.send_signal(15)
    with _held_if_there(record):
        try:
            current = registry.load(record.name)
        except CfctlError:
            return  # somebody has removed it in the meantime
        if current.holds_numbers:
            stop.stop(current, patience=stop.UNBOOTED_S)
        if remove:
            registry.remove(current)
        elif failure is not None:
            current.failure = failure
            registry.save(current)


def _held_if_there(record: Record) -> AbstractContextManager[None]:
    return registry.held(record) if record.home.is_dir() else contextlib.nullcontext()


def _timed_out(record: Record, watch: boot.Watch, timeout: float) -> DeadlinePassed:
    slowest = watch.slowest
    return DeadlinePassed(
        f"{record.name} did not boot within {timeout:g} s: "
        f"{slowest.instance.id} came as far as: {slowest.phase.title}",
        watch.evidence(),
        f"It was stopped; its logs are kept: cfctl logs {record.name}\n"
        f"Give it longer: cfctl restart {record.name} --timeout {2 * timeout:g}",
    )


def _failed(record: Record, watch: boot.Watch, status: int) -> CfctlError:
    slowest = watch.slowest
    with contextlib.suppress(CfctlError):
        current = registry.load(record.name)
        if current.stopping or current.stopped_at:
            return LaunchFailed(
                f"{record.name} was stopped while it was booting",
                None,
                f"Boot it again: cfctl restart {record.name}",
                phase=slowest.phase.name,
            )
    phase = slowest.phase.name
    how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
    if status == 0:
        how = "ended as if all were well"
    evidence = watch.evidence()
    if phase == "assemble":
        if help_ := _known_cause(evidence):
            return HostLacks(f"the launcher {how} before a VM was started", evidence, help_)
        return LaunchFailed(
            f"the launcher {how} before a VM was started",
            evidence,
            f"Try another host package, or see what it needs: {record.request.host_package}/bin/launch_cvd --help",
            phase=phase,
        )
    reason = next((f": {b.failure}" for b in watch.boots if b.failure), "")
    return LaunchFailed(
        f"{record.name} did not boot{reason}; {slowest.instance.id} came as far as: {slowest.phase.title}",
        f"The launcher {how}.\n{evidence}",
        f"Its logs are kept: cfctl logs {record.name}\nRemove it with: cfctl rm {record.name}",
        phase=phase,
    )


def _known_cause(evidence: str) -> str | None:
    """Return what mends a launcher that refused the host, for refusals that are recognised by their text."""
    known = {
        "to the cvdnetwork group": "Become a member: sudo usermod -aG cvdnetwork $USER, then log in again.",
        "Unable to open tun device": "Become a member: sudo usermod -aG cvdnetwork $USER, then log in again.",
        "Unable to connect to tap interface": "See who uses the tap: cfctl ps, and fuser /dev/net/tun",
        "Tap interface does not exist": "Make the taps: sudo cfctl host setup",
    }
    # The embedded launcher raises the same errors as cfctl itself.
    if found := re.search(r"the program '\S+' is not installed.*?Install it: ([^\n/]+)", evidence, re.DOTALL):
        return f"Install it: {found[1].strip()}"
    return next((help_ for text, help_ in known.items() if text in evidence), None)
