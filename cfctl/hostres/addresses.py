"""Which addresses the host's taps have: the kernel is asked, since settings may have changed since the set-up."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface

from cfctl.errors import HostLacks
from cfctl.instance import Instance, PointToPoint

# linux/sockios.h
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B

#: struct ifreq: a name, then a struct sockaddr_in: family, port, address, padding.
_REQUEST = struct.Struct("=16sHH4s8x8x")


def mobile(instance: Instance) -> PointToPoint:
    """Return an instance's mobile network as the host has it; needs no root and starts no program.

    :raises HostLacks: if its tap is not there, or has no address.
    """
    name = instance.mobile.tap
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            address = _ask(sock, _SIOCGIFADDR, name)
            mask = _ask(sock, _SIOCGIFNETMASK, name)
        except OSError as exc:
            raise HostLacks(
                f"{name} has no address: {exc.strerror}",
                f"The guest of {instance.id} takes its mobile address from there.",
                f"Mend it: sudo cfctl host setup --instances {instance.number}",
            ) from exc
    return PointToPoint(name, IPv4Interface(f"{address}/{mask}"))


def _ask(sock: socket.socket, request: int, name: str) -> IPv4Address:
    answer = fcntl.ioctl(sock, request, _REQUEST.pack(name.encode(), socket.AF_INET, 0, bytes(4)))
    return IPv4Address(_REQUEST.unpack(answer)[3])
