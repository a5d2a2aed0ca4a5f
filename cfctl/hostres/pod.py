"""What a pod or container has been given by its network: the interface, its address, its routes, its name servers.

The functions here read what ``ip`` has printed and change nothing. Routes are kept in ip's own words, not as JSON:
``ip route add`` takes back every word that ``ip -d route show`` prints, whatever options a route has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from cfctl.errors import HostLacks

#: What the kernel says about a route at this moment, which nobody can set.
_STATES = {"linkdown", "dead", "pervasive", "offload", "trap", "offload_failed"}
#: As ``ip -j addr`` prints a lifetime without end.
_FOREVER = 4294967295
#: A host name that DHCP may carry (RFC 1123, section 2.1).
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

_RESOLUTION = "Look at the network of the container: ip -4 addr; ip -4 route"


@dataclass(frozen=True, slots=True)
class Pod:
    """All that the VM is to get, and all that is needed to give it back.

    :param interface: the interface that leads out of the pod.
    :param mac: its MAC, by which the network outside knows the pod.
    :param mtu: in bytes.
    :param address: the pod's address with its prefix length.
    :param addresses: what ``ip addr replace`` needs to make each address of the interface again.
    :param routes: the IPv4 routes over the interface, as ``ip route add`` takes them.
    :param dns: name servers that the VM can reach.
    :param search: the domains in which names are looked for.
    :param hostname: the pod's name; empty if DHCP cannot carry it.
    :param neighbours: entries for ARP that were made by hand, as ``ip neigh replace`` takes them.
    """

    interface: str
    mac: str
    mtu: int
    address: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hostname: str = ""
    neighbours: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Pod:
        """Return what :meth:`as_dict` has written."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(**fields)

    @property
    def gateway(self) -> str | None:
        """The gateway of the default route; None if that is on the link, or there is none."""
        return next((gateway for network, gateway in self.dhcp_routes if not network.prefixlen), None)

    @property
    def dhcp_routes(self) -> list[tuple[IPv4Network, str | None]]:
        """The VM's routes: network and gateway, None for what is on the link.

        What is on the link comes first and the default route last: its gateway may be reached by one of the others
        (a pod with a /32 address has its gateway by a route of its own).
        """
        found: dict[IPv4Network, tuple[int, str | None]] = {}
        own = IPv4Interface(self.address)
        for line in self.routes:
            words = _words(line)
            network = _network(words["dst"])
            foreign = words.get("src", str(own.ip)) != str(own.ip)
            if words["type"] != "unicast" or words.get("table", "main") != "main" or foreign:
                continue
            metric = int(words.get("metric", 0))
            if "onlink" in line.split():
                # DHCP cannot say it of a gateway, but of the gateway's own network.
                found.setdefault(IPv4Network(words["via"]), (0, None))
            if network != own.network and (network not in found or metric < found[network][0]):
                found[network] = (metric, words.get("via"))
        routes = [(network, gateway) for network, (_, gateway) in found.items()]
        return sorted(routes, key=lambda route: (route[1] is not None, -route[0].prefixlen))


