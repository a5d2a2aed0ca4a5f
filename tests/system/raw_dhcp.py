"""A DHCP client that reads raw packets and believes their checksum, as old ones do.

``python -m tests.system.raw_dhcp INTERFACE``; prints the offered address and whether its UDP checksum is ``right``.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path

_ETHERTYPE_IPV4 = 0x0800
_UDP = 17
_XID = 0x12345678
_OPTIONS = b"\x63\x82\x53\x63" + b"\x35\x01\x01" + b"\xff"  # RFC 2131: magic cookie, DISCOVER, end


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def discover(mac: bytes) -> bytes:
    bootp = struct.pack("!BBBBIHH", 1, 1, 6, 0, _XID, 0, 0x8000) + bytes(16) + mac + bytes(10 + 192) + _OPTIONS
    udp = struct.pack("!HHHH", 68, 67, 8 + len(bootp), 0) + bootp
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, bytes(4), b"\xff" * 4)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return b"\xff" * 6 + mac + struct.pack("!H", _ETHERTYPE_IPV4) + header + udp


def offer(frame: bytes) -> tuple[str, bool] | None:
    """Return the offered address, and whether the UDP checksum is right; None for another frame."""
    packet = frame[14:]
    if len(packet) < 48 or packet[9] != _UDP or packet[20:24] != struct.pack("!HH", 67, 68):
        return None
    udp = packet[20 : struct.unpack_from("!H", packet, 2)[0]]
    pseudo = packet[12:20] + struct.pack("!BBH", 0, _UDP, len(udp))
    return socket.inet_ntoa(udp[8 + 16 : 8 + 20]), checksum(pseudo + udp) == 0


def ask(interface: str, deadline_s: float = 30) -> tuple[str, bool]:
    mac = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().replace(":", ""))
    deadline = time.monotonic() + deadline_s
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_IPV4)) as sock:
        sock.bind((interface, _ETHERTYPE_IPV4))
        sock.settimeout(1)
        while time.monotonic() < deadline:
            sock.send(discover(mac))
            try:
                while not (found := offer(sock.recv(2048))):
                    pass
            except TimeoutError:
                continue
            return found
    raise SystemExit("nobody offers an address")


if __name__ == "__main__":
    address, right = ask(sys.argv[1])
    print(address, "right" if right else "wrong")
