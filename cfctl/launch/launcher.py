"""Running the launcher of a host package: what it is told, and what it inherits."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import config, paths, process, steps
from cfctl.errors import CfctlError, NameTaken, NoSuchDevice, UsageError
from cfctl.launch import (
    boot,
    boot_times,
    capacity,
    census,
    follow,
    listing,
    logs,
    numbers,
    observe,
    operator,
    parent,
    ports,
    procs,
    registry,
    scope,
    stop,
    wanted,
    wares,
)
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.registry import Record, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.locks import NumberLock
    from cfctl.process import Child

#: How long run_cvd waits for a boot by itself (launcher.md section 3).
_RUN_CVD_S = 600


def launch(
    name: str | None,
    request: Request,
    *,
    timeout: float,
    wait: bool = True,
    force: bool = False,
    brief: bool = False,
) -> observe.Device:
    """Make a device and boot it.

    :param name: what to call it; None makes it ``cvd-N`` after its first number.
    :param timeout: seconds that it may take to boot.
    :param wait: return when it has booted; otherwise as soon as the launcher runs.
    :param force: even if it does not fit into memory or onto the disk.
    :param brief: it is not there for long: nothing is said of how its screen could be seen.
    :return: the device, running (or booting, without ``wait``).
    :raises NameTaken, UsageError, HostLacks, NumberTaken: before anything was made, or when the launcher refused the
        host or a flag (nothing is left).
    :raises LaunchFailed: the launcher crashed (nothing is left) or the guest did not boot (the device is left
        ``failed``, with its logs).
    :raises DeadlinePassed: it did not boot in time; it was stopped and is left ``failed``, with its logs.
    """
    started = time.monotonic()
    if wait:
        steps.phase(boot.HOST.name, boot.HOST.title, 0.0)
    package = HostPackage.open(Path(request.host_package))
    wanted.check(request, package)
    wanted.check_after_boot(request, wait=wait)
    known = wanted.known_flags(request, package)
    if not force:
        capacity.check(request, package, paths.current().devices, vm_manager=wanted.vm_manager(request, package))
    if name is not None:
        _check_free(name)
    watch: boot.Watch | None = None
    try:
        with numbers.allocated(request.num_instances) as locked:
            instances = tuple(lock.instance.number for lock in locked)
            choice = wanted.choose_gpu(request)
            record = Record(
                name=name or f"cvd-{instances[0]}",
                owner=registry.owner(),
                created_at=registry.now(),
                request=request,
                numbers=instances,
                gpu_mode=choice.mode,
                gpu_reason=choice.reason,
                generation=package.generation.value,
            )
            if name is None:
                _check_free(record.name)
            watch = boot.Watch(record, started=started, typical=boot_times.typical(request))
            registry.create(record)
            with registry.opened(record.name):
                child = _start(record, known, locked, timeout, wait=wait)
        device = follow.follow(record, watch, child, timeout=timeout, wait=wait)
    except BaseException as error:
        if watch is not None and not isinstance(error, NameTaken):
            follow.give_up(watch, error, new=True)
        raise
    if not brief:
        _tell_of_its_screen(record, known)
    return device


def restart(
    name: str, *, timeout: float, wait: bool = True, snapshot: Path | None = None, only_if_down: bool = False
) -> observe.Device:
    """Stop a device, if it is up, and boot it again with what was asked for at first; its disks are kept.

    :param snapshot: go on where this was taken, instead of booting.
    :param only_if_down: leave a device that is up, or was stopped on purpose, as it is.
    :raises NoSuchDevice: if there is none of that name.
    :raises CfctlError: as :func:`launch` and :func:`stop.stop`; the device stays, stopped or failed.
    """
    started = time.monotonic()
    watch: boot.Watch | None = None
    try:
        with census.opened(name) as record:
            known = wanted.known_flags(record.request, _package_of(record))
            wanted.check_after_boot(record.request, wait=wait)
            if only_if_down:
                now = observe.device(name, held=True)
                if record.kept_down or (now.state.is_up and now.state is not observe.State.UNREACHABLE):
                    return now
                # Kept before anything can fail: what cannot even be started is tried ever later as well.
                record.restarts, record.tried_at = record.restarts + 1, registry.now()
                stop.save_if_possible(record)
            else:
                record.restarts, record.tried_at = 0, None
            if record.holds_numbers:
                with steps.step(f"stop {name}"):
                    stop.stop(record)
            with numbers.taken_again(record.numbers) as locked:
                choice = wanted.choose_gpu(record.request)
                record.gpu_mode, record.gpu_reason = choice.mode, choice.reason
                watch = boot.Watch(record, started=started, typical=boot_times.typical(record.request))
                child = _start(record, known, locked, timeout, wait=wait, snapshot=snapshot)
        device = follow.follow(record, watch, child, timeout=timeout, wait=wait, restored=snapshot is not None)
    except BaseException as error:
        if watch is not None:
            follow.give_up(watch, error, new=False)
        raise
    _tell_of_its_screen(record, known)
    return device


def _tell_of_its_screen(record: Record, known: listing.Listing | None) -> None:
    if (text := operator.advice(record.name, _left(record.request, known))) is not None:
        steps.note(text)


def _package_of(record: Record) -> HostPackage:
    try:
        return HostPackage.open(Path(record.request.host_package))
    except UsageError as error:
        raise CfctlError(
            f"the host package of {record.name} is gone",
            f"{error.brief}. The device was not changed.",
            f"Put it back, or make the device anew: cfctl rm --force {record.name} && cfctl launch {record.name}",
        ) from error


def _check_free(name: str) -> None:
    registry.check_name(name)
    try:
        device = observe.device(name)
    except NoSuchDevice:
        return
    raise NameTaken(name, device.state.value)


def _listed(given: registry.PerInstance) -> str:
    return ",".join(map(str, wanted.per_instance(given)))


def _flags(record: Record) -> list[str]:
    """Return the launcher's flags; always with ``=``, because some on/off flags are strings (launcher.md T5)."""
    first, count = record.numbers[0], len(record.numbers)
    flags = ["--daemon=true", f"--gpu_mode={record.gpu_mode}", "--report_anonymous_usage_stats=n"]
    if record.numbers == tuple(range(first, first + count)):
        flags += [f"--base_instance_num={first}", f"--num_instances={count}"]
    else:
        flags += [f"--instance_nums={','.join(map(str, record.numbers))}"]
    if record.request.cpus is not None:
        flags.append(f"--cpus={_listed(record.request.cpus)}")
    if record.request.memory_mb is not None:
        flags.append(f"--memory_mb={_listed(record.request.memory_mb)}")
    if (place := wares.images(record)) is not None:
        flags.append(f"--system_image_dir={','.join([os.fspath(place)] * count)}")
    return flags


