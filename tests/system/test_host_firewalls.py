"""Other people's firewalls, with real programs and real packets: a guest gets its address and gets out, nothing else.

Each test first sees the guest without its network: a firewall that drops nothing would prove nothing.
"""

from __future__ import annotations

import json
import os
import re

from tests.system.host_helpers import changes, snapshot
from tests.system.knock import PORT
from tests.system.outside import (
    FORBIDDEN,
    GATEWAY,
    GUEST,
    INTERNET,
    RIGHT,
    connects,
    dockerd,
    everything,
    firewalld,
    guest,
    internet,
    lease,
    reaches,
    ufw,
)
from tests.system.sandbox import Sandbox

LEAVE = {"CFCTL_HOST_FIREWALL": "leave"}


def rules(box: Sandbox) -> str:
    """Return all rules without counters; rules of iptables as iptables says them."""
    return box.run("sh", "-c", "nft -s list ruleset; iptables-nft -S; ip6tables-nft -S").stdout


def openings(box: Sandbox, *args: str) -> list[tuple[str, str]]:
    return [(action, name) for action, name in changes(box, *args) if name.startswith(("opening", "manager"))]


def setup(box: Sandbox, *args: str) -> None:
    box.cfctl("host", "setup", "--instances", "1", *args)
    guest(box)


# -- Docker ------------------------------------------------------------------------------------------------

