"""Root's side of lazy mode: a socket on which members of cvdnetwork get the taps of the number that they hold.

One packet in, one packet out. Each client has a thread of its own with a deadline, and no user has more than a few:
whoever is slow, silent or hangs in a file system of its own keeps nobody else waiting.
"""

from __future__ import annotations

import array
import contextlib
import contextvars
import grp
import os
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.errors import CfctlError, UsageError
from cfctl.hostres import files, tap_proof, tap_protocol, tap_set
from cfctl.hostres.desired import GROUP
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cfctl.hostres.plan import Plan

#: The client has its request ready when it connects.
_PATIENCE_S = 5.0
_CLIENTS_PER_USER = 8
_BACKLOG = 64
#: One is expected; there is room for a second, to see that there were too many. The kernel closes what is beyond.
_DESCRIPTORS = 2
#: The first descriptor that systemd hands over (sd_listen_fds(3)).
_LISTEN_FDS_START = 3


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    """Listen for the block on a socket that is gone afterwards.

    :raises CfctlError: if another service listens there, or the path cannot be made.
    """
    path = paths.system().tap_socket
    files.make_directory(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        if _answers(path):
            raise CfctlError(
                "another tap service is running",
                f"Something listens on {path}.",
                f"See what it is: ss -xlp src {path}",
            )
        try:
            _bind(server, path)
        except (OSError, KeyError) as exc:
            raise CfctlError(f"the tap service cannot listen on {path}", str(exc), f"ls -ld {path.parent}") from exc
        try:
            yield server
        finally:
            path.unlink(missing_ok=True)


def _bind(server: socket.socket, path: Path) -> None:
    """Listen on a path; nobody may connect before its group and mode are right."""
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.bind(os.fspath(path))
    finally:
        os.umask(before)
    os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
    path.chmod(0o660)
    server.listen(_BACKLOG)


def _answers(path: os.PathLike[str]) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_PATIENCE_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def from_systemd() -> socket.socket | None:
    """Return the socket that we were started with (sd_listen_fds(3)), if there is one of the right kind."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    for name in ("LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    count = os.environ.pop("LISTEN_FDS", "")
    for fd in range(_LISTEN_FDS_START, _LISTEN_FDS_START + (int(count) if count.isdecimal() else 0)):
        os.set_inheritable(fd, False)  # noqa: FBT003 (it takes no keyword)
        found = socket.socket(fileno=fd)
        if found.family == socket.AF_UNIX and found.type == socket.SOCK_SEQPACKET:
            return found
        found.detach()
    return None


@contextlib.contextmanager
def serving(inherited: socket.socket | None, done: Callable[[str, Plan], None]) -> Iterator[None]:
    """Serve clients beside the block.

    :param inherited: a socket that listens already, and stays open afterwards; None makes one.
    :param done: hears what was done for whom.
    :raises CfctlError: if another service listens there.
    """
    with contextlib.nullcontext(inherited) if inherited else _listening() as server:
        service = _Service(server, done)
        thread = threading.Thread(target=contextvars.copy_context().run, args=(service.run,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            service.end()
            thread.join()


class _Service:
    def __init__(self, server: socket.socket, done: Callable[[str, Plan], None]) -> None:
        self._server = server
        self._done = done
        self._clients: Counter[int] = Counter()
        self._working: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._ending = False

    def run(self) -> None:
        """Accept clients until the end."""
        self._server.settimeout(0.2)
        while not self._ending:
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                # Out of descriptors, say: what is being served will give some back.
                threading.Event().wait(0.2)
                continue
            self._receive(client)

    def end(self) -> None:
        """Accept nobody any more; who is being served is served to the end."""
        self._ending = True
        with self._lock:
            working = list(self._working)
        for thread in working:
            thread.join(_PATIENCE_S * 2)

    def _receive(self, client: socket.socket) -> None:
        try:
            uid, groups = tap_proof.peer(client)
        except (OSError, KeyError):
            client.close()
            return
        with self._lock:
            if self._clients[uid] >= _CLIENTS_PER_USER:
                client.close()
                return
            self._clients[uid] += 1
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._serve, client, uid, groups), daemon=True)
        with self._lock:
            self._working.add(thread)
        thread.start()

    def _serve(self, client: socket.socket, uid: int, groups: set[int]) -> None:
        try:
            with client:
                client.settimeout(_PATIENCE_S)
                answer = self._answer(client, uid, groups)
                with contextlib.suppress(OSError):  # It did not wait.
                    client.send(tap_protocol.encode(answer))
        finally:
            with self._lock:
                self._clients[uid] -= 1
                self._working.discard(threading.current_thread())

    def _answer(self, client: socket.socket, uid: int, groups: set[int]) -> tap_protocol.Answer:
        # The descriptors are closed before the answer: once it has that, the caller may give the number away.
        try:
            with _received(client) as (raw, fds):
                tap_proof.require_member(uid, groups)
                request = tap_protocol.decode_request(raw)
                if len(fds) != 1:
                    raise UsageError(f"one descriptor proves who holds the number, not {len(fds)}")
                tap_set.required(request.number)
                tap_proof.require_holder(fds[0], request.number)
                plan = (tap_set.make if request.action == "make" else tap_set.remove)(request.number)
        except CfctlError as error:
            return tap_protocol.answer(error)
        except (OSError, ValueError) as exc:
            note(f"The tap service could not serve user {uid}: {exc}")
            return tap_protocol.answer(CfctlError("the tap service failed", str(exc)))
        self._done(f"user {uid} asked to {request.action} the taps of instance {request.number}", plan)
        return tap_protocol.answer()


@contextlib.contextmanager
def _received(client: socket.socket) -> Iterator[tuple[bytes, list[int]]]:
    """Take one packet with its descriptors, which are closed after the block.

    :raises UsageError: for one that is too large, or with too many descriptors.
    """
    fds = array.array("i")
    room = socket.CMSG_SPACE(_DESCRIPTORS * fds.itemsize)
    try:
        raw, ancillary, flags, _ = client.recvmsg(tap_protocol.REQUEST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise UsageError("the request is too large, or has too many descriptors")
        yield raw, list(fds)
    finally:
        for fd in fds:
            os.close(fd)
