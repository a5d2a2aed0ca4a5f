"""The DNS servers that the host asks itself, as far as guests can ask them too."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cfctl import paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Resolvers:
    """What was found.

    :param origin: the file that names them.
    :param seen: everything that was read, for an error: files with their servers.
    """

    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    origin: str
    seen: str


def of_host(files: Sequence[Path] = paths.RESOLVERS) -> Resolvers:
    """Return the DNS servers of the first file that names one that is not only the host's own.

    systemd-resolved and NetworkManager put a server of their own on loopback into /etc/resolv.conf, and write
    elsewhere which ones it asks.

    :param files: as resolv.conf(5), best first.
    """
    seen = []
    for file in files:
        try:
            servers = parse(file.read_text(errors="replace"))
        except OSError:
            continue
        seen.append(f"{file} ({', '.join(servers) or 'no nameserver'})")
        usable = [server for server in servers if _can_be_asked(server)]
        if usable:
            ipv4 = tuple(server for server in usable if ":" not in server)
            ipv6 = tuple(server for server in usable if ":" in server)
            return Resolvers(ipv4, ipv6, str(file), "; ".join(seen))
    return Resolvers((), (), "", "; ".join(seen) or "no file at all")


def parse(text: str) -> list[str]:
    """Return the addresses of ``nameserver`` lines, in order, each once; what is no address is left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return list(dict.fromkeys(found))


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _can_be_asked(server: str) -> bool:
    """Tell whether a guest reaches the address: not the host's loopback, nor what holds on one link only."""
    address = ip_address(server)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)
