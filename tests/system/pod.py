"""A pod for one test: a sandbox with ``eth0``, a router at its other end, and a machine far away behind that."""

from __future__ import annotations

import json
from typing import Any

from tests.system import host_helpers
from tests.system.sandbox import Sandbox

MAC = "02:42:0a:f4:01:05"
ADDRESS = "10.244.1.5"
GATEWAY = "10.244.1.1"
FAR_AWAY = "198.51.100.7"
MTU = 1400

#: Namespaces: router and far. The pod's network knows the pod by its MAC alone, as plugins that pin it do: what comes
#: with another one is counted and dropped.
_AROUND = f"""
set -eu
touch /run/.containerenv
ip netns add router
ip netns add far
ip link add eth0 address {MAC} mtu {MTU} type veth peer name pod mtu {MTU} netns router
ip -n router link add far type veth peer name eth0 netns far
ip -n router addr add {GATEWAY}/24 dev pod
ip -n router addr add 198.51.100.1/24 dev far
ip -n far addr add {FAR_AWAY}/24 dev eth0
for link in lo pod far; do ip -n router link set $link up; done
ip -n far link set eth0 up
ip -n far route add default via 198.51.100.1
ip netns exec router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
ip netns exec router nft 'table netdev pin {{ chain in {{ type filter hook ingress device pod priority 0;
    ether saddr {MAC} arp saddr ether != {MAC} counter drop; ether saddr {MAC} accept; counter drop; }}; }}'
"""

#: Addresses and routes with everything that is easily lost.
USUAL = f"""
ip addr add {ADDRESS}/24 broadcast 10.244.1.255 metric 77 dev eth0
ip addr add 10.244.9.9/32 noprefixroute label eth0:x dev eth0
ip link set eth0 up
ip route add default via {GATEWAY} dev eth0 proto static metric 20 mtu 1300
ip route add 10.96.0.0/12 via 10.244.1.2 dev eth0 src {ADDRESS} metric 5
ip route add 203.0.113.0/24 via 192.0.2.1 dev eth0 onlink
ip route add 10.97.0.0/16 dev eth0 scope link table 100
ip neigh add 10.244.1.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
"""

#: As Calico does it: the gateway is nobody's neighbour but by a route of its own.
SINGLE = f"""
ip addr add {ADDRESS}/32 dev eth0
ip link set eth0 up
ip -n router addr add 169.254.1.1/32 dev pod
ip -n router route replace {ADDRESS}/32 dev pod
ip route add 169.254.1.1 dev eth0 scope link
ip route add default via 169.254.1.1 dev eth0
"""


def make(box: Sandbox, addresses: str = USUAL) -> None:
    """Make the sandbox a pod."""
    box.run("sh", "-c", _AROUND + addresses)


def snapshot(box: Sandbox) -> dict[str, Any]:
    """Return all that the pod had and must have again, down to flags, metrics, MAC and MTU."""
    found = host_helpers.snapshot(box)
    (eth0,) = json.loads(box.run("ip", "-d", "-j", "addr", "show", "dev", "eth0").stdout)
    found["eth0"] = {name: value for name, value in eth0.items() if name not in ("operstate", "addr_info")}
    found["eth0 addresses"] = [info for info in eth0["addr_info"] if info["family"] == "inet"]
    found["routes"] = sorted(box.run("ip", "-d", "-4", "route", "show", "table", "all").stdout.splitlines())
    found["neighbours"] = box.run("ip", "-4", "neigh", "show", "nud", "permanent").stdout
    return found


def strangers(box: Sandbox) -> int:
    """Return how many packets the router has seen that did not bear the pod's MAC."""
    ruleset = json.loads(box.run("ip", "netns", "exec", "router", "nft", "-j", "list", "ruleset").stdout)
    rules = [entry["rule"]["expr"] for entry in ruleset["nftables"] if "rule" in entry]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
