"""How the host should be: plain data that follows from the settings, and nothing else.

The state is upstream's, name by name (android-cuttlefish ``cuttlefish-base.cuttlefish-host-resources.init``);
docs/host.md lists every difference and its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from cfctl.hostres import dnsmasq, firewall, lazy, nft
from cfctl.hostres.backends import WITH_NFT
from cfctl.instance import BRIDGES, MAX_INSTANCES, UPSTREAM, Bridge, Instance, Subnets, instances

if TYPE_CHECKING:
    from ipaddress import IPv4Interface

    from cfctl.config import Settings
    from cfctl.hostres.pod import Pod
    from cfctl.hostres.rules import Backend

#: What ours is known by: the alias of a link, the comment of a table and of a rule.
MARK = "cfctl"

#: Owns the taps, so that its members may open them (upstream's).
GROUP = "cvdnetwork"

#: What ``ip -d -j`` says about a bridge and a tap of upstream's script. Without multi_queue: a VMM attaches a single
#: queue, and the kernel refuses that on a multi-queue tap.
BRIDGE_OPTIONS = (("stp_state", 0), ("forward_delay", 0))
TAP_OPTIONS = (
    ("type", "tap"),
    ("pi", False),
    ("vnet_hdr", True),
    ("multi_queue", False),
    ("persist", True),
    ("group", GROUP),
)

IPV4_FORWARDING = "net.ipv4.ip_forward"
IPV6_FORWARDING = "net.ipv6.conf.all.forwarding"

#: Of the bridges: IPv6 on, EUI-64 addresses, and addresses from router advertisements, as upstream has it.
_BRIDGE_SYSCTLS = {"disable_ipv6": "0", "addr_gen_mode": "0", "autoconf": "1"}

_FORWARDING: Mapping[str, str] = {IPV4_FORWARDING: "1", IPV6_FORWARDING: "1"}

#: The same for every number of instances but 0; on somebody else's bridge no more than forwarding.
SYSCTLS: Mapping[str, str] = {
    **_FORWARDING,
    **{f"net.ipv6.conf.{bridge.name}.{name}": value for bridge in BRIDGES for name, value in _BRIDGE_SYSCTLS.items()},
}


class Address(NamedTuple):
    """An address of a link.

    The broadcast address of IPv4 is not optional: assemble_cvd reads it to find the guest's address.

    :param cidr: address and prefix length, ``192.168.97.1/30``.
    :param broadcast: its broadcast address, or None where there is none.
    """

    cidr: str
    broadcast: str | None

    @property
    def is_ipv6(self) -> bool:
        """It is an IPv6 address."""
        return ":" in self.cidr


@dataclass(frozen=True, slots=True)
class Link:
    """A bridge or a tap, as it should be or as it was found.

    :param kind: ``bridge`` or ``tap``; whatever else the kernel calls it if it was found.
    :param options: what the kind of link has of its own, in the order of ``BRIDGE_OPTIONS`` and ``TAP_OPTIONS``.
    :param isolated: the bridge passes no frames between two isolated ports.
    :param mtu: None if it does not matter.
    :param group: the kernel's link group; only a tear-down uses another than ``default``.
    :param mac: None where it does not matter.
    """

    name: str
    kind: str
    options: tuple[tuple[str, object], ...]
    master: str | None = None
    addresses: tuple[Address, ...] = ()
    isolated: bool = False
    alias: str | None = MARK
    mtu: int | None = None
    up: bool = True
    group: str = "default"
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything that makes a host ready; the empty state is a host without cfctl.

    :param instances: how many the host serves: numbers 1 to this one.
    :param lazy: what is written down when the taps are made on request; None if all of them are there from the start.
    :param links: by name, bridges first, then taps instance by instance.
    :param tables: by family and name, ``ip cuttlefish_nat``.
    :param servers: one DHCP server per bridge, by bridge.
    :param sysctls: name -> value; those of a bridge exist only while the bridge does.
    :param pod: the network of the pod of which the VM has the address; None on a host.
    :param needs: what other people's firewalls are to let through; None to leave them alone.
    """

    instances: int = 0
    lazy: str | None = None
    links: Mapping[str, Link] = field(default_factory=dict)
    tables: Mapping[str, nft.Table] = field(default_factory=dict)
    servers: Mapping[str, dnsmasq.Server] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    pod: Pod | None = None
    needs: firewall.Needs | None = None


def state(settings: Settings, backend: Backend = WITH_NFT, *, active: Collection[int] = ()) -> State:
    """Return the state that the settings ask for; 0 instances need nothing, unless they are to come lazily.

    :param backend: what makes the firewall rules.
    :param active: the instances that have taps beside those that the settings ask for: lazily made, or still in use.
    """
    prefixes = {
        bridge.name: settings[f"host.{name}_ipv6_prefix"]
        for bridge, name in zip(BRIDGES, ("ethernet", "wifi"), strict=True)
    }
    external = External(settings["host.bridge"], ipv4=settings["host.ipv4_bridge"], ipv6=settings["host.ipv6_bridge"])
    return build(
        lazy.limit(settings),
        only=settings["host.numbers"],
        active=active,
        lazily=lazy.record(settings) if settings["host.lazy"] else None,
        dns_servers=settings["host.dns_servers"],
        dns6_servers=settings["host.dns6_servers"],
        guest_isolation=settings["host.guest_isolation"],
        subnets=subnets(settings),
        ipv6_prefixes={bridge: prefix for bridge, prefix in prefixes.items() if prefix},
        external=external if external.bridge else None,
        backend=backend,
        open_firewalls=settings["host.firewall"] == "open",
    )


