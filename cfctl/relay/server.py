"""The daemon: its sockets, what answers behind them, and its life from start to a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import resource
import shutil
import signal
import socket
import stat
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import disk, locks, paths
from cfctl.errors import AlreadyServed, CfctlError, UsageError
from cfctl.hostres.service_manager import Manager
from cfctl.relay import certificates, people, scrape
from cfctl.relay.audit import Audit
from cfctl.relay.certificates import Certificate, Tls
from cfctl.relay.limits import Limits
from cfctl.relay.media.ice import Ice
from cfctl.relay.tokens import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfctl.relay.composition import Composition
    from cfctl.relay.media.hands import Mode


log = logging.getLogger(__name__)

#: Members may connect to the system's relay; each sees the own devices.
_GROUP = "cvdnetwork"

_BACKLOG = 512

#: sun_path, with its zero byte (unix(7)).
_LONGEST_PATH = 107

_API, _WEB = "api.sock", "web.sock"


@dataclass(frozen=True, slots=True)
class Options:
    """How a relay is to be.

    :param grpc: where callers from elsewhere are heard; None is nowhere.
    :param metrics: where Prometheus is answered; None is nowhere.
    :param web: where browsers are answered; None is nowhere, and no streamer can register.
    :param control: whether one viewer controls a device at a time, or all that may.
    :param ice: STUN and TURN.
    :param turn: where a TURN server of the relay's own listens; None if there is none.
    :param turn_ports: the first and last port that it passes on from.
    :param certificate: the administrator's own; None is the relay's.
    :param drain_s: how long a launch may go on after the relay was told to stop.
    """

    grpc: tuple[str, int] | None = None
    metrics: tuple[str, int] | None = None
    web: tuple[str, int] | None = None
    control: Mode = "one"
    ice: Ice = field(default_factory=Ice)
    turn: tuple[str, int] | None = None
    turn_ports: tuple[int, int] = (49152, 50175)
    certificate: Certificate | None = None
    drain_s: float = 30.0
    limits: Limits = field(default_factory=Limits)


def address(text: str) -> tuple[str, int] | None:
    """Split an address as the settings have it: ``ADDR:PORT`` or ``[ADDR]:PORT``; nothing is None."""
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if text else None


class Server:
    """One relay.

    :param tell: called with each document that says what it does: where it listens, and that it leaves.
    """

    def __init__(self, options: Options, tell: Callable[[dict[str, Any]], None]) -> None:
        self._options = options
        self._tell = tell
        self._paths = paths.current()
        self._manager = Manager()
        self._tls: Tls | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one does not wait. SIGHUP has certificate and log read again.

        :raises AlreadyServed: if another relay of this user runs.
        :raises CfctlError: if it cannot listen where it is told to.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.sole(self._paths.relay_lock))
            except BlockingIOError:
                raise AlreadyServed(locks.holder(self._paths.relay_lock) or 0) from None
            # gRPC would have each child look after its threads, of which it has none.
            os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
            _many_files()
            if sys.version_info < (3, 12):
                # Later ones choose it themselves: without a thread for each child.
                asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        from cfctl.relay.composition import Composition

        async with contextlib.AsyncExitStack() as stack:
            inside = stack.enter_context(_private(self._paths.relay_inside))
            _nowhere(self._paths.relay_nowhere)
            audit = Audit(self._paths.relay_audit)
            audit.open()
            stack.callback(audit.close)
            whole = Composition(
                own=people.by_uid(os.geteuid()),
                inside=inside / _API,
                nowhere=self._paths.relay_nowhere,
                tokens=Store(self._paths.relay_tokens),
                audit=audit,
                limits=self._options.limits,
            )
            await whole.start()
            try:
                self._listen(whole, stack)
                await self._show(whole, stack)
                await self._until_told(whole, audit)
            finally:
                await whole.stop(0)

    def _listen(self, whole: Composition, stack: contextlib.AsyncExitStack) -> None:
        """Open the sockets, and say where they are."""
        path = self._paths.relay_socket
        whole.front.listen(_unix_listener(path), None)
        stack.callback(path.unlink, missing_ok=True)
        self._heard(whole, "unix", str(path))
        if self._options.grpc is not None:
            tls = self._with_certificate()
            listener = _tcp_listener(self._options.grpc)
            whole.front.listen(listener, lambda: tls.context)
            self._heard(whole, "grpc", _shown(listener), fingerprint=tls.certificate.fingerprint)
        if self._options.metrics is not None:
            self._listen_metrics(whole, stack, self._options.metrics)

    def _listen_metrics(self, whole: Composition, stack: contextlib.AsyncExitStack, where: tuple[str, int]) -> None:
        """Let Prometheus ask: on loopback anybody, elsewhere by TLS and with a token."""
        listener = _tcp_listener(where)
        open_ = scrape.is_loopback(listener)
        tls = None if open_ else self._with_certificate()
        served = scrape.Scrape(
            listener,
            tls=(lambda: tls.plain) if tls else None,
            allowed=None if open_ else whole.may_measure,
            text=whole.metrics_text,
        )
        task = asyncio.create_task(served.serve())
        stack.callback(task.cancel)
        about = {"fingerprint": tls.certificate.fingerprint} if tls else {}
        self._heard(whole, "metrics", _shown(listener), **about)

    async def _show(self, whole: Composition, stack: contextlib.AsyncExitStack) -> None:
        """Answer browsers, and let streamers register."""
        if self._options.web is None:
            return
        # Imported here: WebRTC takes 0.4 s and 60 MB, which a relay without screens does not need.
        from cfctl.relay.front import Behind
        from cfctl.relay.splice import begins_http1
        from cfctl.relay.web.composition import WebSide

        listener = _tcp_listener(self._options.web)
        tls = None if scrape.is_loopback(listener) else self._with_certificate()
        side = WebSide(
            connection=whole.front.connection,
            own=whole.own,
            tokens=whole.tokens,
            sessions=self._paths.relay_sessions,
            lists=whole.lists,
            ways=whole.ways,
            audit=whole.audit,
            ice=await self._turn(whole, stack),
            mode=self._options.control,
            url=_url(listener, secure=tls is not None),
            secure=tls is not None,
        )
        unix = []
        for path in (self._paths.relay_streamers, self._paths.relay_expected):
            unix.append(_unix_listener(path, socket.SOCK_SEQPACKET))
            stack.callback(path.unlink, missing_ok=True)
        stack.push_async_callback(side.close)
        inside = self._paths.relay_inside / _WEB
        await side.serve(inside, *unix)
        behind = Behind("web", inside, begins_http1, self._options.limits.per_peer_web)
        whole.front.listen(listener, (lambda: tls.plain) if tls else None, behind)
        whole.screens = side
        about = {"fingerprint": tls.certificate.fingerprint} if tls else {}
        self._heard(whole, "web", side.url, **about)
        self._heard(whole, "streamers", str(self._paths.relay_streamers))

    async def _turn(self, whole: Composition, stack: contextlib.AsyncExitStack) -> Ice:
        """Start a TURN server, if there is to be one; return what viewers are told."""
        ice = self._options.ice
        if self._options.turn is None:
            return ice
        from cfctl.relay.media.turn import TurnServer

        if ice.turn:
            raise UsageError(
                "the relay's own TURN server has a secret of its own",
                "relay.turn_servers names others.",
                "Leave one of them out: relay.turn or relay.turn_servers",
            )
        if self._options.turn[0] in ("0.0.0.0", "[::]", "::"):
            raise UsageError(
                f"{self._options.turn[0]} is no address that a viewer reaches",
                "A TURN server tells viewers its address, and passes on from it.",
                "Give one of this host's: ip -brief address",
            )
        turn = TurnServer(*self._options.turn, self._options.turn_ports, self._paths.relay_inside, whole.own)
        stack.push_async_callback(turn.close)
        await turn.start()
        self._heard(whole, "turn", turn.address)
        return replace(ice, turn=turn.urls, secret=turn.secret)

    def _heard(self, whole: Composition, what: str, where: str, **more: str) -> None:
        """Say where callers are heard."""
        listener = {"what": what, "address": where, **more}
        whole.listeners.append(listener)
        self._tell({"event": "listening", **listener})

    def _with_certificate(self) -> Tls:
        """Return the certificate, read when it is first needed.

        :raises CfctlError: if it cannot be used, or not be made.
        """
        if self._tls is None:
            own = self._paths.relay_certificate, self._paths.relay_key
            self._tls = Tls(self._options.certificate or certificates.ensure(*own))
        return self._tls

    def _read_certificate(self) -> None:
        """Read the certificate again; as long as the new one cannot be used, the old one is."""
        if self._tls is not None:
            self._tls.read()

    async def _until_told(self, whole: Composition, audit: Audit) -> None:
        """Serve until a signal says otherwise, and then come to an end."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, told.put_nowait, number)
        self._manager.ready("serving")
        self._tell({"event": "ready"})
        alive = asyncio.create_task(self._live())
        while await told.get() is signal.SIGHUP:
            self._reload(audit)
        alive.cancel()
        self._manager.stopping()
        self._tell({"event": "leaving", "calls": whole.gate.calls})
        leaving = asyncio.create_task(whole.stop(self._options.drain_s))
        again = asyncio.create_task(told.get())
        await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if not leaving.done():
            # Asked twice.
            leaving.cancel()
            await asyncio.wait({leaving})
            await whole.stop(0)

    async def _live(self) -> None:
        """Tell systemd again and again that nothing hangs, if it wants to know."""
        while self._manager.every_s is not None:
            self._manager.alive()
            await asyncio.sleep(self._manager.every_s)

    def _reload(self, audit: Audit) -> None:
        """Read again what can be read again; what cannot be used is said, and left as it was."""
        self._manager.reloading()
        for read in (self._read_certificate, audit.open):
            try:
                read()
            except CfctlError as error:
                log.warning("%s", error)
                self._tell({"event": "error", "error": error.as_dict()})
        self._manager.ready("serving")
        self._tell({"event": "reloaded"})