_DOCKER = [
    ("create", "opening ip filter DOCKER-USER: -i cvd-+ -o docker0 -j RETURN"),
    ("create", "opening ip filter DOCKER-USER: -i cvd-+ -o br-+ -j RETURN"),
    ("create", "opening ip filter DOCKER-USER: -i cvd-+ -j ACCEPT"),
    ("create", "opening ip filter DOCKER-USER: -o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
]


def test_docker_that_was_there_before(sandbox: Sandbox) -> None:
    internet(sandbox)
    with dockerd(sandbox):
        assert "-P FORWARD DROP" in sandbox.run("iptables-nft", "-S").stdout
        # An administrator's own drop of everything to one address of a customer.
        sandbox.run("iptables-nft", "-I", "DOCKER-USER", "-d", FORBIDDEN, "-j", "DROP")
        before = rules(sandbox)
        sandbox.cfctl("host", "setup", "--instances", "1", env=LEAVE)
        guest(sandbox)
        assert everything(sandbox) == {**RIGHT, "out": False}

        assert openings(sandbox, "host", "setup") == _DOCKER
        assert everything(sandbox) == RIGHT
        assert changes(sandbox, "host", "setup") == []
        # iptables shows them as its own, after the administrator's rule and before the last one.
        listed = sandbox.run("iptables-nft", "-S", "DOCKER-USER").stdout.splitlines()
        assert listed == [
            "-N DOCKER-USER",
            "-A DOCKER-USER -d 203.0.113.9/32 -j DROP",
            "-A DOCKER-USER -i cvd-+ -o docker0 -m comment --comment cfctl -j RETURN",
            "-A DOCKER-USER -i cvd-+ -o br-+ -m comment --comment cfctl -j RETURN",
            "-A DOCKER-USER -i cvd-+ -m comment --comment cfctl -j ACCEPT",
            "-A DOCKER-USER -o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment cfctl -j ACCEPT",
            "-A DOCKER-USER -j RETURN",
        ]
        assert not connects(sandbox, "guest", "internet", FORBIDDEN)
        sandbox.run("sh", "-c", "ip netns del guest")
        sandbox.cfctl("host", "teardown")
        assert rules(sandbox) == before


def test_docker_that_is_started_again(sandbox: Sandbox) -> None:
    internet(sandbox)
    with dockerd(sandbox):
        setup(sandbox)
        assert everything(sandbox) == RIGHT
    with dockerd(sandbox):
        assert "-P FORWARD DROP" in sandbox.run("iptables-nft", "-S").stdout
        assert changes(sandbox, "host", "setup") == []
        assert everything(sandbox) == RIGHT
        # What Docker does not make again: somebody flushes the chain.
        sandbox.run("iptables-nft", "-F", "DOCKER-USER")
        assert not reaches(sandbox, "guest", INTERNET)
        assert sandbox.cfctl("host", "status", check=False).returncode == 3
        assert openings(sandbox, "host", "setup") == _DOCKER
        assert everything(sandbox) == RIGHT
    # With Docker gone, the chain is still there, and so is what is ours in it.
    sandbox.cfctl("host", "teardown")
    assert "cfctl" not in rules(sandbox)


def test_docker_that_comes_later_drops_nothing(sandbox: Sandbox) -> None:
    """Docker drops what it does not know only where it has switched forwarding on itself."""
    internet(sandbox)
    setup(sandbox)
    with dockerd(sandbox):
        assert "-P FORWARD ACCEPT" in sandbox.run("iptables-nft", "-S").stdout
        assert everything(sandbox)["out"] is True
        assert changes(sandbox, "host", "setup") == []
        # Somebody makes it drop: drift, mended.
        sandbox.run("iptables-nft", "-P", "FORWARD", "DROP")
        assert not reaches(sandbox, "guest", INTERNET)
        assert openings(sandbox, "host", "setup") == _DOCKER
        assert everything(sandbox) == RIGHT


#: A network namespace on Docker's bridge stands in for a container: what decides is Docker's rules.
_CONTAINER = """
ip netns add container
ip link add port-box type veth peer name eth0 netns container
ip link set port-box master docker0 up; ip -n container link set eth0 up
ip -n container addr add 172.17.0.5/16 dev eth0; ip -n container route add default via 172.17.0.1
"""


def test_docker_says_what_of_its_containers_guests_reach(sandbox: Sandbox) -> None:
    internet(sandbox)
    with dockerd(sandbox):
        setup(sandbox)
        assert everything(sandbox) == RIGHT
        sandbox.run("sh", "-ec", _CONTAINER)
        assert connects(sandbox, "container", "internet", INTERNET)
        assert not connects(sandbox, "guest", "container", "172.17.0.5")
        # What Docker adds for a published port.
        publish = f"DOCKER -d 172.17.0.5/32 ! -i docker0 -o docker0 -p tcp --dport {PORT} -j ACCEPT"
        sandbox.run("iptables-nft", "-A", *publish.split())
        assert connects(sandbox, "guest", "container", "172.17.0.5")
        # The order counts: a rule that was lost comes back before those that are to follow it.
        lost = "DOCKER-USER -i cvd-+ -o docker0 -m comment --comment cfctl -j RETURN"
        sandbox.run("iptables-nft", "-D", *lost.split())
        sandbox.run("iptables-nft", "-F", "DOCKER")
        assert connects(sandbox, "guest", "container", "172.17.0.5")
        assert [action for action, _ in openings(sandbox, "host", "setup")] == [
            "create",
            "change",
            "change",
            "change",
        ]
        assert changes(sandbox, "host", "setup") == []
        assert not connects(sandbox, "guest", "container", "172.17.0.5")


def test_guests_stay_apart_beside_docker(sandbox: Sandbox) -> None:
    with dockerd(sandbox):
        setup(sandbox)
        lease(sandbox)
        sandbox.run(
            "sh",
            "-ec",
            "ip netns add other; ip link add port-other type veth peer name eth0 netns other;"
            "ip link set port-other master cvd-wbr up; ip -n other addr add 192.168.96.9/24 dev eth0;"
            "ip -n other link set eth0 up; ip -n other route add default via 192.168.96.1",
        )
        assert reaches(sandbox, "guest", GATEWAY)
        assert not reaches(sandbox, "guest", "192.168.96.9")


# -- nftables ----------------------------------------------------------------------------------------------

_ADMINISTRATOR = """
table inet mine {
    chain input {
        type filter hook input priority 0; policy drop;
        iifname "lo" accept
        iifname "cvd-ebr" tcp dport 22 drop
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ip daddr 203.0.113.9 drop
        counter reject
    }
}
"""

_NFT = [
    ("create", 'opening inet mine input: iifname "cvd-ebr" udp dport 67 counter accept'),
    ("create", 'opening inet mine input: iifname "cvd-wbr" udp dport 67 counter accept'),
    ("create", 'opening inet mine forward: iifname "cvd-*" counter accept'),
    ("create", 'opening inet mine forward: oifname "cvd-*" ct state established,related counter accept'),
]


def test_nftables_that_drops(sandbox: Sandbox) -> None:
    internet(sandbox)
    sandbox.run("nft", "-f", "-", stdin=_ADMINISTRATOR)
    before = snapshot(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "1", env=LEAVE)
    guest(sandbox)
    assert everything(sandbox) == {"address": "", "out": False, "in": False}

    assert openings(sandbox, "host", "setup") == _NFT
    assert everything(sandbox) == RIGHT
    assert changes(sandbox, "host", "setup") == []
    # DHCP and nothing else of the host: not even a ping.
    assert not connects(sandbox, "guest", "host", GATEWAY)
    assert not reaches(sandbox, "guest", GATEWAY)
    assert not connects(sandbox, "guest", "internet", FORBIDDEN)
    # A drop that comes later is not overruled either, as soon as the set-up sees it.
    sandbox.run("nft", "add rule inet mine input iifname cvd-ebr drop")
    assert ("change", _NFT[0][1]) in openings(sandbox, "host", "setup")
    assert changes(sandbox, "host", "setup") == []
    assert lease(sandbox) == ""
    listed = sandbox.run("nft", "-a", "list", "chain", "inet", "mine", "input").stdout
    (handle,) = re.findall(r'"cvd-ebr" drop # handle (\d+)', listed)
    sandbox.run("nft", f"delete rule inet mine input handle {handle}")
    assert changes(sandbox, "host", "setup") == []
    assert lease(sandbox) == GUEST

    sandbox.run("sh", "-c", "ip netns del guest; rm -f /run/udhcpc")
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_a_reload_that_flushes_everything_is_mended(sandbox: Sandbox) -> None:
    internet(sandbox)
    sandbox.run("nft", "-f", "-", stdin=_ADMINISTRATOR)
    setup(sandbox)
    assert everything(sandbox) == RIGHT
    # What the nftables service does when it is started or reloaded.
    sandbox.run("nft", "-f", "-", stdin=f"flush ruleset\n{_ADMINISTRATOR}")
    assert everything(sandbox)["address"] == ""
    status = sandbox.cfctl("host", "status", "--json", check=False)
    assert status.returncode == 3
    document = json.loads(status.stdout)
    assert document["state"] == "drift"
    named = [(change["action"], change["object"]) for change in document["changes"]]
    assert set(_NFT) <= set(named)
    assert ("create", "table ip cuttlefish_nat") in named
    sandbox.cfctl("host", "setup")
    assert everything(sandbox) == RIGHT
    assert changes(sandbox, "host", "setup") == []


def test_a_firewall_and_settings_that_change_leave_nothing_behind(sandbox: Sandbox) -> None:
    """The openings are found by their mark, wherever they are, and whatever the settings and the policy say now."""
    sandbox.run("nft", "-f", "-", stdin=_ADMINISTRATOR)
    before = rules(sandbox).replace("policy drop", "policy accept")
    defaults = "/etc/default/cuttlefish-host-resources"
    sandbox.run("sh", "-c", f"printf 'num_cvd_accounts=2\\nethernet_ipv6_prefix=fd00:98::\\n' >{defaults}")
    sandbox.cfctl("host", "setup")
    listed = sandbox.run("nft", "list", "chain", "inet", "mine", "input").stdout
    assert 'iifname "cvd-ebr" udp dport 547 counter' in listed
    assert 'iifname "cvd-ebr" icmpv6 type nd-router-solicit counter' in listed
    sandbox.run("sh", "-c", f"echo num_cvd_accounts=0 >{defaults}")
    sandbox.run("nft", "chain inet mine input { policy accept; }")
    sandbox.cfctl("host", "teardown", env=LEAVE)
    assert rules(sandbox) == before


# -- ufw ---------------------------------------------------------------------------------------------------

_UFW = [
    ("create", "opening ufw: allow in on cvd-ebr proto udp to any port 67"),
    ("create", "opening ufw: allow in on cvd-wbr proto udp to any port 67"),
    ("create", "opening ufw: route allow in on cvd-+"),
]


def test_ufw(sandbox: Sandbox) -> None:
    internet(sandbox)
    ufw(sandbox)
    sandbox.run("ufw", "route", "deny", "out", "on", "up0", "to", FORBIDDEN)
    # A reload adds rules of its own that switching it on does not.
    sandbox.run("ufw", "reload")
    before = sandbox.run("sh", "-c", "cat /etc/ufw/user*.rules; iptables-nft -S; ip6tables-nft -S").stdout
    sandbox.cfctl("host", "setup", "--instances", "1", env=LEAVE)
    guest(sandbox)
    assert everything(sandbox) == {"address": "", "out": False, "in": False}

    assert openings(sandbox, "host", "setup") == _UFW
    assert everything(sandbox) == RIGHT
    assert changes(sandbox, "host", "setup") == []
    assert not connects(sandbox, "guest", "internet", FORBIDDEN)
    assert not connects(sandbox, "guest", "host", GATEWAY)
    sandbox.run("ufw", "reload")
    assert everything(sandbox) == RIGHT
    sandbox.cfctl("host", "teardown")
    after = sandbox.run("sh", "-c", "cat /etc/ufw/user*.rules; iptables-nft -S; ip6tables-nft -S").stdout
    assert after == before


def test_ufw_that_was_switched_off_meanwhile(sandbox: Sandbox) -> None:
    ufw(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.run("ufw", "disable")
    sandbox.cfctl("host", "teardown")
    assert "cvd-" not in sandbox.run("sh", "-c", "cat /etc/ufw/user*.rules").stdout


# -- firewalld ---------------------------------------------------------------------------------------------

_FIREWALLD = [
    ("create", "opening firewalld: zones/cuttlefish.xml"),
    ("create", "opening firewalld: policies/cuttlefish-out.xml"),
]


def test_firewalld(sandbox: Sandbox) -> None:
    internet(sandbox)
    with firewalld(sandbox):
        before = (rules(sandbox), sandbox.run("firewall-cmd", "--list-all-zones", "--permanent").stdout)
        sandbox.cfctl("host", "setup", "--instances", "1", env=LEAVE)
        guest(sandbox)
        assert everything(sandbox) == {"address": "", "out": False, "in": False}

        assert openings(sandbox, "host", "setup") == _FIREWALLD
        assert everything(sandbox) == RIGHT
        assert changes(sandbox, "host", "setup") == []
        assert not connects(sandbox, "guest", "host", GATEWAY)
        for reload in ("--reload", "--complete-reload"):
            sandbox.run("firewall-cmd", reload)
            assert changes(sandbox, "host", "setup") == []
            assert lease(sandbox) == GUEST
        # Killed between the files and the reload.
        script = "mv $1 /run/away; firewall-cmd --reload; mv /run/away $1"
        sandbox.run("sh", "-ec", script, "sh", "/etc/firewalld/policies/cuttlefish-out.xml")
        assert openings(sandbox, "host", "setup") == [("change", "opening firewalld: what runs")]
        assert everything(sandbox) == RIGHT
        sandbox.cfctl("host", "teardown")
        assert (rules(sandbox), sandbox.run("firewall-cmd", "--list-all-zones", "--permanent").stdout) == before


def test_firewalld_keeps_what_only_runs(sandbox: Sandbox) -> None:
    with firewalld(sandbox):
        sandbox.run("firewall-cmd", "--add-port", "8080/tcp")
        done = sandbox.cfctl("host", "setup", "--instances", "1", check=False)
        assert done.returncode == 1
        assert "zone public" in done.stderr
        assert "firewall-cmd --runtime-to-permanent" in done.stderr
        assert "8080/tcp" in sandbox.run("firewall-cmd", "--list-ports").stdout
        sandbox.run("firewall-cmd", "--runtime-to-permanent")
        sandbox.cfctl("host", "setup", "--instances", "1")
        assert "8080/tcp" in sandbox.run("firewall-cmd", "--list-ports").stdout
        sandbox.run("firewall-cmd", "--add-port", "8081/tcp")
        # What runs already needs no reload.
        assert changes(sandbox, "host", "setup") == []
        # firewalld writes our files its own way then.
        sandbox.run("firewall-cmd", "--runtime-to-permanent")
        assert changes(sandbox, "host", "setup") == []
        sandbox.run("firewall-cmd", "--add-port", "8082/tcp")
        sandbox.cfctl("host", "teardown")
        assert "8082/tcp" in sandbox.run("firewall-cmd", "--list-ports").stdout
        assert "cvd-" not in sandbox.run("nft", "list", "ruleset").stdout
        assert sandbox.json("host", "status", check=False)["state"] == "absent"
        sandbox.run("firewall-cmd", "--runtime-to-permanent")
        sandbox.cfctl("host", "setup", "--instances", "1")
    # Stopped: its files are taken away all the same.
    sandbox.run("nft", "flush", "ruleset")
    sandbox.cfctl("host", "teardown")
    assert "cuttlefish" not in sandbox.run("find", "/etc/firewalld").stdout


# -- iptables ----------------------------------------------------------------------------------------------

#: What distributions of old brought as /etc/sysconfig/iptables, with another's default for forwarding.
_SYSCONFIG = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""


def test_iptables_that_rejects_what_is_left(sandbox: Sandbox) -> None:
    internet(sandbox)
    sandbox.run("iptables-nft-restore", stdin=_SYSCONFIG)
    before = rules(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "1", env=LEAVE)
    guest(sandbox)
    assert everything(sandbox) == {"address": "", "out": False, "in": False}
    assert openings(sandbox, "host", "setup") == [
        ("create", "opening ip filter INPUT: -i cvd-ebr -p udp -m udp --dport 67 -j ACCEPT"),
        ("create", "opening ip filter INPUT: -i cvd-wbr -p udp -m udp --dport 67 -j ACCEPT"),
        ("create", "opening ip filter FORWARD: -i cvd-+ -j ACCEPT"),
        ("create", "opening ip filter FORWARD: -o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ]
    assert everything(sandbox) == RIGHT
    assert changes(sandbox, "host", "setup") == []
    assert sandbox.run("iptables-nft", "-S", "INPUT").stdout.splitlines()[-1].endswith("icmp-host-prohibited")
    # Out of place, and there twice: put right.
    first = "INPUT -i cvd-ebr -p udp -m udp --dport 67 -m comment --comment cfctl -j ACCEPT"
    sandbox.run("iptables-nft", "-D", *first.split())
    for _ in range(2):
        sandbox.run("iptables-nft", "-A", *first.split())
    assert lease(sandbox) == ""
    assert [action for action, _ in openings(sandbox, "host", "setup")] == ["change"]
    assert changes(sandbox, "host", "setup") == []
    assert lease(sandbox) == GUEST
    sandbox.cfctl("host", "teardown")
    assert rules(sandbox) == before


# -- those who configure interfaces ------------------------------------------------------------------------

#: Stands in for busctl, so that it is seen what would be called: neither manager runs here.
_BUSCTL = '#!/bin/sh\necho "$@" >>/run/busctl.log\n'


def test_managers_are_told_to_leave_the_interfaces_alone(sandbox: Sandbox) -> None:
    sandbox.run("mkdir", "-p", "/run/NetworkManager/conf.d", "/run/systemd/netif", "/run/systemd/network", "/run/bin")
    sandbox.run("sh", "-ec", "cat >/run/bin/busctl; chmod 755 /run/bin/busctl; touch /run/busctl.log", stdin=_BUSCTL)
    sandbox.env["PATH"] = f"/run/bin:{os.environ['PATH']}"
    sandbox.run("touch", "/run/systemd/network/80-mine.network", "/run/NetworkManager/conf.d/mine.conf")
    # Without it, networkd is installed and has never been started.
    sandbox.run("touch", "/run/systemd/netif/state")
    before = snapshot(sandbox)
    told = [("create", "manager NetworkManager"), ("create", "manager systemd-networkd")]
    assert openings(sandbox, "host", "setup", "--instances", "1") == told
    assert "managed=0" in sandbox.run("cat", "/run/NetworkManager/conf.d/90-cfctl.conf").stdout
    assert "Unmanaged=yes" in sandbox.run("cat", "/run/systemd/network/00-cfctl.network").stdout
    assert changes(sandbox, "host", "setup") == []
    called = sandbox.run("cat", "/run/busctl.log").stdout
    assert "org.freedesktop.NetworkManager Reload u 1" in called
    assert "org.freedesktop.network1.Manager Reload" in called
    sandbox.run("sh", "-c", "echo >>/run/systemd/network/00-cfctl.network")
    assert openings(sandbox, "host", "setup") == [("change", "manager systemd-networkd")]
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


# -- another's DHCP server ---------------------------------------------------------------------------------


def test_another_dnsmasq_stays_as_it_is(sandbox: Sandbox) -> None:
    """Libvirt's has a bridge of its own; neither takes the other's guests."""
    sandbox.run(
        "sh",
        "-ec",
        "ip link add virbr0 type bridge; ip addr add 192.168.122.1/24 dev virbr0; ip link set virbr0 up;"
        "dnsmasq --conf-file= --port=0 --strict-order --bind-dynamic --interface=virbr0 --except-interface=lo"
        " --dhcp-range=192.168.122.2,192.168.122.254 --dhcp-no-override --no-ping"
        " --pid-file=/run/virbr0.pid --dhcp-leasefile=/run/virbr0.leases",
    )
    before = snapshot(sandbox)
    server = sandbox.run("cat", "/run/virbr0.pid").stdout
    for _ in range(2):
        setup(sandbox)
        assert lease(sandbox) == GUEST
        sandbox.run("ip", "link", "set", "port-guest", "master", "virbr0")
        assert lease(sandbox).startswith("192.168.122.")
        sandbox.run("sh", "-c", "ip netns del guest; rm -f /run/udhcpc /run/virbr0.leases; touch /run/virbr0.leases")
        sandbox.cfctl("host", "teardown")
        assert {**snapshot(sandbox), "files": None} == {**before, "files": None}
        assert sandbox.run("cat", "/run/virbr0.pid").stdout == server
