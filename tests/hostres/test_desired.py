"""The desired state, as pure data: what follows from a number of instances."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import config
from cfctl.errors import UsageError
from cfctl.hostres import desired, nft
from cfctl.hostres.desired import External
from cfctl.hostres.observed import number_of
from cfctl.instance import MAX_INSTANCES, UPSTREAM

COUNTS = st.integers(0, MAX_INSTANCES)


@given(COUNTS)
def test_counts(count: int) -> None:
    state = desired.build(count)
    assert len(state.links) == (2 + 4 * count if count else 0)
    assert len(state.tables[nft.NAT].rules if count else ()) == (2 + 2 * count if count else 0)
    assert set(state.servers) == ({"cvd-ebr", "cvd-wbr"} if count else set())
    assert all(len(name) <= 15 for name in state.links), "IFNAMSIZ"


@given(COUNTS, COUNTS)
def test_a_smaller_state_is_part_of_a_larger_one(one: int, other: int) -> None:
    """So a change of the number only adds or removes."""
    small, large = desired.build(min(one, other)), desired.build(max(one, other))
    assert small.links.items() <= large.links.items()
    assert small.servers.items() <= large.servers.items(), "no new DHCP server for another number"
    if small.tables:
        assert set(small.tables[nft.NAT].rules) <= set(large.tables[nft.NAT].rules)
        assert small.tables[nft.BRIDGE] == large.tables[nft.BRIDGE]


@given(st.sets(st.integers(1, MAX_INSTANCES), min_size=1))
def test_only_some_instances(numbers: set[int]) -> None:
    """What a container has: taps of its own numbers, each as it is where all are there."""
    some, every = desired.build(max(numbers), only=numbers), desired.build(MAX_INSTANCES)
    assert some.links.items() <= every.links.items()
    assert {number for link in some.links if (number := number_of(link))} == numbers
    assert len(some.links) == 2 + 4 * len(numbers)
    assert len(some.tables[nft.NAT].rules) == 2 + 2 * len(numbers)


@given(COUNTS)
def test_every_address_has_its_network_masqueraded_and_a_broadcast(count: int) -> None:
    state = desired.build(count)
    addresses = [address for link in state.links.values() for address in link.addresses]
    assert len(set(addresses)) == len(addresses)
    rules = {rule.text for rule in state.tables[nft.NAT].rules} if count else set()
    assert len(rules) == len(addresses)
    assert all(address.broadcast and address.broadcast.rpartition(".")[2].isdecimal() for address in addresses)


@pytest.mark.parametrize("count", [-1, 129, 10000])
def test_other_counts(count: int) -> None:
    with pytest.raises(UsageError, match=f"must be 0 to 128, not {count}"):
        desired.build(count)


def test_the_hosts_file_gives_each_instance_its_address() -> None:
    lines = desired.build(1).servers["cvd-ebr"].hosts.splitlines()
    assert len(lines) == MAX_INSTANCES
    assert lines[0] == "00:1a:11:e1:cf:00,192.168.98.2"
    assert lines[127] == "00:1a:11:e1:cf:7f,192.168.98.129"
    assert desired.build(1).servers["cvd-wbr"].hosts_file is None


def test_no_dns_server_leaves_the_option_out() -> None:
    argv = desired.build(1, dns_servers=(), dns6_servers=()).servers["cvd-ebr"].argv
    assert [option for option in argv if "dns-server" in option] == []


# -- somebody else's bridge, other subnets, IPv6 ---------------------------------------------------------------


@given(COUNTS.filter(bool), st.booleans(), st.booleans())
def test_on_somebody_elses_bridge(count: int, ipv4: bool, ipv6: bool) -> None:
    own = desired.build(count)
    state = desired.build(count, external=External("br0", ipv4=ipv4, ipv6=ipv6))
    assert set(state.links) == set(own.links) - {"cvd-ebr", "cvd-wbr"}
    assert {link.master for link in state.links.values()} == {"br0", None}
    assert state.servers == {}
    assert set(state.sysctls) == {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}
    assert len(state.tables[nft.NAT].rules) == 2 * count
    # For each protocol that is not bridged, two rules for each tap that is a port.
    assert len(state.tables[nft.BRIDGE].rules) == 2 * 2 * count * ((not ipv4) + (not ipv6))
    # What has a network of its own is the same in both.
    alone = {name: link for name, link in own.links.items() if "mtap" in name or "wifiap" in name}
    assert alone.items() <= state.links.items()


def test_a_port_of_somebody_elses_bridge_has_a_high_mac() -> None:
    links = desired.build(128, external=External("br0")).links
    assert links["cvd-etap-01"].mac == "fe:1a:11:e1:cf:00"
    assert links["cvd-wtap-128"].mac == "fe:1a:11:e2:cf:7f"
    macs = [link.mac for link in links.values() if link.mac]
    assert len(set(macs)) == len(macs) == 256
    # Locally administered, not multicast (IEEE 802).
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}
    assert {link.mac for link in desired.build(1).links.values()} == {None}


def test_upstreams_rules_are_known_on_any_bridge() -> None:
    rules = desired.build(1, external=External("br0", ipv4=False)).tables[nft.BRIDGE].rules
    assert [rule.text for rule in rules if rule.chain == "forward"] == [
        'oifname "cvd-etap-01" ether type 0x0800 drop',
        'oifname "cvd-wtap-01" ether type 0x0800 drop',
    ]


def test_other_subnets_are_everywhere() -> None:
    subnets = replace(UPSTREAM, ethernet=IPv4Network("10.0.98.0/24"), mobile=IPv4Network("10.0.97.0/24"))
    state = desired.build(1, subnets=subnets)
    assert state.links["cvd-ebr"].addresses == (("10.0.98.1/24", "10.0.98.255"),)
    assert state.links["cvd-mtap-01"].addresses == (("10.0.97.1/30", "10.0.97.3"),)
    assert {"--listen-address=10.0.98.1", "--dhcp-range=10.0.98.2,10.0.98.254"} <= set(state.servers["cvd-ebr"].argv)
    assert state.servers["cvd-ebr"].hosts.startswith("00:1a:11:e1:cf:00,10.0.98.2\n")
    assert state.servers["cvd-wbr"] == desired.build(1).servers["cvd-wbr"]
    texts = [rule.text for rule in state.tables[nft.NAT].rules]
    assert texts[:2] == ["ip saddr 10.0.98.0/24 masquerade", "ip saddr 10.0.97.0/30 masquerade"]


def test_an_ipv6_prefix() -> None:
    state = desired.build(1, ipv6_prefixes={"cvd-wbr": "fd00:96::"})
    assert state.links["cvd-wbr"].addresses[1:] == (("fd00:96::1/64", None),)
    assert state.links["cvd-wbr"].addresses[1].is_ipv6
    advertising = ("--dhcp-range=fd00:96::,ra-stateless,64", "--enable-ra")
    assert state.servers["cvd-wbr"].argv == (*desired.build(1).servers["cvd-wbr"].argv, *advertising)
    assert "--enable-ra" not in state.servers["cvd-ebr"].argv
    assert state.tables == desired.build(1).tables, "no NAT: the prefix is routed to this host"


def test_settings_become_a_state() -> None:
    def settings(**values: str) -> config.Settings:
        environ = {f"CFCTL_HOST_{name.upper()}": value for name, value in values.items()}
        return config.load(environ={"CFCTL_HOST_INSTANCES": "1", **environ}, upstream_file=Path("/none"))

    assert desired.state(settings()) == desired.build(
        1,
        dns_servers=("8.8.8.8", "8.8.4.4"),
        dns6_servers=("2001:4860:4860::8888", "2001:4860:4860::8844"),
    )
    assert desired.subnets(settings()) == UPSTREAM
    state = desired.state(settings(bridge="br0", ipv6_bridge="0", wifi_ap_subnet_high="10.0.0.0/24"))
    assert state == desired.build(
        1,
        subnets=replace(UPSTREAM, wifi_ap_high=IPv4Network("10.0.0.0/24")),
        external=External("br0", ipv6=False),
    )
    assert (
        desired.state(settings(numbers="3,4"), active=()).links.keys() == desired.build(4, only=(3, 4)).links.keys()
    )
    prefixes = desired.state(settings(wifi_ipv6_prefix="fd00:96::", ethernet_ipv6_prefix="fd00:98::"))
    assert [prefixes.links[name].addresses[1].cidr for name in ("cvd-ebr", "cvd-wbr")] == [
        "fd00:98::1/64",
        "fd00:96::1/64",
    ]
