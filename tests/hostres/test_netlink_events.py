"""What the kernel's messages are about. Constructed after linux/netlink.h; system tests hear real ones."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from cfctl.hostres import netlink_events

LOOPBACK = socket.if_nametoindex("lo")


def message(kind: int, body: bytes) -> bytes:
    raw = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return raw + b"\0" * (-len(raw) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + b"\0" * (-len(raw) % 4)


def link(name: str) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + attribute(51, b"1234") + attribute(3, name.encode() + b"\0")
    return message(16, body)


def address(index: int) -> bytes:
    return message(20, struct.pack("=BBBBI", 2, 24, 0, 0, index))


def netconf(index: int) -> bytes:
    return message(80, struct.pack("=B3x", 2) + attribute(1, struct.pack("=i", index)))


def rule(table: str) -> bytes:
    return message(0x0A06, struct.pack("=BBH", 2, 0, 0) + attribute(1, table.encode() + b"\0"))


def test_links_of_ours() -> None:
    assert netlink_events.of_links(link("cvd-etap-01"), {""})
    assert netlink_events.of_links(link("br0"), {"br0"})
    assert not netlink_events.of_links(link("eth0") + link("docker0"), {"br0"})
    assert netlink_events.of_links(link("eth0") + link("cvd-ebr"), {""})


def test_addresses_and_switches() -> None:
    assert not netlink_events.of_links(address(LOOPBACK), {""})
    # Nobody knows whose it was.
    assert netlink_events.of_links(address(0x7FFFFFF0), {""})
    assert netlink_events.of_links(netconf(-1), {""})
    assert not netlink_events.of_links(netconf(-2), {""})
    assert not netlink_events.of_links(netconf(LOOPBACK), {""})


def test_tables() -> None:
    assert netlink_events.of_tables(rule("filter") + rule("cuttlefish_nat"), {"cuttlefish_nat"})
    assert not netlink_events.of_tables(rule("filter"), {"cuttlefish_nat"})


@given(st.binary(max_size=200))
def test_noise_does_no_harm(raw: bytes) -> None:
    netlink_events.of_links(raw, {""})
    netlink_events.of_tables(raw, {"cfctl"})
    netlink_events.attribute(raw, 3)


@given(st.lists(st.sampled_from([link("cvd-ebr"), link("eth0"), rule("filter")])), st.integers(0, 80))
def test_what_is_cut_off_is_left_out(parts: list[bytes], cut: int) -> None:
    raw = b"".join(parts)
    whole = list(netlink_events.messages(raw))
    assert len(whole) == len(parts)
    shorter = list(netlink_events.messages(raw[: max(0, len(raw) - cut)]))
    assert shorter == whole[: len(shorter)]