def subnets(settings: Settings) -> Subnets:
    """Return the subnets that the settings ask for."""
    return Subnets(**{net.name: IPv4Network(settings[subnet_setting(net.name)]) for net in fields(Subnets)})


def subnet_setting(name: str) -> str:
    """Return the setting of one of the ``Subnets``."""
    stem = name.removesuffix("_high")
    return f"host.{stem}_subnet{name.removeprefix(stem)}"


@dataclass(frozen=True, slots=True)
class External:
    """Somebody else's bridge, which the taps become ports of.

    :param ipv4: the bridge passes IPv4 frames from and to guests; otherwise the host takes and routes them.
    :param ipv6: likewise.
    """

    bridge: str
    ipv4: bool = True
    ipv6: bool = True


def build(
    count: int,
    *,
    only: Collection[int] = (),
    active: Collection[int] = (),
    lazily: str | None = None,
    dns_servers: tuple[str, ...] = (),
    dns6_servers: tuple[str, ...] = (),
    guest_isolation: bool = True,
    subnets: Subnets = UPSTREAM,
    ipv6_prefixes: Mapping[str, str] | None = None,
    external: External | None = None,
    backend: Backend = WITH_NFT,
    open_firewalls: bool = True,
) -> State:
    """Return the state of a host that serves ``count`` instances.

    :param count: 0 to 128.
    :param only: of 1 to ``count``, these have taps from the start; empty is all.
    :param active: instances that have taps beside 1 to ``count``; with ``lazily``, instead of them.
    :param lazily: what is written down so that taps can be made on request.
    :param ipv6_prefixes: by bridge, each of 64 bits, ``fd00:98::``; the host has ``fd00:98::1``.
    :param external: a bridge that is there already. No bridge is made then, and nothing that belongs to one.
    :param backend: what makes the firewall rules.
    :param open_firewalls: make openings in other people's firewalls.
    :raises UsageError: for another count.
    """
    all_of_them = instances(count, subnets)
    if not all_of_them:
        return State()
    served = {instance.number for instance in all_of_them}
    first = set() if lazily else served & set(only) if only else served
    numbers = [Instance(number, subnets) for number in sorted(first | set(active))]
    prefixes = ipv6_prefixes or {}
    bridges = () if external else subnets.bridges
    masters = [external.bridge] * 2 if external else [bridge.name for bridge in bridges]
    links = [_bridge(bridge, prefixes.get(bridge.name)) for bridge in bridges]
    for instance in numbers:
        ports = (instance.ethernet_tap, instance.ethernet_mac), (instance.wifi_tap, instance.wifi_mac)
        links += [
            _port(tap, master, isolated=guest_isolation, guest=mac if external else None)
            for (tap, mac), master in zip(ports, masters, strict=True)
        ]
        links += [_alone(net.tap, net.gateway) for net in (instance.mobile, instance.wifi_ap)]
    # Upstream's order: ethernet, mobile, Wi-Fi, Wi-Fi access points.
    masqueraded = [
        *(bridge.network for bridge in bridges[:1]),
        *(instance.mobile.network for instance in numbers),
        *(bridge.network for bridge in bridges[1:]),
        *(instance.wifi_ap.network for instance in numbers),
    ]
    routed = []
    if external:
        ports_of_all = [tap for instance in numbers for tap in (instance.ethernet_tap, instance.wifi_tap)]
        kept = ((nft.IPV4, external.ipv4), (nft.IPV6, external.ipv6))
        unbridged = [ethertype for ethertype, bridged in kept if not bridged]
        routed = [rule for ethertype in unbridged for tap in ports_of_all for rule in nft.route(tap, ethertype)]
    tables = backend.tables([str(subnet) for subnet in masqueraded], routed=routed, guest_isolation=guest_isolation)
    return State(
        instances=count,
        lazy=lazily,
        links={link.name: link for link in links},
        tables={table.id: table for table in tables},
        servers={
            bridge.name: dnsmasq.server(bridge, dns_servers, dns6_servers, subnets, prefixes.get(bridge.name))
            for bridge in bridges
        },
        sysctls=_FORWARDING if external else SYSCTLS,
        needs=_needs([bridge.name for bridge in bridges], prefixes, apart=guest_isolation and backend is not WITH_NFT)
        if open_firewalls
        else None,
    )


def _needs(bridges: list[str], prefixes: Mapping[str, str], *, apart: bool) -> firewall.Needs:
    return firewall.Needs(tuple(bridges), tuple(bridge for bridge in bridges if bridge in prefixes), apart=apart)


@functools.cache
def catalogue() -> State:
    """Return the state with every link and rule that cfctl ever makes: to tell upstream's objects from strangers."""
    return build(MAX_INSTANCES)


def _bridge(bridge: Bridge, prefix: str | None) -> Link:
    addresses = [_address(bridge.address)]
    if prefix:
        addresses.append(Address(dnsmasq.gateway6(prefix), None))
    return Link(bridge.name, "bridge", BRIDGE_OPTIONS, addresses=tuple(addresses))


def _port(name: str, master: str, *, isolated: bool, guest: str | None) -> Link:
    """Return a tap on a bridge.

    :param guest: the guest's MAC, on a bridge of somebody else. A bridge takes the lowest MAC of its ports as its
        own: with a random one, a tap would change the address that the host has in its network. So it gets the
        highest first byte that a locally administered unicast address can have (libvirt does the same).
    """
    mac = f"fe{guest[2:]}" if guest else None
    return Link(name, "tap", TAP_OPTIONS, master=master, isolated=isolated, mac=mac)


def _alone(name: str, gateway: IPv4Interface) -> Link:
    return Link(name, "tap", TAP_OPTIONS, addresses=(_address(gateway),))


def _address(interface: IPv4Interface) -> Address:
    return Address(str(interface), str(interface.network.broadcast_address))
