"""Asking for the taps of an instance, in lazy mode: root makes them itself, everybody else asks root's service."""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING, Literal

from cfctl import paths
from cfctl.errors import CfctlError, DeadlinePassed, HostLacks

if TYPE_CHECKING:
    from cfctl.locks import NumberLock

#: The service may have to wait for another cfctl that changes the host; its own work takes less than a second.
_PATIENCE_S = 60.0


def make(lock: NumberLock) -> None:
    """Get the taps of a number that we hold.

    :raises HostLacks: if there is no service, we may not use it, or the host does not serve the number.
    :raises CfctlError: if they cannot be made.
    """
    _ask("make", lock)


def remove(lock: NumberLock) -> None:
    """Have the taps of a number removed that we hold.

    :raises DevicesUp: if one is in use.
    :raises CfctlError: see :func:`make`; they may still be there then.
    """
    _ask("remove", lock)


def _ask(action: Literal["make", "remove"], lock: NumberLock) -> None:
    if os.geteuid() == 0:
        # Here, because an ordinary user's launch needs none of it.
        from cfctl.hostres import tap_set

        (tap_set.make if action == "make" else tap_set.remove)(lock.instance.number)
        return
    from cfctl.hostres import tap_protocol

    request = tap_protocol.Request(action, lock.instance.number)
    path = paths.system().tap_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(_PATIENCE_S)
        try:
            client.connect(os.fspath(path))
            # The first of the locks is the one in today's place.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", lock.fds[:1]))
            client.sendmsg([tap_protocol.encode(request)], [rights])
            raw = client.recv(tap_protocol.ANSWER_BYTES)
        except TimeoutError as exc:
            raise DeadlinePassed(
                f"the tap service did not answer within {_PATIENCE_S:g} s",
                f"It was asked to {action} the taps of instance {lock.instance.number}.",
                "See what it does: systemctl status cfctl-host-run, or whoever runs: cfctl host run",
            ) from exc
        except (BrokenPipeError, ConnectionResetError):
            raw = b""
        except OSError as exc:
            raise _no_service(exc) from exc
    if not raw:
        raise CfctlError(
            "the tap service hung up",
            "It ended, or serves too many of your requests at once.",
            "Try again; see what it says: systemctl status cfctl-host-run",
        )
    tap_protocol.raise_error(raw)


def _no_service(exc: OSError) -> HostLacks:
    from cfctl.hostres.desired import GROUP

    path = paths.system().tap_socket
    if isinstance(exc, PermissionError):
        return HostLacks(
            "you may not ask for taps",
            f"{path}: {exc.strerror}. Members of group {GROUP} may.",
            f"Join it: sudo usermod -aG {GROUP} $USER (then log in again)",
        )
    return HostLacks(
        "the service that makes taps does not run",
        f"The host makes them on request (host.lazy), and only root can. {path}: {exc.strerror}.",
        "Start it: sudo systemctl enable --now cfctl-taps.socket\nOr, without systemd: sudo cfctl host run",
    )
