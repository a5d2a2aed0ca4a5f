"""Everything that follows from an instance number.

Bare metal, Docker and Kubernetes all use these functions, so a device has the same taps, addresses and ports
wherever it runs. The numbers are upstream's: android-cuttlefish
``base/debian/cuttlefish-base.cuttlefish-host-resources.init`` (taps and networks),
``assemble_cvd/{alloc,flags,network_flags}.cpp`` (ports, CID, MACs).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The last instance that has a mobile and a Wi-Fi AP network: two /24s of 64 /30s each (upstream's init script).
MAX_INSTANCES = 128

#: Half of the numbers live in one /24, half in another.
_INSTANCES_PER_NET = 64
_POINT_TO_POINT_PREFIX = 30


@dataclass(frozen=True, slots=True)
class Bridge:
    """One of the two bridges that all instances share.

    :param name: the interface name, upstream's.
    :param address: the host's own address with its prefix length.
    """

    name: str
    address: IPv4Interface

    @property
    def network(self) -> IPv4Network:
        """The subnet behind the bridge."""
        return self.address.network

    @property
    def dhcp_range(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address that DHCP hands out.

        Upstream ends at .255, the broadcast address, which dnsmasq then never gives out; ours ends at .254.
        """
        return self.network.network_address + 2, self.network.broadcast_address - 1


@dataclass(frozen=True, slots=True)
class PointToPoint:
    """A tap with a network of its own: the host on one side, one guest on the other.

    :param tap: the interface name.
    :param gateway: the host's address with its prefix length (/30).
    """

    tap: str
    gateway: IPv4Interface

    @property
    def network(self) -> IPv4Network:
        """The /30 itself."""
        return self.gateway.network

    @property
    def guest(self) -> IPv4Address:
        """The only address left for the guest."""
        return self.gateway.ip + 1


@dataclass(frozen=True, slots=True)
class Subnets:
    """The /24s that all instances live in; ``UPSTREAM`` are upstream's.

    :param ethernet: behind ``cvd-ebr``.
    :param wifi: behind ``cvd-wbr``.
    :param mobile: the modems' /30s of 1 to 64.
    :param mobile_high: of 65 to 128.
    :param wifi_ap: the OpenWRT access points' /30s of 1 to 64.
    :param wifi_ap_high: of 65 to 128.
    """

    ethernet: IPv4Network
    wifi: IPv4Network
    mobile: IPv4Network
    mobile_high: IPv4Network
    wifi_ap: IPv4Network
    wifi_ap_high: IPv4Network

    @property
    def bridges(self) -> tuple[Bridge, Bridge]:
        """The ethernet and the Wi-Fi bridge; the host has the first address of each."""
        return _bridge("cvd-ebr", self.ethernet), _bridge("cvd-wbr", self.wifi)

    def number_of(self, network: IPv4Network) -> int | None:
        """Return the instance of which ``network`` is the mobile /30; None for any other network."""
        for first, subnet in ((1, self.mobile), (1 + _INSTANCES_PER_NET, self.mobile_high)):
            if network.prefixlen == _POINT_TO_POINT_PREFIX and network.subnet_of(subnet):
                return first + (int(network.network_address) - int(subnet.network_address)) // 4
        return None


def _bridge(name: str, network: IPv4Network) -> Bridge:
    return Bridge(name, IPv4Interface((network.network_address + 1, network.prefixlen)))


UPSTREAM = Subnets(
    ethernet=IPv4Network("192.168.98.0/24"),
    wifi=IPv4Network("192.168.96.0/24"),
    mobile=IPv4Network("192.168.97.0/24"),
    mobile_high=IPv4Network("192.168.93.0/24"),
    wifi_ap=IPv4Network("192.168.94.0/24"),
    wifi_ap_high=IPv4Network("192.168.95.0/24"),
)
BRIDGES = UPSTREAM.bridges
ETHERNET_BRIDGE, WIFI_BRIDGE = BRIDGES


def _slash30(number: int, low: IPv4Network, high: IPv4Network) -> IPv4Interface:
    """Return the gateway of the /30 of ``number``: ``low`` is the /24 of 1..64, ``high`` of 65..128."""
    base = (low if number <= _INSTANCES_PER_NET else high).network_address
    index = (number - 1) % _INSTANCES_PER_NET
    return IPv4Interface((base + 4 * index + 1, _POINT_TO_POINT_PREFIX))


