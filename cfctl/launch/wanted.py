"""What a launch asks for: looked at before anything is made, and what follows from it alone."""

from __future__ import annotations

from pathlib import Path

from cfctl import gpu, steps
from cfctl.errors import UsageError
from cfctl.instance import MAX_INSTANCES, counted
from cfctl.launch import afterboot, images, listing, registry
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.registry import Request

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
    "snapshot_path": "cfctl snapshot NAME restore DIRECTORY",
}


def check_after_boot(request: Request, *, wait: bool) -> None:
    """Look at what is to be done after the boot, before there is one.

    :raises UsageError: if it cannot be done, or nobody would be there to do it.
    """
    if afterboot.of(request) and not wait:
        raise UsageError("--after-boot and --no-wait contradict each other", "Without waiting nobody does it.")


def known_flags(request: Request, package: HostPackage) -> listing.Listing | None:
    """Return the flags that a package's launcher knows.

    :raises WrongProcessor: if neither it nor the guest was made for this host.
    :raises UsageError: if it lacks a flag that the user gave.
    """
    package.check_processor()
    images.check_processor(Path(request.images or request.host_package), request.flags)
    known = listing.of(package)
    listing.check(request.flags, known)
    return known


def check(request: Request, package: HostPackage | None = None) -> None:
    """Look at a request itself, before the host is asked for anything.

    :param package: its host package.
    :raises UsageError: for what makes no sense.
    """
    if not 1 <= request.num_instances <= MAX_INSTANCES:
        raise UsageError(
            f"a device has 1 to {MAX_INSTANCES} instances, not {request.num_instances}",
        )
    for what, given in (("--cpus", request.cpus), ("--memory-mb", request.memory_mb)):
        values = per_instance(given)
        if len(values) > request.num_instances:
            raise UsageError(f"{what} has {len(values)} values for {counted(request.num_instances)}")
        if wrong := [value for value in values if value < 1]:
            raise UsageError(f"{what} must be 1 or more, not {wrong[0]}")
    if request.restart not in set(registry.Restart):
        raise UsageError(f"--restart {request.restart} is not one of: {', '.join(registry.Restart)}")
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
    if request.images is not None and package is not None and package.embedded:
        raise UsageError(
            "the embedded Linux guest takes no --images",
            "It brings its own kernel and disk.",
            "Give an Android host package with them: cfctl launch --host-package FILE --images FILE",
        )


def choose_gpu(request: Request) -> gpu.Decision:
    """Return the GPU mode for a request: what the host can do, what the guest and the VM manager support.

    :raises UsageError: for a mode or a VM manager that does not exist, and a mode that the guest does not have.
    """
    package = HostPackage.open(Path(request.host_package))
    place = request.images or request.host_package
    for flag in request.flags:
        key, _, value = flag.lstrip("-").partition("=")
        if key == "system_image_dir" and value:
            # One per instance; a device has one mode, that of its first.
            place = value.partition(",")[0]
    guest = gpu.guest.read(Path(place))
    choice = gpu.choose(request.gpu, vm_manager=vm_manager(request, package), guest=guest, package=package.path)
    if not choice.works:
        steps.note(f"--gpu {choice.mode}: {choice.reason}")
    return choice


def vm_manager(request: Request, package: HostPackage) -> str:
    """Return the VM manager that a launch will have: what the user gave, else the package's own."""
    given = [flag.partition("=")[2] for flag in request.flags if flag.lstrip("-").startswith("vm_manager=")]
    return next((value for value in reversed(given) if value), package.vm_manager)


def per_instance(given: registry.PerInstance) -> tuple[int, ...]:
    """Return the values of something that each instance has its own of; none if nothing was given."""
    if given is None:
        return ()
    return (given,) if isinstance(given, int) else given
