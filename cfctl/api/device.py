"""A device, as a Python program launches it and works with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import config
from cfctl.api.wares import chosen
from cfctl.errors import UsageError
from cfctl.launch import flagpaths, launcher, lifecycle, manage, observe, snapshot, waiting
from cfctl.launch.registry import Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from cfctl.instance import Instance
    from cfctl.launch.observe import State
    from cfctl.launch.registry import PerInstance

#: For what is run on a device, unless the caller knows better.
_ADB_S = 60.0


class Device:
    """A device of this user: one launch of a host package, with one or more instances.

    It is known by its name, and asked anew each time: nothing here goes stale. As a context manager it is removed at
    the end, with its disks and logs::

        with Device.launch("phone") as phone:
            print(phone.shell("uname -a"))

    :param name: of a device that exists, or will.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove(force=True)

    # -- which there are ---------------------------------------------------------------------------------

    @classmethod
    def launch(
        cls,
        name: str | None = None,
        *,
        host_package: Path | str | None = None,
        images: Path | str | None = None,
        gpu: str = "auto",
        cpus: PerInstance = None,
        memory_mb: PerInstance = None,
        num_instances: int = 1,
        flags: Sequence[str] = (),
        restart: str = "no",
        after_boot: Path | str | None = None,
        force: bool = False,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Self:
        """Boot a new device.

        ::

            Device.launch("farm", host_package="/opt/cf", num_instances=4, flags=["--x_res=1080"])

        :param name: what to call it; None makes it ``cvd-N``.
        :param host_package: a host package: an archive, the directory it was unpacked into, or a name in the cache;
            None is the build's whose variables are set, else the embedded Linux guest.
        :param images: the guest's images, likewise; None are the host package's own.
        :param gpu: ``auto``, or a GPU mode.
        :param cpus: virtual processors of each instance, or a tuple with one number for each; None leaves it to the
            launcher.
        :param memory_mb: memory of each instance, likewise.
        :param flags: further flags of launch_cvd, in the form ``--flag=value``.
        :param restart: when it is booted again by itself: ``no``, ``on-failure`` or ``always``.
        :param after_boot: a file of adb commands, or an APK: done before it counts as ready.
        :param force: even if it does not fit into memory or onto the disk.
        :param timeout: seconds that it may take to boot; None is as the settings say.
        :param wait: return when it has booted; otherwise as soon as the launcher runs (see :meth:`wait`).
        :raises NameTaken, UsageError, HostLacks, NumberTaken: before anything was made.
        :raises LaunchFailed: the launcher crashed (nothing is left), or the guest did not boot (it is left
            ``failed``, with its logs).
        :raises DeadlinePassed: it did not boot in time; it is left ``failed``, with its logs.
        """
        if isinstance(flags, str):
            raise UsageError("flags are a list, such as ['--x_res=1080'], and not one text")
        limit = _boot_timeout(timeout)
        with chosen(host_package, images) as (package, guest):
            request = Request(
                host_package=package,
                gpu=gpu,
                cpus=cpus,
                memory_mb=memory_mb,
                num_instances=num_instances,
                images=guest,
                flags=tuple(flagpaths.absolute(flags, Path.cwd())),
                restart=restart,
                after_boot=None if after_boot is None else os.fspath(Path(after_boot).expanduser().absolute()),
            )
            launched = launcher.launch(name, request, timeout=limit, wait=wait, force=force)
        return cls(launched.name)

    @classmethod
    def get(cls, name: str) -> Self:
        """Return a device that exists.

        :raises NoSuchDevice: if there is none of that name.
        """
        return cls(observe.device(name).name)

    @classmethod
    def list(cls) -> Sequence[Self]:
        """Return this user's devices, by name; :meth:`Host.devices` has everybody's."""
        return [cls(device.name) for device in observe.devices()]

    # -- how it is ---------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Its state now.

        :raises NoSuchDevice: if it was removed.
        """
        return observe.device(self.name).state

    @property
    def instances(self) -> Sequence[Instance]:
        """Its instances: numbers, addresses and ports.

        :raises NoSuchDevice: if it was removed.
        """
        return tuple(observe.device(self.name).record.instances)

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``cfctl status --json`` has it (docs/schema/device.json).

        :raises NoSuchDevice: if it was removed.
        """
        return observe.device(self.name).as_dict()

    def logs(self, which: str | None = None, *, last: int | None = None, position: int = 1) -> Sequence[str]:
        """Return the lines of a log.

        :param which: ``kernel``, ``launcher`` or ``launch``; None is the first that has something in it.
        :param last: only so many.
        :param position: of the instance, the first is 1.
        :raises UsageError: for a log or an instance that there is not.
        """
        return tuple(manage.log_lines(self.name, which, last=last, position=position))

    def follow(self, which: str | None = None, *, position: int = 1) -> Iterator[str]:
        """Yield the lines of a log and those that come, until the device is removed; see :meth:`logs`."""
        return manage.follow(manage.existing_log(self.name, which, position=position))

    # -- what is done to it ------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has booted.

        :param timeout: seconds; None is as the settings say.
        :raises DeadlinePassed: it has not booted by then, and boots on.
        :raises NotRunning: it is not up any more.
        """
        waiting.until_booted(self.name, _boot_timeout(None) if timeout is None else timeout)

    def stop(self) -> Sequence[str]:
        """Stop it; its disks and logs are kept. Stopping a stopped device does nothing.

        :return: what had to be done beyond asking, for people.
        :raises CfctlError: if something of it survives; it is named.
        """
        return tuple(manage.stop_device(self.name)[1])

    def restart(self, *, timeout: float | None = None, wait: bool = True) -> None:
        """Stop it if it is up, and boot it again as it was launched; its disks are kept.

        :raises CfctlError: as :meth:`launch` and :meth:`stop`; the device stays, stopped or failed.
        """
        launcher.restart(self.name, timeout=_boot_timeout(timeout), wait=wait)

    def suspend(self) -> None:
        """Stop its processors; it keeps its memory. A suspended one stays as it is.

        :raises NotRunning: if it is not up.
        """
        lifecycle.suspend(self.name)

    def resume(self) -> None:
        """Let its processors go on.

        :raises NotRunning: if it is not up.
        """
        lifecycle.resume(self.name)

    def powerwash(self) -> None:
        """Give it blank disks and boot it again: as it was when it was made.

        :raises NotRunning: if it is not up.
        """
        lifecycle.powerwash(self.name)

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Save a snapshot in a new directory, as ``cfctl snapshot NAME take``.

        :param force: replace an older snapshot that is there.
        """
        snapshot.take(self.name, Path(path).expanduser().absolute(), force=force)

    def restore(self, path: Path | str, *, timeout: float | None = None) -> None:
        """Go on where a snapshot of it was taken."""
        snapshot.restore(self.name, Path(path).expanduser().absolute(), timeout=_boot_timeout(timeout))

    def remove(self, *, force: bool = False) -> None:
        """Remove it with its disks and logs.

        :param force: stop it first if it is up.
        :raises UsageError: if it is up, without ``force``; nothing is changed.
        """
        manage.remove_device(self.name, force=force)

    def control(
        self, operation: str, *, position: int = 1, timeout: float | None = None, **values: object
    ) -> dict[str, Any]:
        """Ask the VM of an instance for something, as ``cfctl control`` does (docs/control.md).

        ::

            phone.control("balloon.set", bytes=512 << 20, wait=True)

        :param operation: its words with dots between them.
        :param values: by the names of the table; an underscore is a dash.
        :return: what came of it.
        :raises UsageError: if there is no such operation, or a value makes no sense; nothing was sent.
        :raises VmCannot: if the VM manager cannot do it; nothing was sent.
        :raises CfctlError: if it was not done (cfctl/control/faults.py).
        """
        from cfctl.control import operations
        from cfctl.launch import vm

        wanted = operations.operation(operation, {name.replace("_", "-"): value for name, value in values.items()})
        return vm.do(f"{self.name}/{position}", wanted, seconds=timeout)

    def adb(self, *args: str, position: int = 1, timeout: float = _ADB_S) -> str:
        """Run ``adb`` against an instance and return what it printed.

        ::

            phone.adb("install", "app.apk")

        :raises NotRunning: if the device is not up.
        :raises CommandFailed: if adb ends with another status than 0, with its output.
        """
        return manage.adb_output(self.name, list(args), position=position, timeout=timeout)

    def shell(self, command: str, *, position: int = 1, timeout: float = _ADB_S) -> str:
        """Run a command in an instance's shell and return what it printed, without the last line's end.

        :param command: for the shell of the guest, which splits and expands it.
        :raises CommandFailed: if it ends with another status than 0.
        """
        return self.adb("shell", command, position=position, timeout=timeout).rstrip("\r\n")


def _boot_timeout(seconds: float | None) -> float:
    if seconds is not None:
        if not seconds > 0:
            raise UsageError(f"a timeout must be more than 0 seconds, not {seconds:g}")
        return seconds
    return float(config.load()["launch.timeout"])