@dataclass(frozen=True)
class Instance:
    """One virtual device's numbers, names, addresses, ports and paths.

    The addresses hold where the host was set up with ``subnets``: who runs on a host that is set up already asks the
    kernel (:mod:`cfctl.hostres.addresses`).

    :param number: 1 to 128.
    :param subnets: where its addresses come from.
    :raises UsageError: for any other number.
    """

    number: int
    subnets: Subnets = field(default=UPSTREAM, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_INSTANCES:
            raise UsageError(
                f"instance number {self.number} is out of range",
                f"Instances are numbered 1 to {MAX_INSTANCES}: beyond that there is no mobile network for them.",
            )

    # -- names ---------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The launcher's name of the instance, ``cvd-N``; also its default WebRTC device id."""
        return f"cvd-{self.number}"

    @property
    def ethernet_tap(self) -> str:
        """The port of ``cvd-ebr``; two digits, three from 100 on (``printf %02d``)."""
        return f"cvd-etap-{self.number:02d}"

    @property
    def wifi_tap(self) -> str:
        """The port of ``cvd-wbr``."""
        return f"cvd-wtap-{self.number:02d}"

    @cached_property
    def mobile(self) -> PointToPoint:
        """The modem's network: 192.168.97.0/24 up to 64, 192.168.93.0/24 from 65, if the subnets are upstream's."""
        nets = self.subnets.mobile, self.subnets.mobile_high
        return PointToPoint(f"cvd-mtap-{self.number:02d}", _slash30(self.number, *nets))

    @cached_property
    def wifi_ap(self) -> PointToPoint:
        """The OpenWRT access point's network: 192.168.94.0/24 up to 64, 192.168.95.0/24 from 65, likewise."""
        nets = self.subnets.wifi_ap, self.subnets.wifi_ap_high
        return PointToPoint(f"cvd-wifiap-{self.number:02d}", _slash30(self.number, *nets))

    @property
    def taps(self) -> tuple[str, str, str, str]:
        """All four taps: ethernet, Wi-Fi, mobile, Wi-Fi AP."""
        return (self.ethernet_tap, self.wifi_tap, self.mobile.tap, self.wifi_ap.tap)

    # -- addresses -----------------------------------------------------------------------------------

    def _mac(self, kind: int) -> str:
        return f"00:1a:11:{kind:02x}:cf:{self.number - 1:02x}"

    @property
    def mobile_mac(self) -> str:
        """The guest's MAC on the mobile tap (``assemble_cvd/network_flags.cpp``)."""
        return self._mac(0xE0)

    @property
    def ethernet_mac(self) -> str:
        """The guest's MAC on the ethernet tap."""
        return self._mac(0xE1)

    @property
    def wifi_mac(self) -> str:
        """The guest's MAC on the Wi-Fi tap."""
        return self._mac(0xE2)

    @property
    def ethernet_address(self) -> IPv4Address:
        """The guest's address on ``cvd-ebr``: .2 for instance 1 up to .129 for 128.

        Ours: upstream leaves it to chance. dnsmasq is told to give exactly this one to ``ethernet_mac``.
        """
        return self.subnets.ethernet.network_address + 1 + self.number

    # -- ports and ids -------------------------------------------------------------------------------

    @property
    def adb_port(self) -> int:
        """TCP port on the host that leads to the guest's adbd: 6520 for instance 1."""
        return 6520 + self.number - 1

    @property
    def adb(self) -> str:
        """The ``adb connect`` address of the instance; loopback only."""
        return f"127.0.0.1:{self.adb_port}"

    @property
    def ports(self) -> dict[str, int]:
        """TCP ports on the host that a launcher may open for the instance (launcher.md section 7)."""
        index = self.number - 1
        return {"adb": self.adb_port, "webrtc": 8443 + index, "vnc": 6444 + index, "gnss": 7200 + index}

    @property
    def vsock_cid(self) -> int:
        """The guest's vsock context id, unique on the whole host (0 to 2 are reserved, vsock(7))."""
        return self.number + 2

    @property
    def serial_number(self) -> str:
        """The Android serial number that upstream gives."""
        return f"CUTTLEFISHCVD{self.number:02d}"

    @property
    def uuid(self) -> str:
        """The VM's UUID that upstream gives."""
        return f"699acfc4-c8c4-11e7-882b-5065f31dc1{self.number:02d}"

    # -- files ---------------------------------------------------------------------------------------

    def directory(self, home: os.PathLike[str] | str) -> str:
        """Return the instance directory below the launcher's HOME."""
        return f"{os.fspath(home)}/cuttlefish/instances/{self.id}"

    def socket_directory(self, uid: int, tmpdir: str = "/tmp") -> str:  # noqa: S108 (upstream's place)
        """Return the directory of the instance's unix sockets.

        :param uid: the user that runs the launcher.
        :param tmpdir: the launcher's TMPDIR.
        """
        return f"{tmpdir}/cf_avd_{uid}/{self.id}"

    def environment_directory(self, uid: int, tmpdir: str = "/tmp") -> str:  # noqa: S108 (upstream's place)
        """Return the directory of the sockets that a group shares whose first instance this is.

        :param uid: the user that runs the launcher.
        :param tmpdir: the launcher's TMPDIR.
        """
        return f"{tmpdir}/cf_env_{uid}/env-{self.number}"

    @property
    def lock_name(self) -> str:
        """The file that cvd, acloud and cfctl all lock to own the number (``cvd/instances/lock``)."""
        return f"local-instance-{self.number}.lock"


def instances(count: int, subnets: Subnets = UPSTREAM) -> list[Instance]:
    """Return instances 1 to ``count``; ``count`` 0 is an empty list.

    :param subnets: where their addresses come from.

    :raises UsageError: for a count below 0 or above 128.
    """
    if not 0 <= count <= MAX_INSTANCES:
        raise UsageError(
            f"the number of instances must be 0 to {MAX_INSTANCES}, not {count}",
            "Each instance needs a mobile /30 network of its own, and there are 128 of them.",
        )
    return [Instance(number, subnets) for number in range(1, count + 1)]


def counted(count: int) -> str:
    """Return a number of instances, for people."""
    return f"{count} instance{'' if count == 1 else 's'}"


def at_position(name: str, numbers: Sequence[int], position: int) -> int:
    """Return the number of an instance of a device.

    :param position: the first is 1.
    :raises UsageError: if the device has fewer instances.
    """
    if not 1 <= position <= len(numbers):
        names = f"{name}/1 to {name}/{len(numbers)}" if len(numbers) > 1 else name
        raise UsageError(
            f"device {name} has {counted(len(numbers))}, no {position}", None, f"Say {names}: cfctl status {name}"
        )
    return numbers[position - 1]
