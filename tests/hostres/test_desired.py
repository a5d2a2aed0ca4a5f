"""The desired state, as pure data: what follows from a number of instances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import UsageError
from cfctl.hostres import desired, nft
from cfctl.instance import MAX_INSTANCES

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


def test_no_dns_server_leaves_the_option_empty() -> None:
    argv = desired.build(1, dns_servers=(), dns6_servers=()).servers["cvd-ebr"].argv
    assert "--dhcp-option=option:dns-server" in argv
    assert "--dhcp-option=option6:dns-server" in argv
