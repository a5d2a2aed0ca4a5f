"""Everything that follows from an instance number: upstream's numbers, at every edge."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from cfctl import instance
from cfctl.errors import UsageError
from cfctl.instance import (
    BRIDGES,
    ETHERNET_BRIDGE,
    MAX_INSTANCES,
    UPSTREAM,
    WIFI_BRIDGE,
    Instance,
    Subnets,
    instances,
)

#: number -> taps' digits, mobile gateway, Wi-Fi AP gateway, last byte of the MACs, ethernet, ADB, CID.
TABLE = {
    1: ("01", "192.168.97.1", "192.168.94.1", "00", "192.168.98.2", 6520, 3),
    2: ("02", "192.168.97.5", "192.168.94.5", "01", "192.168.98.3", 6521, 4),
    64: ("64", "192.168.97.253", "192.168.94.253", "3f", "192.168.98.65", 6583, 66),
    65: ("65", "192.168.93.1", "192.168.95.1", "40", "192.168.98.66", 6584, 67),
    99: ("99", "192.168.93.137", "192.168.95.137", "62", "192.168.98.100", 6618, 101),
    100: ("100", "192.168.93.141", "192.168.95.141", "63", "192.168.98.101", 6619, 102),
    128: ("128", "192.168.93.253", "192.168.95.253", "7f", "192.168.98.129", 6647, 130),
}


@pytest.mark.parametrize("number", TABLE)
def test_table(number: int) -> None:
    digits, mobile, wifi_ap, byte, ethernet, adb, cid = TABLE[number]
    one = Instance(number)
    assert one.taps == (f"cvd-etap-{digits}", f"cvd-wtap-{digits}", f"cvd-mtap-{digits}", f"cvd-wifiap-{digits}")
    assert one.taps == (one.ethernet_tap, one.wifi_tap, one.mobile.tap, one.wifi_ap.tap)
    assert one.mobile.gateway == IPv4Interface(f"{mobile}/30")
    assert one.wifi_ap.gateway == IPv4Interface(f"{wifi_ap}/30")
    assert one.mobile.guest == IPv4Address(mobile) + 1
    assert one.mobile.network == IPv4Network((int(IPv4Address(mobile)) - 1, 30))
    assert one.mobile_mac == f"00:1a:11:e0:cf:{byte}"
    assert one.ethernet_mac == f"00:1a:11:e1:cf:{byte}"
    assert one.wifi_mac == f"00:1a:11:e2:cf:{byte}"
    assert one.ethernet_address == IPv4Address(ethernet)
    assert (one.adb_port, one.adb) == (adb, f"127.0.0.1:{adb}")
    assert one.vsock_cid == cid
    assert one.id == f"cvd-{number}"
    assert one.serial_number == f"CUTTLEFISHCVD{digits}"
    assert one.uuid == f"699acfc4-c8c4-11e7-882b-5065f31dc1{digits}"
    assert one.directory("/home/a") == f"/home/a/cuttlefish/instances/cvd-{number}"
    assert one.socket_directory(1000) == f"/tmp/cf_avd_1000/cvd-{number}"
    assert one.socket_directory(0, "/var/tmp") == f"/var/tmp/cf_avd_0/cvd-{number}"
    assert one.environment_directory(1000) == f"/tmp/cf_env_1000/env-{number}"
    assert one.lock_name == f"local-instance-{number}.lock"


@pytest.mark.parametrize("number", [-1, 0, 129, 10**9])
def test_numbers_out_of_range_are_wrong_usage(number: int) -> None:
    with pytest.raises(UsageError) as caught:
        Instance(number)
    assert caught.value.brief == f"instance number {number} is out of range"
    assert "1 to 128" in (caught.value.details or "")


@pytest.mark.parametrize("count", [-1, 129])
def test_counts_out_of_range_are_wrong_usage(count: int) -> None:
    with pytest.raises(UsageError, match=f"the number of instances must be 0 to 128, not {count}"):
        instances(count)


def test_counts() -> None:
    assert instances(0) == []
    assert [one.number for one in instances(3)] == [1, 2, 3]
    assert len(instances(MAX_INSTANCES)) == 128


def test_nothing_is_shared_by_two() -> None:
    everyone = instances(MAX_INSTANCES)
    for unique in (
        [tap for one in everyone for tap in one.taps],
        [net for one in everyone for net in (one.mobile.network, one.wifi_ap.network)],
        [mac for one in everyone for mac in (one.mobile_mac, one.ethernet_mac, one.wifi_mac)],
        [one.ethernet_address for one in everyone],
        [one.adb_port for one in everyone],
        [one.vsock_cid for one in everyone],
        [one.lock_name for one in everyone],
    ):
        assert len(unique) == len(set(unique))


def test_names_fit_the_kernel() -> None:
    # IFNAMSIZ is 16 with the final NUL.
    names = [tap for one in instances(MAX_INSTANCES) for tap in one.taps] + [bridge.name for bridge in BRIDGES]
    assert max(map(len, names)) <= 15


def test_networks_do_not_overlap() -> None:
    networks = [bridge.network for bridge in BRIDGES]
    networks += [net for one in instances(MAX_INSTANCES) for net in (one.mobile.network, one.wifi_ap.network)]
    networks.sort()
    for first, second in itertools.pairwise(networks):
        assert not first.overlaps(second)


def test_bridges() -> None:
    assert (ETHERNET_BRIDGE.name, str(ETHERNET_BRIDGE.address)) == ("cvd-ebr", "192.168.98.1/24")
    assert (WIFI_BRIDGE.name, str(WIFI_BRIDGE.address)) == ("cvd-wbr", "192.168.96.1/24")
    assert [str(end) for end in ETHERNET_BRIDGE.dhcp_range] == ["192.168.98.2", "192.168.98.254"]


def test_every_guest_is_inside_the_dhcp_range() -> None:
    low, high = ETHERNET_BRIDGE.dhcp_range
    for one in instances(MAX_INSTANCES):
        assert low <= one.ethernet_address <= high


#: Six /24s, all elsewhere.
OTHERS = Subnets(*(IPv4Network(f"10.{index}.{index}.0/24") for index in range(6)))


def test_other_subnets() -> None:
    first, last = Instance(1, OTHERS), Instance(128, OTHERS)
    assert first == Instance(1), "which instance it is does not depend on where it is"
    assert first.subnets == OTHERS
    assert [str(bridge.address) for bridge in OTHERS.bridges] == ["10.0.0.1/24", "10.1.1.1/24"]
    assert [str(one.ethernet_address) for one in (first, last)] == ["10.0.0.2", "10.0.0.129"]
    assert [str(one.mobile.gateway) for one in (first, last)] == ["10.2.2.1/30", "10.3.3.253/30"]
    assert [str(one.wifi_ap.gateway) for one in (first, last)] == ["10.4.4.1/30", "10.5.5.253/30"]
    assert [one.taps for one in (first, last)] == [Instance(1).taps, Instance(128).taps]


@pytest.mark.parametrize("subnets", [UPSTREAM, OTHERS])
def test_a_mobile_network_tells_its_number(subnets: Subnets) -> None:
    for one in instances(MAX_INSTANCES, subnets):
        assert subnets.number_of(one.mobile.network) == one.number
        assert subnets.number_of(one.wifi_ap.network) is None
    assert subnets.number_of(subnets.mobile) is None


def test_ports() -> None:
    # launcher.md section 7.
    assert Instance(1).ports == {"adb": 6520, "webrtc": 8443, "vnc": 6444, "gnss": 7200}
    assert Instance(128).ports == {"adb": 6647, "webrtc": 8570, "vnc": 6571, "gnss": 7327}


def test_every_property_is_tested_above() -> None:
    source = Path(__file__).read_text()
    public = [name for name in vars(instance.Instance) if not name.startswith("_")]
    assert [name for name in public if f".{name}" not in source and name != "number"] == []
