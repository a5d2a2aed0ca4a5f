"""``run_cvd``: one process per instance that owns the VM, its socket, its log and its ADB port.

It is started by ``launch_cvd``, in a session of its own, with the configuration's path and the instance's number in
its environment. Over a pipe it tells how the boot ended (0, or a code of upstream's ``RunnerExitCodes``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch, process
from cfctl.control import qmp
from cfctl.errors import CfctlError
from cfctl.guest import disk, forward, gflags, screen, snapshot, streaming, vm
from cfctl.guest.bootlog import Event, Hit, LauncherLog, Lines
from cfctl.guest.configuration import Configuration
from cfctl.guest.monitor import Server
from cfctl.guest.options import default_number
from cfctl.hostres import addresses
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

#: run_cvd's own flags; the first three as upstream's has them.
FLAGS = {
    flag.name: flag
    for flag in (
        gflags.Flag("boot_timeout_secs", gflags.Kind.INT32, "600", used=True),
        gflags.Flag("reboot_notification_fd", gflags.Kind.INT32, "-1", used=False),
        gflags.Flag("verbosity", gflags.Kind.STRING, "INFO", used=False),
        gflags.Flag("parent_fd", gflags.Kind.INT32, "-1", used=True),
    )
}

#: Between TERM and KILL of QEMU, which needs milliseconds.
_QEMU_PATIENCE_S = 5.0


class Exit(IntEnum):
    """Those of upstream's RunnerExitCodes that are still used."""

    SUCCESS = 0
    PIPE_IO_ERROR = 10
    BOOT_FAILED = 11


