"""Hosts that are set up otherwise: somebody else's bridge, other subnets, IPv6 prefixes, the host's DNS servers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.host_helpers import changes, fails, python_argv, read_host, snapshot, taps_in_use
from tests.system.sandbox import Sandbox
from tests.system.test_host_network import guest, lease
from tests.system.test_host_refusals import unchanged, uplink
from tests.system.test_host_setup import ADDRESSES, TAP, reference_argv, reference_links

#: Upstream's subnets are taken where this is used.
OTHERS = """
[host]
ethernet_subnet = "10.193.98.0/24"
wifi_subnet = "10.193.96.0/24"
mobile_subnet = "10.193.97.0/24"
mobile_subnet_high = "10.193.93.0/24"
wifi_ap_subnet = "10.193.94.0/24"
wifi_ap_subnet_high = "10.193.95.0/24"
"""


def settings(box: Sandbox, toml: str) -> None:
    """Write root's config.toml, for this sandbox."""
    box.run("sh", "-c", "mkdir -p /run/etc; cat >/run/etc/config.toml", stdin=toml)
    box.env["CFCTL_PATHS_CONFIG"] = "/run/etc"


def lan(box: Sandbox) -> None:
    """Give the host a bridge of its own, with an uplink in it and an address."""
    box.run(
        "sh",
        "-ec",
        "ip link add br0 type bridge; ip link add up0 type veth peer name up1; ip link set up0 master br0;"
        # A random one may be higher than a tap's, as no network card's is, and would not stay the bridge's.
        "ip link set up0 address 02:00:00:00:00:01;"
        "ip addr add 10.9.9.1/24 dev br0; for i in up0 up1 br0; do ip link set $i up; done",
    )


def mac(box: Sandbox, name: str) -> str:
    return box.run("cat", f"/sys/class/net/{name}/address").stdout.strip()


# -- somebody else's bridge --------------------------------------------------------------------------------


def external_links(count: int) -> dict[str, object]:
    """The reference, from upstream's script with bridge_interface=br0: no bridges, both kinds of taps in br0."""
    links: dict[str, object] = {}
    for number in ("01", "02")[:count]:
        for kind in ("etap", "wtap"):
            links[f"cvd-{kind}-{number}"] = TAP | {"master": "br0", "isolated": True, "addresses": []}
        for kind in ("mtap", "wifiap"):
            name = f"cvd-{kind}-{number}"
            links[name] = TAP | {"master": None, "isolated": False, "addresses": [ADDRESSES[name]]}
    return links


