"""Holds taps open as a VMM does: ``python -m tests.system.tap_client TAP...``; says its pid, then waits."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time

TUNSETIFF = 0x400454CA
FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR


def attach(name: str) -> int:
    """Attach to a tap the way crosvm and QEMU do."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), FLAGS))
    return fd


if __name__ == "__main__":
    held = [attach(name) for name in sys.argv[1:]]
    print(os.getpid(), flush=True)
    time.sleep(600)
