"""``launch_cvd``: makes the directories and the config, starts one ``run_cvd`` per instance, and waits."""

from __future__ import annotations

import os
import select
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch, paths, process
from cfctl.errors import CfctlError, UsageError
from cfctl.guest import configuration, disk, gflags, kvm, layout, options, preflight, vm
from cfctl.guest.bootlog import LauncherLog
from cfctl.guest.image import Image
from cfctl.guest.layout import Places
from cfctl.guest.monitor import refuse_live
from cfctl.guest.snapshot import META, Snapshot, qemu_version
from cfctl.guest.supervisor import Exit
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.arch import Arch
    from cfctl.guest.gflags import Values
    from cfctl.guest.options import InstanceOptions

#: Exit statuses: any failure of a part, and what abort(3) looks like in a shell.
FAILED = 255
ABORTED = 134


@dataclass(slots=True)
class _Child:
    """A run_cvd that was started.

    :param pipe: where it tells how the boot ended.
    :param code: what it told.
    """

    instance: Instance
    process: process.Child
    pipe: int
    code: int | None = None


def main(argv: Sequence[str], environ: Mapping[str, str], package: Path) -> int:
    """Be ``launch_cvd``; return the exit status.

    :param package: the host package's directory.
    """
    values = gflags.parse(gflags.table(), argv, program="launch_cvd", environ=environ)
    try:
        numbers = options.numbers(values, environ)
    except UsageError as exc:
        _say(f"{exc}")
        return ABORTED
    try:
        daemon = values.on("daemon")
        entries = _options(values, numbers, package)
        processor = Image(package / "images").arch
        places, accelerator = _prepare(values, entries, environ, processor, daemon=daemon)
    except CfctlError as exc:
        _say(f"{exc}")
        return FAILED
    return _run(
        values,
        [entry.instance for entry in entries],
        places,
        environ,
        package,
        daemon=daemon,
        accelerator=accelerator,
    )


def _options(values: Values, numbers: Sequence[int], package: Path) -> list[InstanceOptions]:
    """Return what each instance is to be.

    :raises UsageError: for what this guest cannot be.
    """
    manager = values["vm_manager"].lower()
    if manager not in ("", configuration.VM_MANAGER):
        raise UsageError(
            f"--vm_manager={manager} is not supported by the embedded guest",
            "It runs under QEMU.",
            "Leave the flag out, or use an Android host package: cfctl launch --host-package DIR",
        )
    image = Image(package / "images")
    entries = []
    for entry in options.instance_options(values, numbers):
        options.check_files(entry)
        if entry.gpu_mode not in options.SOFTWARE_GPU_MODES:
            raise UsageError(
                f"--gpu_mode={entry.gpu_mode} is not supported by the embedded guest",
                f"It draws a plain screen on its own CPU: {', '.join(options.SOFTWARE_GPU_MODES)}.",
                "Leave the flag out, or use an Android host package: cfctl launch --host-package DIR",
            )
        kernel = image.fast_kernel if entry.gpu_mode == "none" else image.kernel
        entries.append(
            replace(
                entry,
                kernel=entry.kernel or os.fspath(kernel),
                initramfs=entry.initramfs or os.fspath(image.initramfs),
            )
        )
    return entries