def _left(request: Request, known: listing.Listing | None) -> frozenset[str]:
    """Return the flags that a launcher is known to have and that the user has not given."""
    names = frozenset(known.flags) if known else frozenset()
    return names - {listing.name_of(flag).replace("-", "_") for flag in request.flags}


def _environment(record: Record) -> dict[str, str]:
    env = dict(os.environ)
    # The first would move upstream's sockets away from where everybody looks for them; the others are another
    # launch's, if cfctl runs in the shell of one.
    for name in ("TMPDIR", "CUTTLEFISH_CONFIG_FILE", "_STARTED_BY_CVD_SERVER_"):
        env.pop(name, None)
    return env | {
        "HOME": os.fspath(record.home),
        observe.MARK: os.fspath(record.home),
        "ANDROID_HOST_OUT": os.fspath(wares.package(record)),
        "ANDROID_SOONG_HOST_OUT": os.fspath(wares.package(record)),
        "ANDROID_PRODUCT_OUT": os.fspath(wares.product(record)),
        "CUTTLEFISH_INSTANCE": str(record.numbers[0]),
        # The embedded guest's streamer runs on it: the package has no libraries, and this Python has them.
        "CFCTL_PYTHON": sys.executable,
    }


def _patience(timeout: float, left: frozenset[str]) -> list[str]:
    """Return the flag that lets run_cvd wait for a boot as long as we do, where its own ten minutes are too short."""
    name = "boot_timeout_secs"
    return [f"--{name}={int(timeout)}"] if timeout > _RUN_CVD_S and name in left else []


def _start(
    record: Record,
    known: listing.Listing | None,
    locked: Sequence[NumberLock],
    timeout: float,
    *,
    wait: bool,
    snapshot: Path | None = None,
) -> Child:
    """Start the launcher; the locks of the numbers go with it, for as long as the device lives.

    :param known: the flags that it knows.
    :param timeout: seconds that it may take to boot.
    :param wait: this process follows the boot.
    :param snapshot: go on where this was taken.
    """
    settings = config.load()
    left = _left(record.request, known)
    ours = [
        *_flags(record),
        *_patience(timeout, left),
        *([f"--snapshot_path={snapshot}"] if snapshot else []),
        *operator.flags(left),
        *ports.flags(record.instances, ports.parse(settings["launch.webrtc_ports"]), known=left),
    ]
    flags = [*listing.fit(ours, known), *record.request.flags]
    package = wares.prepare(record)
    argv = parent.argv(wares.parent(record), [package.start, *flags])
    log = record.home / boot.LAUNCH_LOG
    try:
        # What an earlier boot said must not pass for this one's.
        logs.set_aside(record)
        log.write_bytes(b"")
    except OSError as exc:
        raise registry.disk_error(record.home, exc) from exc
    record.started_at, record.booted_at, record.stopped_at, record.failure = registry.now(), None, None, None
    record.suspended_at = None
    # What it has got stands in the snapshot.
    record.getting_ready = record.request.after_boot is not None and snapshot is None
    record.boot_id, record.kept_down = registry.boot_id(), False
    record.follower = procs.identity() if wait else None
    registry.save(record)
    if settings["launch.scope"] and scope.available():
        argv = scope.wrapped(argv, record, root=os.geteuid() == 0)
    child = process.start(
        argv,
        output=log,
        env=_environment(record),
        pass_fds=[fd for lock in locked for fd in lock.fds],
    )
    # From here on whoever looks for the device's processes finds it.
    procs.await_environment(child.pid)
    return child