class Supervisor:
    """One instance: its VM, and everything that hangs on it.

    :param configuration: the launch.
    :param instance: which of its instances.
    :param parent: the pipe to the launcher; -1 for none.
    :param boot_timeout: seconds; 0 or less means no limit.
    :param streamer: what runs the streamer; None for none.
    :raises HostLacks: if its mobile tap has no address.
    """

    def __init__(
        self,
        configuration: Configuration,
        instance: Instance,
        *,
        parent: int,
        boot_timeout: int,
        streamer: list[str] | None = None,
    ) -> None:
        places = configuration.places
        self._configuration = configuration
        self._instance = instance
        self._part = configuration.instance(instance)
        self._parent = parent
        self._boot_timeout = boot_timeout
        self._directory = places.instance(instance)
        self._log = LauncherLog(self._directory / "logs" / "launcher.log", "run_cvd")
        self._kernel_log = os.open(
            self._directory / "logs" / "kernel.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        self._monitor = Server(places.monitor(instance), self)
        self._reachable = asyncio.Event()
        self._network = addresses.mobile(instance)
        self._adb = forward.AdbForwarder(instance.adb_port, self._network.guest, self._reachable)
        self._lines = Lines()
        self._qmp = places.qmp(instance)
        self._sockets = (self._qmp, places.input(instance), places.vnc(instance))
        self._streaming = self._streamer(streamer)
        self._disk = places.disk(instance)
        self._paused = False
        #: Whether the VM may yet crash, and be started once more.
        self._may_crash = configuration.document.get("cfctl_accelerator", "tcg") == "tcg"
        self._vm: process.Child | None = None
        self._vm_watch = -1
        self._boot: asyncio.Future[int] | None = None
        self._timeout: asyncio.TimerHandle | None = None
        self._stopping = False
        self._reported = False
        self._code = Exit.SUCCESS
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- the whole life ------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start everything, serve until the end, and take everything down; return the exit status.

        :raises CfctlError: if it could not even begin; nothing runs then.
        """
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            await self._monitor.start()
            stack.callback(self._monitor.close)
            fifo = forward.watch_fifo(loop, self._directory / "internal" / "kernel-log-pipe", self._hear)
            stack.callback(loop.remove_reader, fifo)
            console = forward.Console(self._directory / "console", self._directory / "internal" / "console")
            console.attach(loop)
            stack.callback(console.close, loop)
            try:
                await self._adb.start()
            except OSError as exc:
                raise CfctlError(
                    f"port {self._instance.adb_port} on 127.0.0.1 cannot be used for ADB",
                    exc.strerror,
                    f"See who has it: ss -ltnp 'sport = :{self._instance.adb_port}'",
                ) from exc
            stack.callback(self._adb.close)
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(sig, self._begin, self._end)
            stack.push_async_callback(self._stop_vm)
            path = self._configuration.document.get("snapshot_path")
            self._start_vm(snapshot.Snapshot.read(Path(path) / snapshot.META) if path else None)
            if self._streaming is not None:
                self._streaming.start()
                stack.push_async_callback(self._streaming.stop)
            if self._parent >= 0:
                # A pipe whose reader has gone is "readable": the launcher was killed, and the launch with it.
                loop.add_reader(self._parent, self._orphaned)
            await self._monitor.ended.wait()
        self._report(self._code or Exit.PIPE_IO_ERROR)
        return self._code

    def _streamer(self, argv: list[str] | None) -> streaming.Streaming | None:
        if self._part["gpu_mode"] == "none":
            return None
        if argv is None:
            self._log.write("W", f"no screen for browsers: {streaming.PYTHON} names no Python that has aiortc")
            return None
        return streaming.Streaming(argv, streaming.output(self._directory), self._log)

    def _begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Start work that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        """End the supervisor."""
        self._stopping = True
        self._monitor.ended.set()

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        self._log.write("E", "the launcher has gone before the device was ready: stopping")
        self._code = Exit.PIPE_IO_ERROR
        self._begin(self._end)

    def _report(self, code: int) -> None:
        """Tell the launcher how the boot ended, once."""
        if self._reported or self._parent < 0:
            return
        self._reported = True
        with contextlib.suppress(BrokenPipeError):
            os.write(self._parent, struct.pack("=i", code))
        if self._part["run_as_daemon"]:
            asyncio.get_running_loop().remove_reader(self._parent)
            os.close(self._parent)
            self._parent = -1

    # -- the VM --------------------------------------------------------------------------------------

    def _start_vm(self, saved: snapshot.Snapshot | None = None) -> None:
        """Start QEMU; its death is heard of.

        :param saved: go on where this was taken, instead of booting.
        """
        loop = asyncio.get_running_loop()
        if self._boot is None or self._boot.done():
            self._boot = loop.create_future()
        self._reachable.clear()
        self._lines = Lines()
        if self._boot_timeout > 0 and self._timeout is None:
            self._timeout = loop.call_later(self._boot_timeout, self._boot_too_long)
        places = self._configuration.places
        machine = vm.Machine(
            arch.by_name(self._configuration.document.get("cfctl_arch") or arch.host().name),
            self._configuration.document.get("cfctl_accelerator", "tcg"),
        )
        with contextlib.ExitStack() as stack:
            memory = None
            if saved is not None:
                memory = stack.enter_context(saved.memory(self._instance).open("rb")).fileno()
                os.set_inheritable(memory, True)  # noqa: FBT003
            argv = vm.command(machine, self._instance, self._part, places, self._network, incoming=memory)
            self._log.write("I", f"starting {' '.join(argv)}")
            # It keeps the locks of the instance number too, so that the number stays taken while any part lives.
            self._vm = process.start(
                argv, output=self._directory / "logs" / "qemu.log", keep_inheritable=True, die_with_parent=True
            )
        self._paused = False
        if saved is not None:
            self._begin(self._restored)
        self._vm_watch = os.pidfd_open(self._vm.pid)
        loop.add_reader(self._vm_watch, self._vm_died)

    async def _stop_vm(self) -> None:
        """End QEMU: ask, then kill."""
        self._cancel_timeout()
        self._adb.drop()
        if self._vm is not None:
            await self._end_qemu()
        # QEMU removes what it listens on only when it ends well.
        for path in self._sockets:
            path.unlink(missing_ok=True)

    async def _end_qemu(self) -> None:
        assert self._vm is not None  # noqa: S101 (the caller has looked)
        asyncio.get_running_loop().remove_reader(self._vm_watch)
        os.close(self._vm_watch)
        child, self._vm = self._vm, None
        child.send_signal(signal.SIGTERM)
        # TERM is remembered by a stopped process only.
        child.send_signal(signal.SIGCONT)
        deadline = asyncio.get_running_loop().time() + _QEMU_PATIENCE_S
        while child.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                self._log.write("W", "QEMU did not end: killing it")
                child.send_signal(signal.SIGKILL)
                child.wait(_QEMU_PATIENCE_S)
                break
            await asyncio.sleep(0.01)

    def _vm_died(self) -> None:
        """Hear that QEMU ended by itself: without it there is no device."""
        assert self._vm is not None  # noqa: S101 (only a VM that was started is watched)
        asyncio.get_running_loop().remove_reader(self._vm_watch)
        os.close(self._vm_watch)
        status = self._vm.wait()
        self._vm = None
        if status == -signal.SIGSEGV and self._may_crash and not self._reachable.is_set():
            # QEMU 7.2 did so once in some hundred boots, as the guest's kernel mapped its PCI devices; it could not
            # be provoked. Most likely another of its processors read by way of the old map.
            self._may_crash = False
            self._log.write("W", "QEMU crashed while the guest booted under tcg (signal 11): starting it once more")
            self._start_vm()
            return
        said = (self._directory / "logs" / "qemu.log").read_text(errors="replace").strip()
        if status == 0:
            self._log.write("W", "the guest has powered itself off")
        else:
            self._log.write("E", f"QEMU ended with status {status}: {said[-2000:] or 'it printed nothing'}")
        self._boot_ended(Exit.PIPE_IO_ERROR)
        self._code = Exit.PIPE_IO_ERROR
        self._begin(self._end)

    # -- the boot ------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        """Take what the guest's kernel wrote."""
        os.write(self._kernel_log, data)
        for hit in self._lines.feed(data):
            self._react(hit)

    def _react(self, hit: Hit) -> None:
        self._log.write("E" if hit.event is Event.BOOT_FAILED else "I", hit.text)
        if self._streaming is not None and hit.event in (Event.BOOT_STARTED, Event.BOOT_COMPLETED):
            self._streaming.tell(hit.text)
        if hit.event is Event.KERNEL_LOADED:
            # Also when a guest starts anew by itself.
            self._reachable.clear()
        elif hit.event is Event.MOBILE_CONNECTED:
            self._reachable.set()
        elif hit.event is Event.BOOT_COMPLETED:
            again = self._boot is not None and self._boot.done()
            self._boot_ended(Exit.SUCCESS)
            self._log.write("I", f"Virtual device {'rebooted' if again else 'booted'} successfully")
        elif hit.event is Event.BOOT_FAILED:
            self._boot_failed("Virtual device failed to boot")

    def _boot_too_long(self) -> None:
        self._boot_failed(f"Virtual device failed to boot: it took more than {self._boot_timeout} s", give_up=True)

    def _boot_failed(self, text: str, *, give_up: bool = False) -> None:
        if self._boot is None or self._boot.done():
            return
        self._log.write("E", text)
        self._boot_ended(Exit.BOOT_FAILED)
        if give_up or self._part["fail_fast"]:
            self._code = Exit.BOOT_FAILED
            self._begin(self._end)

    def _boot_ended(self, code: int) -> None:
        self._cancel_timeout()
        if self._boot is not None and not self._boot.done():
            self._boot.set_result(code)
            self._report(code)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    # -- what clients of the socket ask for (monitor.Supervisor) -------------------------------------

    async def stop(self, *, code: int) -> bool:
        """Stop the VM."""
        self._log.write("I", "a client asks to stop" if code == 0 else "a client asks to fail")
        self._stopping = True
        await self._stop_vm()
        self._boot_ended(code or Exit.PIPE_IO_ERROR)
        self._code = Exit(code)
        return True

    async def restart(self, *, wipe: bool = False) -> bool:
        """Stop the VM and start it again, with a blank disk if asked to."""
        if self._stopping:
            return False
        self._log.write("I", f"a client asks to {'powerwash' if wipe else 'restart'}")
        await self._stop_vm()
        self._boot_ended(Exit.PIPE_IO_ERROR)
        if wipe:
            try:
                disk.blank(self._disk)
            except OSError as exc:
                self._log.write("E", f"{self._disk} cannot be made blank: {exc}")
                self._code = Exit.PIPE_IO_ERROR
                self._begin(self._end)
                return False
        self._start_vm()
        return True

    async def booted(self) -> int:
        """Wait for the end of the boot that is under way."""
        assert self._boot is not None  # noqa: S101 (restart() has begun one)
        return await asyncio.shield(self._boot)

    async def pause(self) -> bool:
        """Stop the VM's processors."""
        self._paused = await self._done(qmp.execute(self._qmp, "stop"))
        return self._paused

    async def resume(self) -> bool:
        """Let the VM's processors go on."""
        done = await self._done(qmp.execute(self._qmp, "cont"))
        self._paused = self._paused and not done
        return done

    async def snapshot(self, meta: Path) -> bool:
        """Save the VM's memory where a snapshot's description says; only of a VM that is paused, as upstream."""
        if not self._paused:
            self._log.write("E", "a snapshot needs a device that is suspended")
            return False
        try:
            target = snapshot.Snapshot.read(meta).memory(self._instance)
        except CfctlError as exc:
            self._log.write("E", str(exc))
            return False
        return await self._done(snapshot.save(self._qmp, target))

    async def screenshot(self, display: int, path: Path) -> bool:
        """Save what a display shows; there is one."""
        if display != 0 or self._part["gpu_mode"] == "none":
            self._log.write("E", f"there is no display {display}")
            return False
        return await self._done(screen.screenshot(self._qmp, self._directory / "internal", path))

    async def _restored(self) -> None:
        """Follow the VM until it goes on where its snapshot was taken."""
        if not await self._done(snapshot.restored(self._qmp)):
            # A QEMU that cannot read it ends, and says why; its monitor only goes away.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.booted(), _QEMU_PATIENCE_S)
            self._boot_failed("Virtual device failed to be restored", give_up=True)
            return
        # Its network is up, which no line of its log will tell again.
        self._reachable.set()
        self._boot_ended(Exit.SUCCESS)
        self._log.write("I", "Virtual device restored successfully")

    async def _done(self, work: Coroutine[Any, Any, object]) -> bool:
        """Tell whether work succeeded; why it did not is logged."""
        try:
            await work
        except CfctlError as exc:
            self._log.write("E", str(exc).replace("\n", " / "))
            return False
        return True


def main(argv: Sequence[str], environ: Mapping[str, str], package: Path) -> int:
    """Be ``run_cvd``; return the exit status.

    :param package: the host package's directory.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    values = gflags.parse(FLAGS, argv, program="run_cvd", environ=environ)
    configuration = Configuration.read(environ)
    instance = Instance(default_number(environ))
    parent = values.number("parent_fd")
    if parent >= 0:
        os.set_inheritable(parent, False)  # noqa: FBT003
    _name_process("run_cvd")
    python = streaming.interpreter(package, environ)

    async def life() -> int:
        supervisor = Supervisor(
            configuration,
            instance,
            parent=parent,
            boot_timeout=values.number("boot_timeout_secs"),
            streamer=streaming.command(package, python) if python else None,
        )
        return await supervisor.run()

    try:
        return asyncio.run(life())
    except CfctlError as exc:
        log = LauncherLog(configuration.places.instance(instance) / "logs" / "launcher.log", "run_cvd")
        log.write("F", str(exc).replace("\n", " / "))
        print(exc, file=sys.stderr)
        return Exit.PIPE_IO_ERROR


def _name_process(name: str) -> None:
    """Be called ``name``: tools look for supervisors by it (upstream's ``cvd reset``)."""
    Path("/proc/self/comm").write_text(name)
