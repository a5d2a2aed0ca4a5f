"""What must be true before a VM is started, in upstream's words (launcher.md section 9)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.errors import HostLacks, NumberTaken
from cfctl.hostres import addresses

if TYPE_CHECKING:
    from cfctl.instance import Instance

#: linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def taps(instance: Instance) -> None:
    """Take hold of each tap of an instance for a moment.

    :raises HostLacks: if one does not exist, may not be used by this user, or lacks its address.
    :raises NumberTaken: if one is in use.
    """
    for name in (instance.wifi_tap, instance.mobile.tap, instance.ethernet_tap):
        _tap(name, instance)
    addresses.mobile(instance)


def _tap(name: str, instance: Instance) -> None:
    failed = "Failed to validate tap devices"
    if not (Path("/sys/class/net") / name).exists():
        raise HostLacks(
            failed,
            f"Tap interface does not exist: {name}",
            f"Make it: sudo cfctl host setup --instances {instance.number}",
        )
    try:
        fd = os.open(paths.TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise HostLacks(
            failed, f"Unable to open tun device: {paths.TUN}: {exc.strerror}", "Load it: sudo modprobe tun"
        ) from exc
    try:
        request = struct.pack("=16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as exc:
        detail = f"Unable to connect to tap interface: {name}: {exc.strerror}"
        if exc.errno == errno.EBUSY:
            raise NumberTaken(failed, detail, f"Somebody runs number {instance.number}: cfctl ps") from exc
        raise HostLacks(
            failed, detail, "Be a member of its group: sudo usermod -aG cvdnetwork $USER (then log in again)"
        ) from exc
    finally:
        os.close(fd)
