"""What is looked at before the first change, so that a set-up does no harm to the host."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths, process
from cfctl.errors import DevicesUp, SubnetClash
from cfctl.hostres import files

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence

Network = IPv4Network | IPv6Network

_TIMEOUT_S = 30
_IPV4 = 4

#: A route this wide says "everything else" (a VPN splits the default in two; 2000::/3 is all of IPv6 that is given
#: out): more specific ones may stand beside it.
_DEFAULT_PREFIX = {4: 1, 6: 3}

#: Routes that carry no packets: an administrator's net below narrower routes such as ours.
_DEAD_ENDS = ("blackhole", "unreachable", "prohibit", "throw", "broadcast", "multicast", "anycast")


# -- subnets -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """Where the host sends packets for a subnet.

    :param address: the address with its prefix length, if an interface has one there: the route goes with it.
    """

    subnet: Network
    device: str
    gateway: str | None = None
    address: str | None = None

    @property
    def removal(self) -> str:
        """The command that takes it away."""
        if self.address:
            return f"ip addr del {self.address} dev {self.device}"
        return f"ip route del {self.subnet} dev {self.device}"

    def __str__(self) -> str:
        if self.address:
            return f"address {self.address} on {self.device}"
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.subnet}{via} on {self.device}"


def routes(version: int = 4) -> list[Route]:
    """Return the host's routes of all tables but the default ones.

    :param version: of IP.
    """
    argv = ["ip", f"-{version}", "-j", "route", "show", "table", "all"]
    result = process.run(argv, timeout=_TIMEOUT_S)
    found = []
    for raw in json.loads(result.stdout or "[]"):
        if raw.get("dst", "default") == "default" or raw.get("type") in _DEAD_ENDS:
            continue
        hops = raw.get("nexthops") or [raw]
        route = Route(ip_network(raw["dst"]), hops[0].get("dev", "?"), hops[0].get("gateway"))
        if route.subnet.prefixlen > _DEFAULT_PREFIX[version]:
            found.append(route)
    return found


def with_addresses(there: Iterable[Route], addresses: Iterable[tuple[str, str]]) -> list[Route]:
    """Return routes and addresses; what leads to an address, or to its subnet, is that address and no route.

    An address on an interface that is down has no route yet, and counts all the same.

    :param addresses: with prefix length, each with its interface.
    """
    found = [
        Route(interface.network, device, address=cidr)
        for cidr, device in addresses
        if (interface := ip_interface(cidr)).network.prefixlen > _DEFAULT_PREFIX[interface.version]
    ]
    theirs = {(one.subnet, one.device) for one in found}
    theirs |= {(ip_network(ip_interface(one.address).ip), one.device) for one in found if one.address}
    return [*found, *(route for route in there if route.gateway or (route.subnet, route.device) not in theirs)]


def clashes(wanted: Iterable[Network], there: Sequence[Route]) -> list[tuple[Network, Route]]:
    """Return each subnet that the host would no longer reach, with the route that leads there now."""
    nets = list(wanted)
    together: list[Network] = [
        *collapse_addresses(net for net in nets if isinstance(net, IPv4Network)),
        *collapse_addresses(net for net in nets if isinstance(net, IPv6Network)),
    ]
    return [(subnet, route) for subnet in together for route in there if overlap(subnet, route.subnet)]


def overlap(one: Network, other: Network) -> bool:
    """Tell whether two networks have an address in common."""
    return one.version == other.version and one.overlaps(other)


def require_free(
    wanted: Collection[Network],
    addresses: Iterable[tuple[str, str]],
    *,
    ours: Container[str],
    settings: Mapping[str, Network],
) -> None:
    """Make sure that nothing on the host uses the subnets that are about to be built.

    :param addresses: the host's addresses, each with its interface.
    :param ours: interfaces that are cfctl's, whose routes and addresses do not count.
    :param settings: which settings name the networks that ``wanted`` are parts of.
    :raises SubnetClash: naming the routes and addresses; nothing was changed.
    """
    versions = {net.version for net in wanted}
    everything = with_addresses((route for version in sorted(versions) for route in routes(version)), addresses)
    there = [route for route in everything if route.device not in ours]
    found = clashes(wanted, there)
    if found:
        lines = dict.fromkeys(f"{subnet} is needed, and {route} is there." for subnet, route in found)
        taken = {name: net for name, net in settings.items() if any(overlap(net, subnet) for subnet, _ in found)}
        raise SubnetClash(
            "the host already routes subnets that the devices need",
            "\n".join([*list(lines)[:8], "Nothing was changed: the host would no longer reach what is there."]),
            "Give the devices others, in config.toml or as CFCTL_HOST_...:\n[host]\n"
            + "\n".join(_proposals(taken, [*settings.values(), *(route.subnet for route in there)]))
            + f"\nOr take the {'address' if found[0][1].address else 'route'} away while the host serves devices: "
            + found[0][1].removal,
        )


#: Where hosts seldom have something: private (RFC 1918), then set aside for tests of networks (RFC 2544).
_SELDOM_USED = ("10.193", "10.194", "172.30", "172.29", "198.18")


def _proposals(taken: Mapping[str, Network], used: Sequence[Network]) -> Iterator[str]:
    """Yield a line of config.toml for each network that is taken; the third number stays, to be known again."""
    for name, net in taken.items():
        key = name.removeprefix("host.")
        if net.version != _IPV4:
            yield f'{key} = "..."  # another prefix, or none'
            continue
        third = str(net).split(".")[2]
        candidates = (IPv4Network(f"{first}.{third}.0/24") for first in _SELDOM_USED)
        free = (net for net in candidates if not any(overlap(net, other) for other in used))
        yield f'{key} = "{next(free, "...")}"'


# -- running devices -----------------------------------------------------------------------------------


def require_idle(taps: Sequence[str], numbers: Sequence[int], command: str) -> None:
    """Make sure that no tap about to be deleted or opened is in use.

    :param taps: those in use.
    :param numbers: their instances.
    :param command: what goes on regardless.
    :raises DevicesUp: naming them; nothing was changed.
    """
    if not taps:
        return
    names = ", ".join(f"cvd-{number}" for number in numbers)
    raise DevicesUp(
        f"devices are up: {names}",
        f"In use: {', '.join(taps)}.\nA device whose tap is deleted never gets its network back. "
        "Nothing was changed.",
        f"Stop the devices first (cfctl ps, cfctl stop NAME), or cut them off: {command}",
    )


# -- router advertisements -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface that gets its IPv6 default route from its router's advertisements.

    A forwarding host ignores them unless ``accept_ra`` is 2, and drops the default route that it has
    (Documentation/networking/ip-sysctl.rst, accept_ra).

    :param accept_ra: the setting before the set-up.
    :param forwarding: likewise.
    """

    interface: str
    accept_ra: str
    forwarding: str


