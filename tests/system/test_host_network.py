"""What the host's network does with packets: addresses by DHCP, isolation of guests, the host's own IPv6 route."""

from __future__ import annotations

import json
import time

from tests.system.host_helpers import changes, python_argv, snapshot, taps_in_use
from tests.system.sandbox import Sandbox

#: Prints what the DHCP server gave.
UDHCPC_SCRIPT = """#!/bin/sh
[ "$1" = bound ] && echo "$ip $subnet $broadcast $router $dns"
exit 0
"""

#: A guest in a network namespace of its own, on a port of a bridge. Arguments: name, bridge, MAC.
GUEST = """
ip netns add "$1"
ip link add "port-$1" type veth peer name eth0 netns "$1"
ip -n "$1" link set eth0 address "$3"
ip link set "port-$1" master "$2" up
ip link set "port-$1" type bridge_slave isolated "$4"
ip -n "$1" link set eth0 up
"""


def guest(box: Sandbox, name: str, mac: str, *, bridge: str = "cvd-ebr", isolated: bool = True) -> None:
    box.run("sh", "-ec", GUEST, "guest", name, bridge, mac, "on" if isolated else "off")


def lease(box: Sandbox, name: str) -> list[str]:
    box.run("sh", "-c", "cat >/run/udhcpc; chmod +x /run/udhcpc", stdin=UDHCPC_SCRIPT)
    done = box.run(
        *("ip", "netns", "exec", name, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f"),
        *("-t", "8", "-T", "1", "-s", "/run/udhcpc"),
    )
    return done.stdout.split()


def test_each_instance_is_given_its_own_address(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "2")
    # The second first: the address follows from the number, not from who comes first.
    for number, address in ((2, "192.168.98.3"), (1, "192.168.98.2")):
        guest(sandbox, f"g{number}", f"00:1a:11:e1:cf:{number - 1:02x}")
        assert lease(sandbox, f"g{number}") == [
            address,
            "255.255.255.0",
            "192.168.98.255",
            "192.168.98.1",
            "8.8.8.8",
            "8.8.4.4",
        ]
    # Instance 128 has its address too, though the host serves two: the number may grow without a new server.
    guest(sandbox, "g128", "00:1a:11:e1:cf:7f")
    assert lease(sandbox, "g128")[0] == "192.168.98.129"
    guest(sandbox, "w1", "00:1a:11:e2:cf:00", bridge="cvd-wbr")
    assert lease(sandbox, "w1")[0].startswith("192.168.96.")


def test_status_tells_the_address_of_a_guest(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    guest(sandbox, "g1", "00:1a:11:e1:cf:00")
    lease(sandbox, "g1")
    with taps_in_use(sandbox, "cvd-etap-01"):
        (shown,) = sandbox.json("host", "status")["guests"]
        assert "device up  cvd-1 192.168.98.2" in sandbox.cfctl("host", "status").stdout
    assert shown["address"] == "192.168.98.2"


def test_guests_meet_only_without_isolation(sandbox: Sandbox) -> None:
    """Frames between ports stop at the bridge, packets between subnets at the forward chain."""
    sandbox.cfctl("host", "setup", "--instances", "1")
    for name, mac, bridge, net in (
        ("a", "02:00:00:00:00:01", "cvd-ebr", "192.168.98"),
        ("b", "02:00:00:00:00:02", "cvd-ebr", "192.168.98"),
        ("c", "02:00:00:00:00:03", "cvd-wbr", "192.168.96"),
    ):
        guest(sandbox, name, mac, bridge=bridge)
        address = f"{net}.{200 + ord(name) - ord('a')}/24"
        sandbox.run("ip", "-n", name, "addr", "add", address, "dev", "eth0")
        sandbox.run("ip", "-n", name, "route", "add", "default", "via", f"{net}.1")
    assert _reaches(sandbox, "a", "192.168.98.1")
    assert not _reaches(sandbox, "a", "192.168.98.201")
    assert not _reaches(sandbox, "a", "192.168.96.202")
    sandbox.cfctl("host", "setup", env={"CFCTL_HOST_GUEST_ISOLATION": "false"})
    for name in "abc":
        sandbox.run("ip", "link", "set", f"port-{name}", "type", "bridge_slave", "isolated", "off")
    assert _reaches(sandbox, "a", "192.168.98.201")
    assert _reaches(sandbox, "a", "192.168.96.202")


def _reaches(box: Sandbox, guest: str, address: str) -> bool:
    # Three, because the first may wait for an ARP entry that has failed before; all three fail within 2 s.
    ping = ("ip", "netns", "exec", guest, "busybox", "ping", "-c", "3", "-A", "-w", "2", address)
    return box.run(*ping, check=False).returncode == 0


def _default_route(box: Sandbox) -> list[str]:
    routes = json.loads(box.run("ip", "-6", "-j", "route", "show", "default").stdout)
    return [f"{route['dev']} {route['protocol']}" for route in routes]


def _advertised(box: Sandbox) -> list[str]:
    """Let the router advertise itself; return the default routes once there is one, or after 2 s."""
    box.run("ip", "netns", "exec", "router", *python_argv("tests.system.router", "eth0"))
    deadline = time.monotonic() + 2
    while not (routes := _default_route(box)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return routes


def test_an_advertised_default_route_survives(sandbox: Sandbox) -> None:
    sandbox.run(
        "sh",
        "-ec",
        "ip netns add router; ip link add up0 type veth peer name eth0 netns router;"
        "ip -n router link set eth0 up; ip link set up0 up",
    )
    assert _advertised(sandbox) == ["up0 ra"]
    before = snapshot(sandbox)
    uplink = sandbox.run("sh", "-c", "cd /proc/sys/net/ipv6/conf/up0; cat accept_ra forwarding").stdout
    assert uplink == "1\n0\n"

    done = changes(sandbox, "host", "setup", "--instances", "1")
    assert ("change", "uplink up0") in done
    assert _default_route(sandbox) == ["up0 ra"]
    assert changes(sandbox, "host", "setup") == []
    # It goes on listening: what was lost comes back.
    sandbox.run("ip", "-6", "route", "flush", "default")
    assert _advertised(sandbox) == ["up0 ra"]
    assert sandbox.run("stat", "-c", "%a", "/run/cfctl/host/accept_ra.json").stdout == "600\n"

    sandbox.cfctl("host", "teardown")
    assert _default_route(sandbox) == ["up0 ra"]
    assert snapshot(sandbox) == before
    assert sandbox.run("sh", "-c", "cd /proc/sys/net/ipv6/conf/up0; cat accept_ra forwarding").stdout == uplink
    sandbox.run("ip", "-6", "route", "flush", "default")
    assert _advertised(sandbox) == ["up0 ra"]
    # And once more, now that forwarding is on already.
    sandbox.cfctl("host", "setup", "--instances", "1")
    assert _default_route(sandbox) == ["up0 ra"]
    sandbox.run("ip", "-6", "route", "flush", "default")
    assert _advertised(sandbox) == ["up0 ra"]
