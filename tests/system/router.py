"""An IPv6 router that advertises itself once: ``python -m tests.system.router INTERFACE`` (RFC 4861, section 4.2)."""

from __future__ import annotations

import socket
import struct
import sys
import time

TYPE_RA = 134
LIFETIME_S = 1800


def advertise(interface: str) -> None:
    """Send one router advertisement to all nodes on the link; the kernel fills in the checksum."""
    index = socket.if_nametoindex(interface)
    message = struct.pack("!BBHBBHII", TYPE_RA, 0, 0, 64, 0, LIFETIME_S, 0, 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        # Nodes ignore one that may have crossed a router.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        deadline = time.monotonic() + 5
        while True:
            try:
                sock.sendto(message, ("ff02::1", 0, 0, index))
            except OSError:
                # Its link-local address is still tentative.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


if __name__ == "__main__":
    advertise(sys.argv[1])