def advertised() -> list[Uplink]:
    """Return the interfaces that would lose their IPv6 default route when the host begins to forward."""
    result = process.run(["ip", "-6", "-j", "route", "show", "default"], timeout=_TIMEOUT_S, success=None)
    if result.returncode != 0:
        return []  # a kernel without IPv6
    found = {}
    for raw in json.loads(result.stdout or "[]"):
        for hop in raw.get("nexthops") or [raw]:
            name = hop.get("dev")
            if raw.get("protocol") == "ra" and name and conf(name, "accept_ra") == "1":
                found[name] = Uplink(name, "1", conf(name, "forwarding") or "0")
    return list(found.values())


def conf(interface: str, name: str) -> str | None:
    """Return an interface's IPv6 setting; None if it is gone or has no IPv6."""
    try:
        return _conf_path(interface, name).read_text().strip()
    except OSError:
        return None


def _set_conf(interface: str, name: str, value: str) -> None:
    path = _conf_path(interface, name)
    # The interface may be gone by now; there is nothing to restore then.
    if path.exists():
        path.write_text(value)


def _conf_path(interface: str, name: str) -> Path:
    # A path, not a dotted name: an interface may be called eth0.100.
    return Path("/proc/sys/net/ipv6/conf") / interface / name


def _record() -> Path:
    return paths.current().host_runtime / "accept_ra.json"


def remembered() -> list[Uplink]:
    """Return the interfaces that a set-up has changed, as they were before."""
    rows: list[dict[str, str]] = json.loads(files.read(_record()) or "[]")
    return [Uplink(**row) for row in rows]


def remember(uplinks: Iterable[Uplink]) -> None:
    """Write down how interfaces are now; what an earlier set-up wrote about one stays."""
    kept = {uplink.interface: uplink for uplink in uplinks}
    kept |= {uplink.interface: uplink for uplink in remembered()}
    files.write(_record(), json.dumps([asdict(uplink) for uplink in kept.values()]), mode=0o600)


def keep_advertisements(uplinks: Sequence[Uplink]) -> None:
    """Let interfaces listen to their routers although the host will forward; how they were is written down first."""
    remember(uplinks)
    for uplink in uplinks:
        _set_conf(uplink.interface, "accept_ra", "2")


def restore_advertisements(uplinks: Iterable[Uplink]) -> None:
    """Put interfaces back as they were, and forget about them."""
    for uplink in uplinks:
        # Forwarding first: with it on, accept_ra = 1 means to ignore the router.
        _set_conf(uplink.interface, "forwarding", uplink.forwarding)
        _set_conf(uplink.interface, "accept_ra", uplink.accept_ra)
    _record().unlink(missing_ok=True)