# -- sockets -------------------------------------------------------------------------------------------------


def _many_files() -> None:
    """Allow as many open files as the host lets us: two for each connection."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _unix_listener(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Listen on the relay's own socket; as root for the group, otherwise for nobody else.

    :raises CfctlError: if it cannot be made.
    """
    _short_enough(path)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        # We hold the lock: whoever left it is gone.
        path.unlink(missing_ok=True)
        sock.bind(os.fspath(path))
        if os.geteuid() == 0:
            with contextlib.suppress(KeyError):
                os.chown(path, 0, grp.getgrnam(_GROUP).gr_gid)
                path.chmod(0o660)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise disk.error(path, exc) from exc
    finally:
        os.umask(before)
    return sock


def _tcp_listener(where: tuple[str, int]) -> socket.socket:
    """Listen on an address.

    :raises CfctlError: if somebody else does, or this host has no such address.
    """
    host, port = where
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as exc:
        helps = {
            errno.EADDRINUSE: f"See who does: ss -ltnp 'sport = :{port}'",
            errno.EADDRNOTAVAIL: "See which addresses this host has: ip -brief address",
            errno.EACCES: "Ports below 1024 are root's: take a higher one.",
        }
        why = os.strerror(exc.errno) if exc.errno in helps else exc.strerror
        raise CfctlError(f"the relay cannot listen on {host}:{port}", why, helps.get(exc.errno or 0)) from exc


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(listener: socket.socket, *, secure: bool) -> str:
    """Return where a browser on another host finds a listener, as well as can be told here."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http{'s' if secure else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _short_enough(path: Path) -> None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise UsageError(f"{path} is too long for a socket", f"The kernel takes {_LONGEST_PATH} bytes (unix(7)).")


@contextlib.contextmanager
def _private(directory: Path) -> Iterator[Path]:
    """Give a new directory for the block that nobody else may enter.

    :raises CfctlError: if it cannot be made.
    """
    _short_enough(directory / _API)
    try:
        # Made anew: whatever was there may be open to others.
        if directory.is_symlink() or directory.is_file():
            directory.unlink()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        about = directory.lstat()
    except OSError as exc:
        raise disk.error(directory, exc) from exc
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) != 0o700:
        raise CfctlError(f"{directory} is not the relay's own", None, f"Look at it: ls -ld {directory}")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _nowhere(directory: Path) -> None:
    """Make the empty directory of the children.

    :raises CfctlError: if it cannot be made, or is not empty.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o555)
        if directory.is_symlink() or any(directory.iterdir()):
            raise CfctlError(f"{directory} is not empty", None, f"Empty it: sudo rm -r {directory}")
    except OSError as exc:
        raise disk.error(directory, exc) from exc