def _prepare(
    values: Values, entries: Sequence[InstanceOptions], environ: Mapping[str, str], processor: Arch, *, daemon: bool
) -> tuple[Places, str]:
    """Check the host, make the directories and write the config.

    :param processor: the guest's.
    :raises CfctlError: before anything was changed, if something is in the way.
    """
    if not environ.get("HOME"):
        raise UsageError("HOME is not set", "The launcher keeps the device's files there.")
    home = Path(environ["HOME"])
    root = Path(values["instance_dir"]) if "instance_dir" in values.given else None
    places = Places.of(home, root, environ)
    instances = [entry.instance for entry in entries]
    for instance in instances:
        refuse_live(places.monitor(instance))
    for instance in instances:
        preflight.taps(instance)
    # Asked now, so that a host without it hears so before anything was made.
    qemu = vm.qemu(processor)
    verdict = kvm.usable(Path(entries[0].kernel), device=Path(values["kvm_path"] or paths.KVM), arch=processor)
    if processor != arch.host():
        _say(
            f"note: the guest is for {processor.name} and is emulated on this {arch.host().name} host, which is slow"
        )
    accelerator = "kvm" if verdict.ok else "tcg"
    document = configuration.document(
        places,
        entries,
        daemon=daemon,
        accelerator=accelerator,
        operator=values["webrtc_sig_server_addr"],
        snapshot=values["snapshot_path"],
    )
    document["cfctl_arch"] = processor.name
    saved = Snapshot.read(Path(values["snapshot_path"]) / META) if values["snapshot_path"] else None
    if saved is not None:
        saved.check(document, qemu_version(qemu))
    layout.prepare(
        places, instances, assembly_link=Path(values["assembly_dir"]), keep_disks=values.on("resume") or bool(saved)
    )
    for instance in instances if saved is not None else ():
        assert saved is not None  # noqa: S101 (mypy does not see it)
        try:
            disk.copy(saved.directory(instance) / disk.NAME, places.disk(instance))
        except OSError as exc:
            raise CfctlError(f"the snapshot's disk of {instance.id} cannot be copied", str(exc)) from exc
    layout.write_config(places, instances, document)
    log = LauncherLog(places.assembly / "assemble_cvd.log", "assemble_cvd")
    log.write("I", f"accelerator: {accelerator} ({verdict.reason})")
    for name in sorted(values.given):
        if not values.flags[name].used:
            log.write("I", f"--{name} has no effect on the embedded guest")
    for instance in instances:
        (places.instance(instance) / "logs" / "assemble_cvd.log").symlink_to(places.assembly / "assemble_cvd.log")
    return places, accelerator


def _run(
    values: Values,
    instances: Sequence[Instance],
    places: Places,
    environ: Mapping[str, str],
    package: Path,
    *,
    daemon: bool,
    accelerator: str,
) -> int:
    """Start the instances and wait: until all have booted, or, in the foreground, until all have ended."""
    children = []
    for instance in instances:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)  # noqa: FBT003
        argv = [os.fspath(package / "bin" / "run_cvd"), f"--parent_fd={writer}"]
        if "boot_timeout_secs" in values.given:
            argv.append(f"--boot_timeout_secs={values['boot_timeout_secs']}")
        env = {
            **environ,
            "CUTTLEFISH_INSTANCE": str(instance.number),
            "CUTTLEFISH_CONFIG_FILE": os.fspath(places.config),
        }
        log = places.instance(instance) / "logs" / "launcher.log"
        children.append(_Child(instance, process.start(argv, output=log, env=env, keep_inheritable=True), reader))
        os.close(writer)
    _say(f"booting {', '.join(instance.id for instance in instances)} under {accelerator}")
    _wait(children, places, daemon=daemon)
    status = 0
    for child in children:
        code = child.code if daemon and child.code is not None else child.process.wait()
        if not daemon and child.code:
            code = child.code
        if code:
            _say(f"run_cvd returned {code}", child, children)
            status = FAILED
    return status


def _wait(children: Sequence[_Child], places: Places, *, daemon: bool) -> None:
    """Read how each boot ended; in the foreground, wait for the end of the pipes too."""
    waiting = {child.pipe: child for child in children}
    while waiting:
        for pipe in select.select(list(waiting), [], [])[0]:
            child = waiting[pipe]
            data = os.read(pipe, 4)
            if len(data) == 4:
                (child.code,) = struct.unpack("=i", data)
                if child.code:
                    _explain(child, children, places)
                else:
                    _say("Virtual device booted successfully", child, children)
            elif child.code is None:
                child.code = child.process.wait() or Exit.PIPE_IO_ERROR
                _explain(child, children, places)
            if daemon or not data:
                del waiting[pipe]


def _explain(child: _Child, children: Sequence[_Child], places: Places) -> None:
    """Say that a boot failed, with the lines of the log that tell why."""
    log = places.instance(child.instance) / "logs" / "launcher.log"
    lines = log.read_text(errors="replace").splitlines()
    for line in [line for line in lines if ")  E " in line or ")  F " in line][-5:]:
        _say(line.partition("] ")[2] or line, child, children)
    _say(f"its logs are in {log.parent}", child, children)


def _say(text: str, child: _Child | None = None, children: Sequence[_Child] = ()) -> None:
    prefix = f"{child.instance.id}: " if child is not None and len(children) > 1 else ""
    print(f"{prefix}{text}", file=sys.stderr, flush=True)