def test_external_bridge_is_equal_to_the_reference(sandbox: Sandbox) -> None:
    lan(sandbox)
    before, address = snapshot(sandbox), mac(sandbox, "br0")
    sandbox.run("sh", "-c", "echo bridge_interface=br0 >/etc/default/cuttlefish-host-resources")
    done = sandbox.cfctl("host", "setup", "--instances", "2")
    assert done.stdout.endswith("The host serves 2 instances.\n")
    host = read_host(sandbox)
    assert host["links"] == external_links(2)
    assert host["servers"] == {}
    assert host["tables"] == ["bridge cuttlefish_bridge", "inet cfctl", "ip cuttlefish_nat"]
    assert host["rules"]["ip cuttlefish_nat postrouting"] == [
        f"saddr=={net} masquerade [cfctl]"
        for net in ("192.168.94.0/30", "192.168.94.4/30", "192.168.97.0/30", "192.168.97.4/30")
    ]
    assert "bridge cuttlefish_bridge prerouting" not in host["rules"]
    assert host["sysctls"] == {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
    # The host keeps its own address in its network: a bridge takes the lowest MAC of its ports.
    assert mac(sandbox, "br0") == address
    assert mac(sandbox, "cvd-etap-02") == "fe:1a:11:e1:cf:01"
    assert changes(sandbox, "host", "setup") == []
    status = sandbox.cfctl("host", "status").stdout
    assert "setting    host.bridge = br0 (/etc/default/cuttlefish-host-resources:1)" in status
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_a_guest_on_an_external_bridge_is_in_its_network(sandbox: Sandbox) -> None:
    lan(sandbox)
    # The network's own DHCP server, behind the uplink.
    sandbox.run("sh", "-ec", "ip netns add lan; ip link set up1 netns lan; ip -n lan addr add 10.9.9.2/24 dev up1")
    sandbox.run("ip", "-n", "lan", "link", "set", "up1", "up")
    sandbox.run(
        *(
            "ip",
            "netns",
            "exec",
            "lan",
            "dnsmasq",
            "--port=0",
            "--conf-file=",
            "--interface=up1",
            "--bind-interfaces",
        ),
        *("--dhcp-range=10.9.9.50,10.9.9.60", "--dhcp-leasefile=/run/lan.leases", "--pid-file=/run/lan.pid"),
    )
    sandbox.cfctl("host", "setup", "--instances", "1", "--bridge", "br0")
    guest(sandbox, "g1", "00:1a:11:e1:cf:00", bridge="br0")
    assert lease(sandbox, "g1")[0].startswith("10.9.9.5")


def test_the_bridge_is_kept_without_being_named_again(sandbox: Sandbox) -> None:
    lan(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "1", "--bridge", "br0")
    document = sandbox.json("host", "status")
    assert (document["state"], document["changes"]) == ("ready", [])
    assert document["settings"]["host.bridge"] == {"value": "br0", "origin": "observed on the host"}
    assert changes(sandbox, "host", "setup", "--instances", "2")[0] == ("create", "tap cvd-etap-02")
    assert read_host(sandbox)["links"] == external_links(2)


def test_switching_to_an_external_bridge_and_back(sandbox: Sandbox) -> None:
    lan(sandbox)
    before = snapshot(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "2")
    taps = sandbox.run("cat", "/sys/class/net/cvd-etap-01/ifindex", "/sys/class/net/cvd-mtap-02/ifindex").stdout
    there = changes(sandbox, "host", "setup", "--bridge", "br0")
    assert {("remove", "bridge cvd-ebr"), ("remove", "bridge cvd-wbr"), ("remove", "dnsmasq cvd-ebr")} <= set(there)
    assert read_host(sandbox)["links"] == external_links(2)
    assert read_host(sandbox)["servers"] == {}
    assert "pid" not in str(snapshot(sandbox)["files"])
    assert changes(sandbox, "host", "setup") == []
    back = changes(sandbox, "host", "setup", "--bridge", "")
    assert ("create", "bridge cvd-ebr") in back
    host = read_host(sandbox)
    assert host["links"] == reference_links(2)
    assert set(host["servers"]) == {"cvd-ebr", "cvd-wbr"}
    assert changes(sandbox, "host", "setup") == []
    now = sandbox.run("cat", "/sys/class/net/cvd-etap-01/ifindex", "/sys/class/net/cvd-mtap-02/ifindex").stdout
    assert now == taps, "taps move, they are not made anew"
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_devices_that_are_up_do_not_move(sandbox: Sandbox) -> None:
    lan(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "2")
    with taps_in_use(sandbox, "cvd-wtap-02"):
        with unchanged(sandbox):
            said = fails(sandbox, 1, "host", "setup", "--bridge", "br0")
            assert "devices are up: cvd-2\n  In use: cvd-wtap-02." in said
            assert "cut them off: cfctl host setup --bridge br0 --force" in said
            # The tap itself stays as it is, but its guest would lose the gateway.
            wifi = {"CFCTL_HOST_WIFI_SUBNET": "10.193.96.0/24"}
            assert "devices are up: cvd-2" in fails(sandbox, 1, "host", "setup", env=wifi)
        ethernet = {"CFCTL_HOST_ETHERNET_SUBNET": "10.193.98.0/24"}
        assert ("change", "bridge cvd-ebr") in changes(sandbox, "host", "setup", env=ethernet), "nobody is there"
        sandbox.cfctl("host", "setup", "--bridge", "br0", "--force")
        assert sandbox.run("cat", "/sys/class/net/cvd-wtap-02/carrier").stdout == "1\n"
    assert read_host(sandbox)["links"] == external_links(2)
    with taps_in_use(sandbox, "cvd-mtap-01"):
        mobile = {"CFCTL_HOST_MOBILE_SUBNET": "10.193.97.0/24"}
        assert "In use: cvd-mtap-01." in fails(sandbox, 1, "host", "setup", env=mobile)
        # What is only missing can be given back to a running device.
        sandbox.run("ip", "addr", "flush", "dev", "cvd-mtap-01")
        assert changes(sandbox, "host", "setup") == [("change", "tap cvd-mtap-01")]


def test_bridges_that_are_none(sandbox: Sandbox) -> None:
    sandbox.run("ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1")
    with unchanged(sandbox):
        said = fails(sandbox, 4, "host", "setup", "--instances", "1", "--bridge", "br7")
        assert "there is no bridge br7\n  host.bridge (--bridge) names it." in said
        assert "ip link add br7 type bridge" in said
        said = fails(sandbox, 2, "host", "plan", "--instances", "1", "--bridge", "dummy0")
        assert "dummy0 is no bridge of the kernel\n  host.bridge (--bridge) names it; its kind is veth." in said
        assert "it is a plain interface" in fails(sandbox, 2, "host", "setup", "--instances", "1", "--bridge", "lo")
        assert "are cfctl's own" in fails(sandbox, 2, "host", "setup", "--instances", "1", "--bridge", "cvd-ebr")


def test_routing_what_arrives_on_a_bridge_is_tried_first(sandbox: Sandbox) -> None:
    """Where the kernel can: the rules. Where it cannot: a refusal, and nothing half configured."""
    lan(sandbox)
    env = {"CFCTL_HOST_IPV4_BRIDGE": "false", "CFCTL_HOST_BRIDGE": "br0"}
    able = sandbox.run("nft", "--check", "-f", "-", stdin=BROUTE, check=False).returncode == 0
    if able:
        sandbox.cfctl("host", "setup", "--instances", "1", env=env)
        rules = read_host(sandbox)["rules"]
        assert len(rules["bridge cuttlefish_bridge prerouting"]) == 2
        assert len(rules["bridge cuttlefish_bridge forward"]) == 2
        assert changes(sandbox, "host", "setup", env=env) == []
        return
    with unchanged(sandbox):
        said = fails(sandbox, 4, "host", "setup", "--instances", "1", env=env)
    assert "this host cannot route what arrives on a bridge (meta broute)" in said
    assert "nftables 1.0.8" in said
    # Without a bridge of somebody else there is nothing to be routed, as with upstream's.
    assert changes(sandbox, "host", "setup", "--instances", "1", env={**env, "CFCTL_HOST_BRIDGE": ""})


BROUTE = "table bridge x { chain p { type filter hook prerouting priority -250; meta broute set 1 accept; }; }\n"


# -- other subnets -----------------------------------------------------------------------------------------


def test_other_subnets_where_upstreams_are_taken(sandbox: Sandbox) -> None:
    uplink(sandbox)
    sandbox.run("ip", "route", "add", "192.168.0.0/16", "dev", "up0")
    before = snapshot(sandbox)
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "2")
    # What the error proposes is what helps.
    proposed = said.partition("[host]\n")[2].partition("  Or take the route away")[0]
    settings(sandbox, "[host]\n" + proposed)
    assert '  ethernet_subnet = "10.193.98.0/24"\n' in proposed
    sandbox.cfctl("host", "setup", "--instances", "2")
    moved = json.loads(json.dumps(reference_links(2)).replace("192.168.", "10.193."))
    host = read_host(sandbox)
    assert host["links"] == moved
    assert host["rules"]["ip cuttlefish_nat postrouting"] == [
        f"saddr==10.193.{net} masquerade [cfctl]"
        for net in ("94.0/30", "94.4/30", "96.0/24", "97.0/30", "97.4/30", "98.0/24")
    ]
    assert host["servers"]["cvd-wbr"]["argv"] == reference_argv("cvd-wbr", "10.193.96")
    assert changes(sandbox, "host", "setup") == []
    # A tap that was deleted by hand is missed here, too.
    sandbox.run("sh", "-c", "for kind in e w m; do ip link del cvd-${kind}tap-02; done; ip link del cvd-wifiap-02")
    assert len(changes(sandbox, "host", "setup")) == 4
    guest(sandbox, "g2", "00:1a:11:e1:cf:01")
    assert lease(sandbox, "g2")[:4] == ["10.193.98.3", "255.255.255.0", "10.193.98.255", "10.193.98.1"]
    sandbox.cfctl("host", "teardown")
    # A namespace takes its interfaces with it some time later.
    sandbox.run("ip", "link", "del", "port-g2")
    sandbox.run("ip", "netns", "del", "g2")
    left = snapshot(sandbox)
    assert {part: left[part] for part in ("links", "addresses", "rules", "processes")} == {
        part: before[part] for part in ("links", "addresses", "rules", "processes")
    }


