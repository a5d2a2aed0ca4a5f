"""Keeps the host as it should be: looks when the kernel tells of a change, mends, and serves taps on request.

It mends what the settings ask for and never quarrels: what is not ours is reported and waited for, running devices
lose nothing, a host that was taken down stays down, and what somebody takes away again and again is mended more and
more seldom.
When it ends, everything stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfctl import config, locks, paths, steps
from cfctl.errors import AlreadyWatched, CfctlError, DevicesUp, HostLacks, NeedsRoot, UsageError
from cfctl.hostres import host, lazy, netlink_events, nft, tap_service
from cfctl.hostres.pace import Pace
from cfctl.hostres.service_manager import Manager

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Literal

    from cfctl.config import Settings
    from cfctl.hostres.plan import Change, Plan

    Kind = Literal["ready", "mended", "waiting", "quarrel", "down", "reloaded", "taps", "note", "ended"]

_INSTANCES = "host.instances"
#: What a set-up leaves as it is where no setting says otherwise.
_OBSERVED = (_INSTANCES, "host.bridge", "host.lazy")
_TABLES = frozenset(name.partition(" ")[2] for name in nft.TABLES)


@dataclass(frozen=True, slots=True)
class Report:
    """Something that the watcher tells.

    :param kind: ready, mended (with ``changes``), waiting (with ``error``), quarrel, down, reloaded, taps (made or
        removed on request, with ``changes``), note or ended.
    :param text: a line for people.
    """

    kind: Kind
    text: str
    changes: Sequence[Change] = field(default=())
    error: CfctlError | None = None


class Watcher:
    """Watches the host until it is told to end.

    :param load: reads the settings.
    :param hear: is told what happens; from more than one thread, but never from two at once.
    """

    def __init__(self, load: Callable[[], Settings], hear: Callable[[Report], None]) -> None:
        self._load = load
        self._hear = hear
        self._hearing = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = self._reloading = False
        self._settings = load()
        self._kept: dict[str, config.Value] = {}
        self._started = False
        self._said: str | None = None
        self._servers: dict[int, int] = {}
        self._insists = True
        self._pace = Pace(time.monotonic())
        self._manager = Manager()
        self._sole = contextlib.ExitStack()
        self._claimed = False
        self._service = contextlib.ExitStack()
        self._serving = False
        self._inherited: socket.socket | None = None

    # -- from signal handlers and other threads ------------------------------------------------------

    def end(self) -> None:
        """Let :meth:`run` return; the host stays as it is."""
        self._ending = True
        self._wake_up()

    def reload(self) -> None:
        """Read the settings again, and set up what they ask for."""
        self._reloading = True
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # It has ended.
            os.eventfd_write(self._wake, 1)

    def _sleep(self) -> None:
        wake, self._wake = self._wake, -1
        os.close(wake)

    # -- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Set the host up, then keep it so until :meth:`end`.

        :raises NeedsRoot: for an ordinary user.
        :raises AlreadyWatched: if somebody else does this already; nothing was changed.
        :raises HostLacks: if the host lacks what no waiting brings: a program, a kernel module.
        :raises UsageError: if the settings make no sense.
        """
        if os.geteuid() != 0:
            raise NeedsRoot("host run")
        self._inherited = tap_service.from_systemd()
        with contextlib.ExitStack() as stack:
            stack.push(self._sole)
            stack.callback(self._sleep)
            stack.callback(self._forget_servers)
            if self._inherited:
                stack.callback(self._inherited.close)
            stack.push(self._service)
            # Before the first look, so that nothing is missed in between.
            listener = stack.enter_context(netlink_events.listening())
            self._look()
            while not self._ending:
                if self._said and not self._started:
                    self._manager.ready(self._said)
                    self._started = True
                self._wait(listener)
                if self._reloading:
                    self._read_settings()
                if not self._ending and time.monotonic() >= self._pace.due():
                    self._look()
            self._manager.stopping()
        self._tell(Report("ended", "Nobody watches the host any more; it stays as it is."))

    def _wait(self, listener: netlink_events.Listener) -> None:
        """Wait for news, for the end of a server, for a signal, or until the next look is due."""
        seconds = max(0.0, self._pace.due() - time.monotonic())
        if self._manager.every_s:
            seconds = min(seconds, self._manager.every_s)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for fd in self._servers.values():
            poll.register(fd, select.POLLIN)
        listener.register(poll)
        ready = {fd for fd, _ in poll.poll(1000 * seconds)}
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if ready.intersection(self._servers.values()):
            self._forget_servers()
            self._pace.news(now)
        ours, others = listener.read(interfaces={self._settings["host.bridge"]}, tables=_TABLES)
        if ours:
            self._pace.news(now)
        if others:
            self._pace.others_news(now)
        self._manager.alive()

    def _read_settings(self) -> None:
        self._reloading = False
        self._manager.reloading()
        # Whoever asks wants to hear how it is now, be it as before.
        self._said = self._said and ""
        try:
            self._settings = self._load()
        except CfctlError as error:
            self._wait_for(error)
        else:
            self._insists = True
            self._tell(Report("reloaded", "The settings were read again."))
            self._look()
        self._manager.ready(self._said or "watching")

    # -- one look --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare, and mend what differs."""
        self._pace.looks(time.monotonic())
        try:
            self._claim()
            with steps.reporting(_Notes(self._tell)):
                kind, text = self._mend()
                self._serve()
                self._settled(kind, text)
        except BlockingIOError:
            self._pace.busy(time.monotonic())
        except AlreadyWatched:
            raise
        except (UsageError, HostLacks) as error:
            if self._said is None:
                raise  # From the start: it would be so for ever.
            self._wait_for(error)
        except CfctlError as error:
            self._wait_for(error)

    def _claim(self) -> None:
        """Be the only one that watches this host, as soon as that can be written down.

        :raises AlreadyWatched: if somebody else is.
        """
        if self._claimed:
            return
        lock = paths.current().watcher_lock
        try:
            self._sole.enter_context(locks.sole(lock))
        except BlockingIOError:
            raise AlreadyWatched(locks.holder(lock) or 0, str(lock)) from None
        self._claimed = True

    def _mend(self) -> tuple[Kind, str]:
        """Mend what differs; return how the host is then."""
        settings = self._settings
        work, followed = host.status(settings)
        if work.observed.pod:
            # It refuses; pod mode has a watcher of its own.
            host.check(settings)
        taken_down = work.state == "absent" and not self._insists
        if not taken_down and (work.changes or work.conflicts):
            work, followed = self._carry_out(self._as_it_was(settings, followed))
            taken_down = work.state == "absent" and not self._insists
        if taken_down:
            self._forget_servers()
            self._pace.well(time.monotonic())
            return "down", "The host was taken down; it stays so until it is set up again."
        self._kept = {name: followed.values[name] for name in _OBSERVED if settings.origin(name) == "built-in"}
        told_to, self._insists = self._insists, False
        self._watch_servers(work)
        if work.changes:
            self._tell(Report("mended", "", work.changes))
        if told_to and work.changes:
            self._pace.well(time.monotonic())
            self._pace.news(time.monotonic())
        elif delay := self._pace.well(time.monotonic(), [change.object for change in work.changes]):
            names = ", ".join(change.object for change in work.changes[:3])
            text = f"Somebody undoes what is mended ({names}): the next time is in {delay:g} s at the earliest."
            self._tell(Report("quarrel", text, work.changes))
        limit = lazy.limit(followed)
        text = (
            f"The host serves {limit} instance{'' if limit == 1 else 's'}." if limit else "Nothing is to be served."
        )
        return "ready", text

    def _as_it_was(self, settings: Settings, followed: Settings) -> Settings:
        """Return the settings, with what is in none of them as it was at the last look at which all was well.

        On a host that is damaged, what tells how it was set up may be gone too: the last instance, say. Had somebody
        else set it up differently, all would be well. More instances are somebody's half-done set-up.
        """
        kept = {name: value for name, value in self._kept.items() if settings.origin(name) == "built-in"}
        if _INSTANCES in kept and kept[_INSTANCES].value < followed[_INSTANCES]:
            del kept[_INSTANCES]
        return replace(settings, values={**settings.values, **kept})

    def _carry_out(self, settings: Settings) -> tuple[Plan, Settings]:
        """Mend under the host's lock; running devices keep what they have.

        :raises BlockingIOError: if somebody else is changing the host.
        """
        followed: list[Settings] = []

        def compute() -> Plan:
            try:
                work, found = host.check(settings)
            except DevicesUp:
                # More instances than there should be, with devices on them: the rest is mended all the same.
                work, found = host.check(settings, spare=True)
            followed.append(found)
            # Taken down by somebody else while we looked.
            return replace(work, changes=()) if work.state == "absent" and not self._insists else work

        work = host.carry_out("host run", compute, keep=not self._insists, on_wait=_busy)
        return work, followed[0]

    def _serve(self) -> None:
        """Serve taps on request, if that is how the host is set up."""
        wanted = self._inherited is not None or lazy.written() is not None
        if wanted and not self._serving:
            self._service.enter_context(tap_service.serving(self._inherited, self._served))
        elif not wanted and self._serving:
            self._service.close()
        self._serving = wanted

    def _served(self, what: str, work: Plan) -> None:
        if work.changes:
            self._tell(Report("taps", what, work.changes))

    def _watch_servers(self, work: Plan) -> None:
        """Hold a pidfd of each DHCP server: its end can be read from it (pidfd_open(2))."""
        pids = {server.pid for server in work.observed.servers if server.marked}
        for pid in self._servers.keys() - pids:
            os.close(self._servers.pop(pid))
        for pid in pids - self._servers.keys():
            try:
                self._servers[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._pace.news(time.monotonic())

    def _forget_servers(self) -> None:
        while self._servers:
            os.close(self._servers.popitem()[1])

    # -- telling ---------------------------------------------------------------------------------------

    def _wait_for(self, error: CfctlError) -> None:
        """Say once what stands in the way, and try again later."""
        self._pace.refused(time.monotonic())
        if self._said != error.brief:
            self._said = error.brief
            self._tell(Report("waiting", error.brief, error=error))
            self._manager.status(f"waiting: {error.brief}")

    def _settled(self, kind: Kind, text: str) -> None:
        if self._said != text:
            self._said = text
            self._tell(Report(kind, text))
            self._manager.status(text)

    def _tell(self, report: Report) -> None:
        with self._hearing:
            self._hear(report)


class _Notes(steps.Silent):
    """Hands on what people should know; steps are not told one by one."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self._tell = tell

    def note(self, text: str) -> None:
        """Tell it."""
        self._tell(Report("note", text))


def _busy() -> None:
    raise BlockingIOError("somebody else is changing the host")
