"""Which routes clash, and what a refusal says."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import process
from cfctl.errors import DevicesUp, SubnetClash
from cfctl.hostres import safety
from cfctl.hostres.safety import Route

NETS = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(0xC0A85D00, 0xC0A862FF),  # 192.168.93.0 to 192.168.98.255
    st.integers(16, 32),
)


@given(st.lists(NETS, max_size=6), st.lists(NETS, max_size=6))
def test_a_clash_is_a_common_address(wanted: list[IPv4Network], there: list[IPv4Network]) -> None:
    found = safety.clashes(wanted, [Route(net, "eth0") for net in there])
    overlapping = {net for net in there for other in wanted if net.overlaps(other)}
    assert {route.subnet for _, route in found} == overlapping


def _answers(monkeypatch: pytest.MonkeyPatch, stdout: str) -> None:
    monkeypatch.setattr(process, "run", lambda argv, **_: process.Result(tuple(argv), 0, stdout, ""))


def test_which_routes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(
        monkeypatch,
        """[{"dst":"default","gateway":"10.0.0.1","dev":"eth0"},
            {"dst":"0.0.0.0/1","dev":"tun0"}, {"dst":"128.0.0.0/1","dev":"tun0"},
            {"type":"blackhole","dst":"192.168.0.0/16"},
            {"type":"broadcast","dst":"192.168.98.255","dev":"eth0"},
            {"dst":"192.168.1.7","dev":"eth0"},
            {"dst":"10.8.0.0/16","nexthops":[{"gateway":"10.0.0.2","dev":"wg0"},{"gateway":"10.0.0.3","dev":"wg1"}]}]""",
    )
    assert [str(route) for route in safety.routes()] == ["192.168.1.7/32 on eth0", "10.8.0.0/16 via 10.0.0.2 on wg0"]


def test_what_a_clash_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(
        monkeypatch,
        '[{"dst":"192.168.96.0/20","gateway":"10.0.0.1","dev":"br-1"},{"dst":"192.168.98.0/24","dev":"cvd-ebr"}]',
    )
    with pytest.raises(SubnetClash) as caught:
        safety.require_free(
            [IPv4Network("192.168.98.0/24")],
            [("192.168.98.1/24", "cvd-ebr")],
            ours={"cvd-ebr"},
            settings={
                "host.ethernet_subnet": IPv4Network("192.168.98.0/24"),
                "host.wifi_subnet": IPv4Network("192.168.95.0/24"),
            },
        )
    assert str(caught.value) == (
        "the host already routes subnets that the devices need\n"
        "192.168.98.0/24 is needed, and 192.168.96.0/20 via 10.0.0.1 on br-1 is there.\n"
        "Nothing was changed: the host would no longer reach what is there.\n"
        "Give the devices others, in config.toml or as CFCTL_HOST_...:\n"
        "[host]\n"
        'ethernet_subnet = "10.193.98.0/24"\n'
        "Or take the route away while the host serves devices: ip route del 192.168.96.0/20 dev br-1"
    )


ADDRESSES = [("192.168.98.7/24", "lan0"), ("fd00:96::7/64", "lan0"), ("192.168.96.1/24", "down0"), ("8.8.8.8/0", "x")]


def test_the_routes_of_an_address_are_the_address() -> None:
    there = [
        Route(IPv4Network("192.168.98.0/24"), "lan0"),
        Route(IPv4Network("192.168.98.7/32"), "lan0"),
        Route(IPv6Network("fd00:96::/64"), "lan0"),
        Route(IPv6Network("fd00:96::7/128"), "lan0"),
        # Not of the address: another interface, other subnets, and a gateway.
        Route(IPv4Network("192.168.98.0/24"), "lan1"),
        Route(IPv4Network("192.168.98.0/25"), "lan0"),
        Route(IPv4Network("192.168.98.0/24"), "lan0", "192.168.98.9"),
    ]
    assert [str(route) for route in safety.with_addresses(there, ADDRESSES)] == [
        "address 192.168.98.7/24 on lan0",
        "address fd00:96::7/64 on lan0",
        "address 192.168.96.1/24 on down0",
        "192.168.98.0/24 on lan1",
        "192.168.98.0/25 on lan0",
        "192.168.98.0/24 via 192.168.98.9 on lan0",
    ]


def test_a_clash_with_an_address_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(
        monkeypatch, '[{"dst":"192.168.98.0/24","dev":"lan0"},{"type":"local","dst":"192.168.98.7","dev":"lan0"}]'
    )
    with pytest.raises(SubnetClash) as caught:
        safety.require_free([IPv4Network("192.168.98.0/24")], ADDRESSES, ours=(), settings={})
    said = str(caught.value)
    assert said.count("is needed, and") == 1
    assert "192.168.98.0/24 is needed, and address 192.168.98.7/24 on lan0 is there." in said
    assert said.endswith(
        "Or take the address away while the host serves devices: ip addr del 192.168.98.7/24 dev lan0"
    )


def test_what_is_proposed_where_everything_is_taken() -> None:
    nets: dict[str, safety.Network] = {
        "host.wifi_subnet": IPv4Network("192.168.96.0/24"),
        "host.wifi_ap_subnet_high": IPv4Network("10.193.95.0/24"),
        "host.wifi_ipv6_prefix": IPv6Network("fd00:96::/64"),
    }
    proposals = safety._proposals(nets, [*nets.values(), IPv4Network("10.194.95.0/24")])
    assert list(proposals) == [
        'wifi_subnet = "10.193.96.0/24"',
        'wifi_ap_subnet_high = "172.30.95.0/24"',
        'wifi_ipv6_prefix = "..."  # another prefix, or none',
    ]
    everything = [IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15")]
    assert next(iter(safety._proposals(nets, everything))) == 'wifi_subnet = "..."'


def test_ipv6_routes_are_read_only_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(argv: list[str], **_: object) -> process.Result:
        asked.append(argv[1])
        return process.Result(tuple(argv), 0, '[{"dst":"2000::/3","dev":"a"},{"dst":"fd00::/32","dev":"b"}]', "")

    monkeypatch.setattr(process, "run", answer)
    with pytest.raises(SubnetClash, match=r"fd00::/64 is needed, and fd00::/32 on b is there") as caught:
        safety.require_free([IPv6Network("fd00::/64"), IPv6Network("2001:db8::/64")], [], ours=(), settings={})
    assert asked == ["-6"]
    assert "on a" not in str(caught.value)


def test_what_running_devices_say() -> None:
    safety.require_idle([], [], "x")
    with pytest.raises(DevicesUp) as caught:
        safety.require_idle(["cvd-etap-01", "cvd-etap-02"], [1, 2], "cfctl host teardown --force")
    assert str(caught.value) == (
        "devices are up: cvd-1, cvd-2\n"
        "In use: cvd-etap-01, cvd-etap-02.\n"
        "A device whose tap is deleted never gets its network back. Nothing was changed.\n"
        "Stop the devices first (cfctl ps, cfctl stop NAME), or cut them off: cfctl host teardown --force"
    )


def test_the_record_keeps_what_was_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CFCTL_PATHS_RUNTIME", str(tmp_path))
    assert safety.remembered() == []
    first = safety.Uplink("eth0.100", "1", "0")
    safety.remember([first])
    # A set-up that was killed runs again: now it sees what it has changed itself.
    safety.remember([safety.Uplink("eth0.100", "2", "1"), safety.Uplink("eth1", "1", "0")])
    assert set(safety.remembered()) == {first, safety.Uplink("eth1", "1", "0")}
    assert (tmp_path / "host" / "accept_ra.json").stat().st_mode & 0o777 == 0o600