def test_switching_subnets_on_a_host_that_is_set_up(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "2")
    settings(sandbox, OTHERS)
    plan = sandbox.json("host", "plan", check=False)
    assert {
        "action": "change",
        "object": "tap cvd-mtap-02",
        "reason": "its address is 192.168.97.5/30 broadcast 192.168.97.7, not 10.193.97.5/30 broadcast 10.193.97.7",
    } in plan["changes"]
    sandbox.cfctl("host", "setup")
    assert read_host(sandbox)["links"] == json.loads(json.dumps(reference_links(2)).replace("192.168.", "10.193."))
    assert sandbox.run("head", "-n", "1", "/run/cfctl/host/cvd-ebr.hosts").stdout.endswith(",10.193.98.2\n")
    assert changes(sandbox, "host", "setup") == []
    del sandbox.env["CFCTL_PATHS_CONFIG"]
    sandbox.cfctl("host", "setup")
    assert read_host(sandbox)["links"] == reference_links(2)
    sandbox.run("rm", "-r", "/run/etc")
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_a_vm_on_other_subnets_answers_adb(sandbox: Sandbox, host_package: Path) -> None:
    settings(sandbox, OTHERS)
    sandbox.cfctl("host", "setup", "--instances", "2")
    # Whoever launches has other settings than the set-up had, here none: the kernel is what counts.
    del sandbox.env["CFCTL_PATHS_CONFIG"]
    sandbox.cfctl("launch", "phone", "--num-instances", "2", "--host-package", str(host_package))
    for position, net in ((1, "2"), (2, "6")):
        shown = sandbox.cfctl("adb", f"phone/{position}", "shell", "ip", "addr").stdout
        assert f"inet 10.193.98.{position + 1}/24" in shown
        assert f"inet 10.193.97.{net}/30" in shown
    sandbox.run("adb", "kill-server")
    sandbox.cfctl("rm", "--force", "phone")


