"""Taps by the tun driver's ioctls (Documentation/networking/tuntap.rst), and which of them are there and in use.

A tap lives as long as a descriptor has it, unless it is made persistent. So it is made persistent last, when it has
group, mark, bridge and address: a set-up that is killed before leaves no tap behind.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import re
import resource
import socket
import struct
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.errors import CfctlError, DevicesUp, HostLacks
from cfctl.instance import MAX_INSTANCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETGROUP = 0x400454CE
_TUNGETIFF = 0x800454D2
_IFF_TAP = 0x0002
_IFF_PERSIST = 0x0800
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK = 0x0000000A

#: struct ifreq: a name, then a union whose first member here is the flags.
_IFREQ = struct.Struct("16sH22x")

#: Descriptors that the rest of the process needs.
_SPARE_DESCRIPTORS = 64

_NAME = re.compile(r"cvd-(etap|wtap|mtap|wifiap)-(\d{2,3})")
_TAPS_PER_INSTANCE = 4


# -- making ----------------------------------------------------------------------------------------------


def chunk_size() -> int:
    """Return how many taps may be open at once; raises the soft limit of descriptors to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = MAX_INSTANCES * _TAPS_PER_INSTANCE + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < enough:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return enough if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_DESCRIPTORS)


@contextlib.contextmanager
def opened(names: Sequence[str], gid: int, discard: Callable[[Sequence[str]], None]) -> Iterator[list[int]]:
    """Make taps, or open those that are there, for the block: with upstream's flags and group.

    A tap that was made here is gone after the block unless :func:`persist` kept it.

    :param gid: the group whose members may open them.
    :param discard: deletes taps all at once, after a failure or an interruption: those that would be gone anyway, but
        one by one, for which the kernel takes 20 ms each.
    :raises HostLacks: without the tun driver.
    :raises CfctlError: if a tap is in use or of another kind; those made before it are gone.
    """
    with contextlib.ExitStack() as stack:
        fds: list[int] = []
        try:
            for name in names:
                try:
                    fd = os.open(paths.TUN, os.O_RDWR | os.O_CLOEXEC)
                    stack.callback(os.close, fd)
                    fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
                    fcntl.ioctl(fd, _TUNSETGROUP, gid)
                except OSError as exc:
                    raise _error(name, exc) from exc
                fds.append(fd)
            yield fds
        except BaseException:
            # If that fails too, closing them does it.
            with contextlib.suppress(CfctlError, OSError):
                if passing := _passing(fds):
                    discard(passing)
            raise


def persist(fds: Sequence[int]) -> None:
    """Let taps outlive their descriptors."""
    for fd in fds:
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)


def _passing(fds: Sequence[int]) -> list[str]:
    """Return the names of those open taps that end with their descriptors: nobody has made them persistent."""
    found = []
    for fd in fds:
        # ENODEV and EBADFD: it was deleted while we had it open.
        with contextlib.suppress(OSError):
            name, flags = _IFREQ.unpack(fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size)))
            if not flags & _IFF_PERSIST:
                found.append(name.rstrip(b"\0").decode())
    return found


def _error(name: str, exc: OSError) -> CfctlError:
    if exc.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return HostLacks(
            f"there is no {paths.TUN}",
            "The kernel's tun driver is not loaded, or this container was not given the device.",
            f"Load it: modprobe tun\nIn a container: docker run --device {paths.TUN} ...",
        )
    if exc.errno in (errno.EPERM, errno.EACCES):
        return HostLacks(
            f"{name} cannot be made: {exc.strerror}",
            "The right to administer the network (CAP_NET_ADMIN) is missing.",
            "In a container: docker run --cap-add NET_ADMIN ...",
        )
    if exc.errno == errno.EBUSY:
        return DevicesUp(
            f"{name} is in use",
            "It must be opened to be mended, and only one program at a time can have it open.",
            "Stop the device first: cfctl ps, cfctl stop NAME",
        )
    return CfctlError(f"{name} cannot be made: {exc.strerror}", None, f"Look at it: ip -d link show {name}")


# -- asking (cheap, and for everybody) -------------------------------------------------------------------


def _taps() -> dict[int, list[str]]:
    """Return the taps of this network namespace that bear an instance's name, by number."""
    found: dict[int, list[str]] = {}
    for _, name in socket.if_nameindex():
        match = _NAME.fullmatch(name)
        if match and 1 <= int(match[2]) <= MAX_INSTANCES:
            found.setdefault(int(match[2]), []).append(name)
    return found


def served_numbers() -> set[int]:
    """Return the instance numbers that the host serves: all four taps are there, whoever made them.

    Needs no root and starts no program.
    """
    return {number for number, names in _taps().items() if len(set(names)) == _TAPS_PER_INSTANCE}


def busy_numbers() -> set[int]:
    """Return the instance numbers of which some tap is open: a device runs on it.

    Needs no root and starts no program.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return {number for number, names in _taps().items() if any(_running(sock, name) for name in names)}


def _running(sock: socket.socket, name: str) -> bool:
    """Tell whether somebody has the tap open: its carrier, as it is now.

    IFF_RUNNING is not asked: it follows the carrier with up to a second's delay (the kernel's linkwatch), long
    enough to take a tap for idle whose VM has just been started, or for busy after the VM has ended.
    """
    answer = array.array("I", [_ETHTOOL_GLINK, 0])
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), answer.buffer_info()[0]))
    except OSError:
        return False  # it went away in the meantime
    return bool(answer[1])
