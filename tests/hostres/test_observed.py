"""The kernel's answers as links, files as they lie in shared directories, threads that end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import paths
from cfctl.hostres import background, desired, dnsmasq, files, nft, observed
from cfctl.instance import Instance
from tests.hostres import hosts

#: Shortened from ``ip -d -j addr`` (iproute2 6.1).
TAP = json.loads(
    """{"ifindex":3,"ifname":"cvd-etap-01","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"master":"cvd-ebr",
    "operstate":"UP","group":"default","link_type":"ether","ifalias":"cfctl","linkinfo":{"info_kind":"tun","info_data":
    {"type":"tap","pi":false,"vnet_hdr":true,"multi_queue":false,"persist":true,"group":"cvdnetwork"},
    "info_slave_kind":"bridge","info_slave_data":{"state":"forwarding","isolated":true}},"addr_info":
    [{"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}"""
)
LOOPBACK = json.loads(
    """{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"group":"default","link_type":"loopback",
    "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]}"""
)


def test_a_tap() -> None:
    found = observed.found_link(TAP)
    assert found.link == desired.build(1).links["cvd-etap-01"]
    assert (found.carrier, found.index, found.ours) == (True, 3, True)


def test_other_interfaces() -> None:
    found = observed.found_link(LOOPBACK)
    assert (found.link.kind, found.carrier, found.ours) == ("loopback", False, False)
    assert found.link.addresses == (("127.0.0.1/8", None),)
    tun = {**TAP, "linkinfo": {"info_kind": "tun", "info_data": {"type": "tun"}}}
    assert observed.found_link(tun).link.kind == "tun"
    veth = {**TAP, "linkinfo": {"info_kind": "veth"}}
    assert not observed.found_link(veth).ours, "an alias alone makes nothing ours"


@given(st.integers(1, 128))
def test_numbers_of_taps_and_rules(number: int) -> None:
    instance = Instance(number)
    assert {observed.number_of(tap) for tap in instance.taps} == {number}
    only = nft.Table(nft.NAT, (), (nft.Rule("postrouting", nft.masquerade(str(instance.mobile.network))),))
    assert hosts.ready(desired.State(tables={nft.NAT: only})).instances == number


@pytest.mark.parametrize("name", ["cvd-ebr", "cvd-etap-1", "cvd-etap-00", "cvd-etap-129", "cvd-etap-01x", "eth0"])
def test_other_names(name: str) -> None:
    assert observed.number_of(name) is None


def test_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root:x")
    (tmp_path / "planted").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    assert [files.read(tmp_path / name) for name in ("secret", "planted", "pipe", "none")] == ["root:x", "", "", ""]
    (tmp_path / "run" / "host").mkdir(parents=True)
    (tmp_path / "run" / "host" / "file").symlink_to(tmp_path / "secret")
    files.write(tmp_path / "run" / "host" / "file", "ours", mode=0o640)
    assert (tmp_path / "secret").read_text() == "root:x"
    assert (tmp_path / "run" / "host" / "file").stat().st_mode & 0o777 == 0o640


def test_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "dnsmasq_lease_file", lambda _: tmp_path / "leases")
    assert list(dnsmasq.guests()) == []
    (tmp_path / "leases").write_text(
        "1700000000 00:1a:11:e1:cf:00 192.168.98.2 vm 01:00\n"
        "1700000001 00:1a:11:e1:cf:01 192.168.98.3 * *\n"
        "duid 00:01:00:01\n"
        "1700000000 1234 fd00::2 * 00:01\n"
        "torn li"
    )
    assert list(dnsmasq.guests()) == [
        dnsmasq.Lease(1700000000, "00:1a:11:e1:cf:00", "192.168.98.2", "vm"),
        dnsmasq.Lease(1700000001, "00:1a:11:e1:cf:01", "192.168.98.3", ""),
    ]


@given(st.text())
def test_any_lease_file_is_read(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read", lambda _: text)
        dnsmasq.leases("cvd-ebr")
        assert dnsmasq.pid_in_file("cvd-ebr") is None or text.strip().isdecimal()


def test_background_results_and_errors() -> None:
    with background.running(lambda: 7) as wait:
        assert wait() == 7

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), background.running(fail) as wait_for_error:
        wait_for_error()