# -- IPv6 and DNS ------------------------------------------------------------------------------------------

PREFIXES = """
ethernet_ipv6_prefix=fd00:98::
ethernet_ipv6_prefix_length=64
wifi_ipv6_prefix=fd00:96::
wifi_ipv6_prefix_length=64
"""


def test_ipv6_prefixes_are_advertised(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.run("sh", "-c", "cat >/etc/default/cuttlefish-host-resources", stdin=PREFIXES)
    done = changes(sandbox, "host", "setup")
    assert done == [("change", f"{kind} {name}") for kind in ("bridge", "dnsmasq") for name in ("cvd-ebr", "cvd-wbr")]
    assert changes(sandbox, "host", "setup") == []
    assert addresses6(sandbox, "cvd-ebr") == ["fd00:98::1/64"]
    assert addresses6(sandbox, "cvd-wbr") == ["fd00:96::1/64"]
    argv = read_host(sandbox)["servers"]["cvd-wbr"]["argv"]
    assert argv == [*reference_argv("cvd-wbr", "192.168.96"), "--dhcp-range=fd00:96::,ra-stateless,64", "--enable-ra"]
    # A guest makes itself an address, and has a route.
    guest(sandbox, "g1", "00:1a:11:e1:cf:00")
    sandbox.run(*("ip", "netns", "exec", "g1"), *python_argv("tests.system.wait6", "eth0", "fd00:98:"))
    # A bridge loses the address when it goes down.
    sandbox.run("ip", "link", "set", "cvd-ebr", "down")
    assert changes(sandbox, "host", "setup")[0] == ("change", "bridge cvd-ebr")
    assert addresses6(sandbox, "cvd-ebr") == ["fd00:98::1/64"]
    sandbox.run("sh", "-c", ": >/etc/default/cuttlefish-host-resources; ip netns del g1")
    sandbox.cfctl("host", "setup")
    assert addresses6(sandbox, "cvd-ebr") == []
    sandbox.cfctl("host", "teardown")
    after = snapshot(sandbox)
    assert {part: after[part] for part in before if part != "files"} == {
        part: before[part] for part in before if part != "files"
    }


def test_ipv6_addresses_where_new_interfaces_have_none(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    sandbox.cfctl("host", "setup", "--instances", "1", env={"CFCTL_HOST_WIFI_IPV6_PREFIX": "fd00:96::"})
    assert addresses6(sandbox, "cvd-wbr") == ["fd00:96::1/64"]


def test_an_ipv6_prefix_that_the_host_uses(sandbox: Sandbox) -> None:
    uplink(sandbox)
    sandbox.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    sandbox.run("ip", "-6", "route", "add", "2000::/3", "dev", "up0")
    sandbox.run("ip", "-6", "addr", "add", "fd00:96::7/64", "dev", "up0", "nodad")
    env = {"CFCTL_HOST_WIFI_IPV6_PREFIX": "fd00:96::", "CFCTL_HOST_ETHERNET_IPV6_PREFIX": "2001:db8::"}
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "1", env=env)
    assert "fd00:96::/64 is needed, and address fd00:96::7/64 on up0 is there." in said
    assert 'wifi_ipv6_prefix = "..."' in said
    assert "2001:db8" not in said, "what leads everywhere does not count"


def addresses6(box: Sandbox, name: str) -> list[str]:
    shown = json.loads(box.run("ip", "-6", "-j", "addr", "show", "dev", name, "scope", "global").stdout)
    return [f"{info['local']}/{info['prefixlen']}" for link in shown for info in link.get("addr_info", []) if info]


def resolvers(box: Sandbox, path: str, *servers: str) -> None:
    lines = "".join(f"nameserver {server}\n" for server in servers)
    box.run("sh", "-c", 'mkdir -p "$(dirname "$1")"; cat >"$1"', "sh", path, stdin=lines)


def test_the_hosts_dns_servers_are_told_to_guests(sandbox: Sandbox) -> None:
    host = {"CFCTL_HOST_DNS": "host"}
    resolvers(sandbox, "/run/resolv.conf", "127.0.0.53")
    sandbox.run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
    with unchanged(sandbox):
        said = fails(sandbox, 4, "host", "setup", "--instances", "1", env=host)
    assert "the host has no DNS server that guests could ask" in said
    assert "host.dns = host (CFCTL_HOST_DNS), and no IPv4 address is left of: /etc/resolv.conf (127.0.0.53)." in said
    assert "host.dns = servers" in said
    resolvers(sandbox, "/run/systemd/resolve/resolv.conf", "10.1.1.1", "fd00::53", "10.1.1.2")
    done = sandbox.json("host", "setup", "--instances", "1", env=host)
    assert done["settings"]["host.dns_servers"] == {
        "value": ["10.1.1.1", "10.1.1.2"],
        "origin": "/run/systemd/resolve/resolv.conf",
    }
    argv = read_host(sandbox)["servers"]["cvd-ebr"]["argv"]
    assert "--dhcp-option=option:dns-server,10.1.1.1,10.1.1.2" in argv
    assert "--dhcp-option=option6:dns-server,fd00::53" in argv
    guest(sandbox, "g1", "00:1a:11:e1:cf:00")
    assert lease(sandbox, "g1")[4:] == ["10.1.1.1", "10.1.1.2"]
    assert changes(sandbox, "host", "setup", env=host) == []
    # The host has moved to another network.
    resolvers(sandbox, "/run/systemd/resolve/resolv.conf", "10.2.2.2")
    assert changes(sandbox, "host", "setup", env=host) == [("change", f"dnsmasq {b}") for b in ("cvd-ebr", "cvd-wbr")]


def test_guests_that_are_told_no_dns_server(sandbox: Sandbox) -> None:
    """Not the host's own address either, where nobody would answer."""
    none = {"CFCTL_HOST_DNS_SERVERS": "", "CFCTL_HOST_DNS6_SERVERS": ""}
    sandbox.cfctl("host", "setup", "--instances", "1", env=none)
    assert [arg for arg in read_host(sandbox)["servers"]["cvd-ebr"]["argv"] if "dns-server" in arg] == []
    guest(sandbox, "g1", "00:1a:11:e1:cf:00")
    assert lease(sandbox, "g1") == ["192.168.98.2", "255.255.255.0", "192.168.98.255", "192.168.98.1"]
    assert changes(sandbox, "host", "setup", env=none) == []


def test_the_command_that_mends_repeats_what_was_asked(sandbox: Sandbox) -> None:
    """sudo would hand on neither variables nor this user's file."""
    settings(sandbox, "[host]\nguest_isolation = false\n")
    env = {"CFCTL_HOST_DNS": "servers"}
    shown = sandbox.cfctl("host", "status", "--instances", "2", check=False, env=env).stdout
    command = "cfctl host setup --instances 2 --config /run/etc/config.toml"
    assert f"Mend it with: sudo CFCTL_HOST_DNS=servers {command}\n" in shown
    del sandbox.env["CFCTL_PATHS_CONFIG"]
    sandbox.cfctl(*command.split()[1:], env=env)
    settings(sandbox, "[host]\nguest_isolation = false\n")
    assert sandbox.cfctl("host", "status", "--instances", "2", env=env).returncode == 0
