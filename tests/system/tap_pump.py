"""A VMM's network without the VM: ``python -m tests.system.tap_pump TAP NETNS`` leads a tap's frames to and from an
interface ``eth0`` in a network namespace, with checksum offload, and says its pid.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import sys
from pathlib import Path

from tests.system.tap_client import attach

# linux/if_tun.h, linux/sched.h
TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM = 0x01
CLONE_NEWNET = 0x40000000


def offloading(name: str) -> int:
    """Attach to a tap; the kernel leaves checksums to its reader then."""
    fd = attach(name)
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM)
    return fd


def enter(netns: str) -> None:
    with Path("/run/netns", netns).open("rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), netns)


def pump(one: int, other: int) -> None:
    while True:
        readable, _, _ = select.select([one, other], [], [])
        for fd in readable:
            # With the header that says whether the checksum is still to be made (IFF_VNET_HDR).
            os.write(other if fd == one else one, os.read(fd, 65536))


if __name__ == "__main__":
    tap, netns = sys.argv[1:]
    outside = offloading(tap)
    # The device file is of the namespace of whoever opens it.
    enter(netns)
    inside = offloading("eth0")
    print(os.getpid(), flush=True)
    pump(outside, inside)