def discover(
    interfaces: Sequence[Mapping[str, Any]],
    routes: Sequence[str],
    resolv_conf: str,
    hostname: str,
    neighbours: Sequence[Mapping[str, Any]] = (),
) -> Pod:
    """Return the pod's network.

    The interface is that of the default route with the lowest metric, else ``eth0``.

    :param interfaces: what ``ip -d -j addr`` printed.
    :param routes: what ``ip -d -4 route show table all`` printed, see :func:`route_lines`.
    :param resolv_conf: what stands in ``/etc/resolv.conf``.
    :param neighbours: what ``ip -4 -j neigh show nud permanent`` printed.
    :raises HostLacks: if there is nothing that a VM could be given.
    """
    defaults = [
        words for words in map(_words, routes) if words["dst"] == "default" and words.get("table", "main") == "main"
    ]
    defaults.sort(key=lambda words: int(words.get("metric", 0)))
    name = next((words["dev"] for words in defaults if "dev" in words), "eth0")
    raw = next((raw for raw in interfaces if raw["ifname"] == name), None)
    if raw is None:
        raise HostLacks("the pod has no network", f"There is no default route, and no interface {name}.", _RESOLUTION)
    inet = [info for info in raw.get("addr_info", ()) if info.get("family") == "inet"]
    mine = [line for line in routes if _words(line).get("dev") == name and not _kernels_own(line)]
    if not inet or not mine:
        lacking = "no IPv4 address" if not inet else "no route"
        raise HostLacks(
            f"{name} has {lacking}",
            "The VM is given the pod's address and routes, so there must be some.",
            _RESOLUTION,
        )
    if raw.get("link_type") != "ether":
        raise HostLacks(
            f"{name} cannot be a port of a bridge",
            f"It is of type {raw.get('link_type')}, and a bridge joins ethernet interfaces.",
            "Give the container an ethernet interface (veth, as bridges and most network plugins make it)",
        )
    if raw.get("master"):
        raise HostLacks(f"{name} is a port of {raw['master']} already", None, _RESOLUTION)
    for info in inet:
        if info.get("valid_life_time", _FOREVER) != _FOREVER:
            raise HostLacks(
                f"the address {info['local']} of {name} is only lent",
                "A DHCP client in the container renews it, and could not any more when the VM has the address.",
                "Give the container a fixed address",
            )
    return Pod(
        interface=name,
        mac=raw["address"],
        mtu=raw["mtu"],
        address=f"{inet[0]['local']}/{inet[0]['prefixlen']}",
        addresses=tuple(_address_words(info) for info in inet),
        routes=tuple(mine),
        dns=tuple(_name_servers(resolv_conf)),
        search=tuple(_search(resolv_conf)),
        hostname=label if _LABEL.fullmatch(label := hostname.partition(".")[0]) else "",
        neighbours=tuple(f"{n['dst']} lladdr {n['lladdr']}" for n in neighbours if n.get("dev") == name),
    )


def route_lines(text: str) -> list[str]:
    """Return the routes that ip printed, one a line: what follows in a line of its own belongs to the one before."""
    joined = re.sub(r"\s*\n[ \t]+", " ", text)
    return [" ".join(word for word in line.split() if word not in _STATES) for line in joined.splitlines() if line]


def routes_of(lines: Sequence[str], interface: str) -> list[str]:
    """Return the routes over an interface that are not the kernel's own."""
    return [line for line in lines if _words(line).get("dev") == interface and not _kernels_own(line)]


def mend_routes(wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the lines of ``ip -batch`` that make the routes what they were.

    The kernel makes a route with every address, with or without the pod's consent: what is there and was not goes.
    """
    missing = [line for line in wanted if line not in found]
    # A gateway must be reachable when its route is added.
    missing.sort(key=lambda line: "via" in line.split())
    return [
        *(f"route del {line}" for line in found if line not in wanted),
        *(f"route add {line}" for line in missing),
    ]


def _words(line: str) -> dict[str, str]:
    """Return a route's type and destination, and what follows the words that have a value."""
    kind, destination, *rest = line.split()
    pairs = {
        name: rest[index + 1]
        for index, name in reversed(list(enumerate(rest[:-1])))
        if name in ("via", "dev", "table", "proto", "src", "metric")
    }
    return {"type": kind, "dst": destination, **pairs}


def _kernels_own(line: str) -> bool:
    """Tell whether the kernel makes and removes the route with an address (``local`` and ``broadcast``)."""
    words = _words(line)
    return words.get("table") == "local" and words.get("proto") == "kernel"


def _network(destination: str) -> IPv4Network:
    return IPv4Network("0.0.0.0/0" if destination == "default" else destination)


def _address_words(info: Mapping[str, Any]) -> str:
    """Return the arguments of ``ip addr replace`` for one address of ``ip -d -j addr``."""
    words = [f"{info['local']}/{info['prefixlen']}"]
    if "address" in info:
        words = [info["local"], "peer", f"{info['address']}/{info['prefixlen']}"]
    for name in ("broadcast", "scope", "label", "metric"):
        if name in info:
            words += [name, str(info[name])]
    if info.get("noprefixroute"):
        words.append("noprefixroute")
    return " ".join(words)


def _name_servers(text: str) -> list[str]:
    """Return the IPv4 name servers; one on loopback (Docker's 127.0.0.11) is out of the VM's reach."""
    found = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", word, *_]:
                try:
                    address = IPv4Address(word)
                except AddressValueError:
                    continue
                if not address.is_loopback:
                    found.append(str(address))
    return found


def _search(text: str) -> list[str]:
    """Return the search list; the last line counts (resolv.conf(5))."""
    found: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["search" | "domain", *words]:
                found = [word.rstrip(".") for word in words if word.rstrip(".")]
    return found
