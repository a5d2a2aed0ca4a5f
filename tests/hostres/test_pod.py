"""What a pod has been given, as data; the state that follows from it; where it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import CfctlError, HostLacks, NotAPod
from cfctl.hostres import container, dnsmasq, nft, plan, pod, pod_interface, pod_state
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed
from cfctl.hostres.pod import Pod
from tests.hostres import hosts

#: Shortened from ``ip -d -j addr`` (iproute2 6.1).
ETH0: dict[str, Any] = json.loads(
    """{"ifindex":3,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1400,"link_type":"ether",
    "address":"02:42:0a:f4:01:05","linkinfo":{"info_kind":"veth"},"addr_info":[
    {"family":"inet","local":"10.244.1.5","prefixlen":24,"metric":77,"broadcast":"10.244.1.255","scope":"global",
    "noprefixroute":true,"label":"eth0","valid_life_time":4294967295,"preferred_life_time":4294967295},
    {"family":"inet","local":"10.9.9.9","address":"10.9.9.8","prefixlen":32,"scope":"link","label":"eth0",
    "valid_life_time":4294967295},
    {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}"""
)
#: From ``ip -d -4 route show table all`` (iproute2 6.1).
ROUTES = pod.route_lines(
    """unicast 10.8.0.0/16 dev eth0 table 100 proto boot scope link
unicast default via 10.244.1.1 dev eth0 table main proto static scope global metric 20 mtu 1300 linkdown
unicast default via 10.244.1.3 dev eth0 table main proto static scope global metric 90
unicast 10.244.1.0/24 dev eth0 table main proto boot scope link src 10.244.1.5 metric 50
unicast 10.96.0.0/12 via 10.244.1.2 dev eth0 table main proto boot scope global onlink
unicast 10.7.0.0/16 via 10.9.9.8 dev eth0 table main proto boot scope global src 10.9.9.9
unicast 169.254.1.1 dev eth0 table main proto boot scope link
unicast 10.6.0.0/16 table main proto boot scope global
\tnexthop via 10.0.0.1 dev eth1 weight 1
\tnexthop via 10.0.0.2 dev eth1 weight 1
blackhole 10.77.0.0/16 table main proto boot scope global
local 10.244.1.5 dev eth0 table local proto kernel scope host src 10.244.1.5
broadcast 10.244.1.255 dev eth0 table local proto kernel scope link src 10.244.1.5
"""
)
RESOLV_CONF = """
nameserver 127.0.0.11
nameserver 10.96.0.10
nameserver 2001:db8::1
search default.svc.cluster.local svc.cluster.local.
options ndots:5
"""
#: From ``ip -4 -j neigh show nud permanent``.
NEIGHBOURS = [
    {"dst": "169.254.1.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01", "state": ["PERMANENT"]},
    {"dst": "10.0.0.1", "dev": "eth1", "lladdr": "02:00:00:00:00:02", "state": ["PERMANENT"]},
]
POD = pod.discover([{"ifname": "lo"}, ETH0], ROUTES, RESOLV_CONF, "phone-0.phones", NEIGHBOURS)


def test_what_is_found() -> None:
    assert (POD.interface, POD.mac, POD.mtu, POD.address) == ("eth0", "02:42:0a:f4:01:05", 1400, "10.244.1.5/24")
    assert POD.addresses == (
        "10.244.1.5/24 broadcast 10.244.1.255 scope global label eth0 metric 77 noprefixroute",
        "10.9.9.9 peer 10.9.9.8/32 scope link label eth0",
    )
    assert len(POD.routes) == 7
    assert (
        "unicast default via 10.244.1.1 dev eth0 table main proto static scope global metric 20 mtu 1300"
        in POD.routes
    )
    assert POD.dns == ("10.96.0.10",)
    assert POD.search == ("default.svc.cluster.local", "svc.cluster.local")
    assert POD.hostname == "phone-0"
    assert POD.neighbours == ("169.254.1.1 lladdr 02:00:00:00:00:01",)
    assert POD.gateway == "10.244.1.1"
    assert [(str(network), gateway) for network, gateway in POD.dhcp_routes] == [
        ("10.244.1.2/32", None),
        ("169.254.1.1/32", None),
        ("10.96.0.0/12", "10.244.1.2"),
        ("0.0.0.0/0", "10.244.1.1"),
    ]
    assert Pod.from_dict(json.loads(json.dumps(POD.as_dict()))) == POD


def test_the_interface_need_not_be_called_eth0() -> None:
    net1 = {**ETH0, "ifname": "net1"}
    routes = [line.replace("eth0", "net1") for line in ROUTES]
    assert pod.discover([ETH0, net1], routes, "", "x" * 64).interface == "net1"
    assert pod.discover([ETH0, net1], routes, "domain a.\n", "x" * 64).hostname == ""
    assert pod.discover([ETH0, net1], routes, "nameserver ::1%eth0\ndomain a.\n", "").search == ("a",)


@pytest.mark.parametrize(
    ("change", "routes", "brief"),
    [
        ({"ifname": "eth9"}, [], "the pod has no network"),
        ({"addr_info": []}, ROUTES, "eth0 has no IPv4 address"),
        ({}, ROUTES[-2:], "eth0 has no route"),
        ({"link_type": "none"}, ROUTES, "eth0 cannot be a port of a bridge"),
        ({"master": "br0"}, ROUTES, "eth0 is a port of br0 already"),
        (
            {"addr_info": [{**ETH0["addr_info"][0], "valid_life_time": 3000}]},
            ROUTES,
            "the address 10.244.1.5 of eth0 is only lent",
        ),
    ],
)
def test_nothing_to_give(change: dict[str, Any], routes: list[str], brief: str) -> None:
    with pytest.raises(HostLacks) as caught:
        pod.discover([{**ETH0, **change}], routes, "", "")
    assert caught.value.brief == brief
    assert caught.value.resolution


@given(st.sets(st.sampled_from(ROUTES)), st.sets(st.sampled_from(ROUTES)))
def test_routes_are_mended(wanted: set[str], found: set[str]) -> None:
    lines = pod.mend_routes(sorted(wanted), sorted(found))
    now = set(found)
    for line in lines:
        _, verb, route = line.split(" ", 2)
        now = now | {route} if verb == "add" else now - {route}
    assert now == wanted
    added = [line for line in lines if line.startswith("route add")]
    assert added == sorted(added, key=lambda line: " via " in line), "a gateway is reachable when it is used"


# -- the state, and the plan ---------------------------------------------------------------------------------


def test_the_server_answers_one_client() -> None:
    state = pod_state.state(POD, ("8.8.8.8",))
    (server,) = state.servers.values()
    for option in (
        "--shared-network=cvd-ebr,10.244.1.5",
        "--dhcp-range=10.244.1.5,static,255.255.255.0,10.244.1.255,infinite",
        "--dhcp-host=00:1a:11:e1:cf:00,10.244.1.5,phone-0,infinite",
        "--dhcp-ignore=tag:!known",
        "--dhcp-option=26,1400",
        "--dhcp-option=option:dns-server,10.96.0.10",
        "--dhcp-option=option:router,10.244.1.1",
        "--dhcp-option=option:classless-static-route,10.244.1.2/32,0.0.0.0,169.254.1.1/32,0.0.0.0,10.96.0.0/12,10.244.1.2,0.0.0.0/0,10.244.1.1",
        "--dhcp-option=option:domain-search,default.svc.cluster.local,svc.cluster.local",
    ):
        assert option in server.argv
    bare = pod_state.server(replace(POD, dns=(), search=(), routes=(), hostname=""), ("8.8.8.8",))
    assert "--dhcp-option=option:dns-server,8.8.8.8" in bare.argv
    assert "--dhcp-option=option:router" in bare.argv
    assert "--dhcp-host=00:1a:11:e1:cf:00,10.244.1.5,infinite" in bare.argv
    assert not any("classless" in word or "search" in word for word in bare.argv)
    assert dict(state.sysctls) == {}
    assert list(state.tables) == [nft.POD]
    assert state.links["cvd-etap-01"].mtu == 1400


def pod_host(found: pod_interface.Found | None) -> Observed:
    host = hosts.ready(STATE)
    tap = host.links["cvd-etap-01"]
    return replace(host, links={**host.links, "cvd-etap-01": replace(tap, mtu=1400)}, pod=found)


STATE = pod_state.state(POD, ())
TAKEN = pod_interface.Found(POD, master="cvd-ebr")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (TAKEN, None),
        (None, "10.244.1.5/24 is to be the VM's"),
        (pod_interface.Found(POD, addresses=("10.244.1.5",)), "10.244.1.5/24 is to be the VM's"),
        (replace(TAKEN, addresses=("10.244.1.5",)), "10.244.1.5/24 is to be the VM's"),
        (replace(TAKEN, master=None), "10.244.1.5/24 is to be the VM's"),
    ],
)
def test_the_plan_of_a_set_up(found: pod_interface.Found | None, reason: str | None) -> None:
    changes = plan.compute(STATE, pod_host(found)).changes
    assert [(c.object, c.reason) for c in changes] == ([("pod eth0", reason)] if reason else [])


def test_the_plan_of_a_tear_down() -> None:
    def gives_back(found: pod_interface.Found) -> bool:
        return bool(plan.compute(State(), pod_host(found)).of("pod"))

    assert gives_back(TAKEN)
    assert gives_back(replace(TAKEN, addresses=("10.244.1.5",)))
    assert gives_back(replace(TAKEN, master=None)), "somebody has deleted the bridge"
    assert not gives_back(pod_interface.Found(POD, addresses=("10.244.1.5",)))
    assert not gives_back(replace(TAKEN, there=False))


def test_the_mtu_of_the_tap_is_mended() -> None:
    host = pod_host(TAKEN)
    tap = host.links["cvd-etap-01"]
    wrong = replace(host, links={**host.links, "cvd-etap-01": replace(tap, mtu=1500)})
    (change,) = plan.compute(STATE, wrong).changes
    assert (change.object, change.reason) == ("tap cvd-etap-01", "its MTU is 1500, not 1400")


# -- what was written down -----------------------------------------------------------------------------------


def test_what_was_written_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsmasq, "runtime_directory", lambda: tmp_path / "host")
    assert pod_interface.found([ETH0]) is None
    pod_interface.remember(POD)
    assert pod_interface.found([]) == pod_interface.Found(POD, there=False)
    free = pod_interface.found([ETH0])
    assert free
    assert (free.pod, free.taken, free.addresses) == (POD, False, ("10.244.1.5", "10.9.9.9"))
    port = pod_interface.found([{**ETH0, "master": "cvd-ebr", "addr_info": [], "address": "02:00:00:00:00:01"}])
    assert port
    assert port.taken, "a MAC that was changed since does not make it a stranger"
    other = pod_interface.found([{**ETH0, "addr_info": [], "address": "02:00:00:00:00:01"}])
    assert other
    assert not other.taken, "the container was started again, and has another interface of that name"
    pod_interface.record().write_text("{}")
    with pytest.raises(CfctlError, match=r"pod\.json cannot be read"):
        pod_interface.found([ETH0])


def test_the_kernel_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ip = tmp_path / "ip"
    ip.write_text("#!/bin/sh\necho 'RTNETLINK answers: Operation not permitted'; exit 2\n")
    ip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CfctlError, match="the pod's interface could not be changed") as caught:
        pod_interface.take(POD, ())
    assert caught.value.details == "RTNETLINK answers: Operation not permitted"


class Refusing:
    """A C library whose kernel lets nobody mount."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def unshare(self, _: int) -> int:
        self.calls.append("unshare")
        return 0

    def mount(self, *_: object) -> int:
        self.calls.append("mount")
        return -1


def test_a_namespace_without_a_run_of_its_own(tmp_path: Path) -> None:
    libc = Refusing()
    with pytest.raises(CfctlError, match="cannot be given a /run of its own"):
        container.own_run(libc, tmp_path / "netns" / "1")
    assert libc.calls == ["unshare", "mount"], "nothing is put over a /run that others see"


# -- where it is refused -------------------------------------------------------------------------------------


def mark(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_hosts_own_network(tmp_path: Path) -> None:
    mark(tmp_path, "proc/sys/net/core/netdev_max_backlog")
    mark(tmp_path, ".dockerenv")
    for named in (True, False):
        with pytest.raises(NotAPod, match="this is the host's own network namespace"):
            container.require(named=named, root=tmp_path, environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".dockerenv", ""),
        ("run/.containerenv", ""),
        ("run/systemd/container", "systemd-nspawn"),
        ("proc/1/cgroup", "0::/kubepods.slice/kubepods-pod1.slice"),
    ],
)
def test_signs_of_a_container(tmp_path: Path, name: str, text: str) -> None:
    mark(tmp_path, "proc/1/cgroup", "0::/init.scope")
    with pytest.raises(NotAPod, match="this does not look like a container"):
        container.require(named=False, root=tmp_path, environ={})
    container.require(named=True, root=tmp_path, environ={})
    container.require(named=False, root=tmp_path, environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    mark(tmp_path, name, text)
    container.require(named=False, root=tmp_path, environ={})
