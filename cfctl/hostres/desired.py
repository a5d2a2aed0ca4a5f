"""How the host should be: plain data that follows from the settings, and nothing else.

The state is upstream's, name by name (android-cuttlefish ``cuttlefish-base.cuttlefish-host-resources.init``);
docs/host.md lists every difference and its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cfctl.hostres import dnsmasq, nft
from cfctl.instance import BRIDGES, ETHERNET_BRIDGE, MAX_INSTANCES, WIFI_BRIDGE, Bridge, instances

if TYPE_CHECKING:
    from ipaddress import IPv4Interface

    from cfctl.config import Settings
    from cfctl.hostres.pod import Pod

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

#: The same for every number of instances but 0.
SYSCTLS: Mapping[str, str] = {
    IPV4_FORWARDING: "1",
    IPV6_FORWARDING: "1",
    **{f"net.ipv6.conf.{bridge.name}.{name}": value for bridge in BRIDGES for name, value in _BRIDGE_SYSCTLS.items()},
}


class Address(NamedTuple):
    """An IPv4 address of a link.

    The broadcast address is not optional: assemble_cvd reads it to find the guest's address.

    :param cidr: address and prefix length, ``192.168.97.1/30``.
    :param broadcast: its broadcast address, or None where there is none.
    """

    cidr: str
    broadcast: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """A bridge or a tap, as it should be or as it was found.

    :param kind: ``bridge`` or ``tap``; whatever else the kernel calls it if it was found.
    :param options: what the kind of link has of its own, in the order of ``BRIDGE_OPTIONS`` and ``TAP_OPTIONS``.
    :param isolated: the bridge passes no frames between two isolated ports.
    :param mtu: None if it does not matter.
    :param group: the kernel's link group; only a tear-down uses another than ``default``.
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


@dataclass(frozen=True, slots=True)
class State:
    """Everything that makes a host ready; the empty state is a host without cfctl.

    :param links: by name, bridges first, then taps instance by instance.
    :param tables: by family and name, ``ip cuttlefish_nat``.
    :param servers: one DHCP server per bridge, by bridge.
    :param sysctls: name -> value; those of a bridge exist only while the bridge does.
    :param pod: the network of the pod of which the VM has the address; None on a host.
    """

    instances: int = 0
    links: Mapping[str, Link] = field(default_factory=dict)
    tables: Mapping[str, nft.Table] = field(default_factory=dict)
    servers: Mapping[str, dnsmasq.Server] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    pod: Pod | None = None


def state(settings: Settings) -> State:
    """Return the state that the settings ask for; 0 instances need nothing."""
    return build(
        settings["host.instances"],
        dns_servers=settings["host.dns_servers"],
        dns6_servers=settings["host.dns6_servers"],
        guest_isolation=settings["host.guest_isolation"],
    )


def build(
    count: int,
    *,
    dns_servers: tuple[str, ...] = (),
    dns6_servers: tuple[str, ...] = (),
    guest_isolation: bool = True,
) -> State:
    """Return the state of a host that serves ``count`` instances.

    :param count: 0 to 128.
    :raises UsageError: for another count.
    """
    numbers = instances(count)
    if not numbers:
        return State()
    links = [_bridge(bridge) for bridge in BRIDGES]
    for instance in numbers:
        links += [
            _tap(instance.ethernet_tap, master=ETHERNET_BRIDGE.name, isolated=guest_isolation),
            _tap(instance.wifi_tap, master=WIFI_BRIDGE.name, isolated=guest_isolation),
            _tap(instance.mobile.tap, gateway=instance.mobile.gateway),
            _tap(instance.wifi_ap.tap, gateway=instance.wifi_ap.gateway),
        ]
    # Upstream's order: ethernet, mobile, Wi-Fi, Wi-Fi access points.
    subnets = [
        ETHERNET_BRIDGE.network,
        *(instance.mobile.network for instance in numbers),
        WIFI_BRIDGE.network,
        *(instance.wifi_ap.network for instance in numbers),
    ]
    tables = nft.tables([str(subnet) for subnet in subnets], guest_isolation=guest_isolation)
    return State(
        instances=count,
        links={link.name: link for link in links},
        tables={table.id: table for table in tables},
        servers={bridge.name: dnsmasq.server(bridge, dns_servers, dns6_servers) for bridge in BRIDGES},
        sysctls=SYSCTLS,
    )


@functools.cache
def catalogue() -> State:
    """Return the state with every link and rule that cfctl ever makes: to tell upstream's objects from strangers."""
    return build(MAX_INSTANCES)


def _bridge(bridge: Bridge) -> Link:
    return Link(bridge.name, "bridge", BRIDGE_OPTIONS, addresses=(_address(bridge.address),))


def _tap(
    name: str, *, master: str | None = None, gateway: IPv4Interface | None = None, isolated: bool = False
) -> Link:
    addresses = (_address(gateway),) if gateway else ()
    return Link(name, "tap", TAP_OPTIONS, master=master, addresses=addresses, isolated=isolated)


def _address(interface: IPv4Interface) -> Address:
    return Address(str(interface), str(interface.network.broadcast_address))
