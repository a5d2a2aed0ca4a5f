"""``cfctl host setup | status | teardown`` on a real kernel: what is made, and that no more is done than needed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.host_helpers import changes, fails, python_argv, read_host, snapshot, taps_in_use
from tests.system.sandbox import Sandbox

BRIDGE = {
    "kind": "bridge",
    "alias": "cfctl",
    "master": None,
    "up": True,
    "mtu": 1500,
    "link_group": 0,
    "stp_state": 0,
    "forward_delay": 0,
    "ageing_time": 30000,
    "multicast_snooping": 1,
}
#: 0x5802: TAP, NO_PI, VNET_HDR, PERSIST, and not MULTI_QUEUE (0x100).
TAP = {
    "kind": "tun",
    "alias": "cfctl",
    "up": True,
    "mtu": 1500,
    "link_group": 0,
    "tun_flags": "0x5802",
    "tun_group": "cvdnetwork",
    "tun_owner": -1,
}

#: The reference, written by hand from upstream's script (host_resources.md section 2), not computed.
ADDRESSES = {
    "cvd-mtap-01": ["192.168.97.1", 30, "192.168.97.3"],
    "cvd-mtap-02": ["192.168.97.5", 30, "192.168.97.7"],
    "cvd-wifiap-01": ["192.168.94.1", 30, "192.168.94.3"],
    "cvd-wifiap-02": ["192.168.94.5", 30, "192.168.94.7"],
}


def reference_links(count: int) -> dict[str, Any]:
    links: dict[str, Any] = {
        "cvd-ebr": BRIDGE | {"addresses": [["192.168.98.1", 24, "192.168.98.255"]]},
        "cvd-wbr": BRIDGE | {"addresses": [["192.168.96.1", 24, "192.168.96.255"]]},
    }
    for number in ("01", "02")[:count]:
        for kind, bridge in (("etap", "cvd-ebr"), ("wtap", "cvd-wbr")):
            links[f"cvd-{kind}-{number}"] = TAP | {"master": bridge, "isolated": True, "addresses": []}
        for kind in ("mtap", "wifiap"):
            name = f"cvd-{kind}-{number}"
            links[name] = TAP | {"master": None, "isolated": False, "addresses": [ADDRESSES[name]]}
    return links


def reference_argv(bridge: str, net: str) -> list[str]:
    return [
        "--port=0",
        "--strict-order",
        "--except-interface=lo",
        f"--interface={bridge}",
        f"--listen-address={net}.1",
        "--bind-interfaces",
        f"--dhcp-range={net}.2,{net}.254",  # chosen difference: upstream's ends at .255
        "--dhcp-option=option:dns-server,8.8.8.8,8.8.4.4",
        "--dhcp-option=option6:dns-server,2001:4860:4860::8888,2001:4860:4860::8844",
        "--conf-file=",
        f"--pid-file=/run/cuttlefish-dnsmasq-{bridge}.pid",
        f"--dhcp-leasefile=/run/cuttlefish-dnsmasq-{bridge}.leases",
        "--dhcp-no-override",
        "--no-ping",  # chosen difference
    ]


SUBNETS = {
    1: ["192.168.94.0/30", "192.168.96.0/24", "192.168.97.0/30", "192.168.98.0/24"],
    2: [
        "192.168.94.0/30",
        "192.168.94.4/30",
        "192.168.96.0/24",
        "192.168.97.0/30",
        "192.168.97.4/30",
        "192.168.98.0/24",
    ],
}


@pytest.mark.parametrize("count", [1, 2])
def test_equal_to_the_reference(sandbox: Sandbox, count: int) -> None:
    sandbox.cfctl("host", "setup", "--instances", str(count))
    host = read_host(sandbox)
    assert host["links"] == reference_links(count)
    assert host["tables"] == ["bridge cuttlefish_bridge", "inet cfctl", "ip cuttlefish_nat"]
    assert host["chains"] == {
        "ip cuttlefish_nat postrouting": ["nat", "postrouting", 100, "accept"],
        "bridge cuttlefish_bridge prerouting": ["filter", "prerouting", -250, "accept"],
        "bridge cuttlefish_bridge forward": ["filter", "forward", 0, "accept"],
        "inet cfctl forward": ["filter", "forward", 0, "accept"],
    }
    assert host["rules"] == {
        "ip cuttlefish_nat postrouting": [f"saddr=={net} masquerade [cfctl]" for net in SUBNETS[count]],
        "inet cfctl forward": ["iifname==cvd-* oifname==cvd-* drop [cfctl]"],
    }
    hosts = "--dhcp-hostsfile=/run/cfctl/host/cvd-ebr.hosts"  # chosen difference
    assert host["servers"] == {
        "cvd-ebr": {"argv": [*reference_argv("cvd-ebr", "192.168.98"), hosts], "pid_file": True},
        "cvd-wbr": {"argv": reference_argv("cvd-wbr", "192.168.96"), "pid_file": True},
    }
    assert set(host["sysctls"].items()) == {
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        *((f"ipv6/conf/{bridge}/disable_ipv6", "0") for bridge in ("cvd-ebr", "cvd-wbr")),
        *((f"ipv6/conf/{bridge}/addr_gen_mode", "0") for bridge in ("cvd-ebr", "cvd-wbr")),
        *((f"ipv6/conf/{bridge}/autoconf", "1") for bridge in ("cvd-ebr", "cvd-wbr")),
    }


@pytest.mark.parametrize("count", [65, 128])
def test_many(sandbox: Sandbox, count: int) -> None:
    before = snapshot(sandbox)
    done = sandbox.cfctl("host", "setup", "--instances", str(count))
    assert f"create  {4 * count} taps cvd-etap-01 ... cvd-wifiap-{count}: it is missing\n" in done.stdout
    assert f"create  {2 + 2 * count} rules in ip cuttlefish_nat postrouting: it is missing\n" in done.stdout
    host = read_host(sandbox)
    assert len(host["links"]) == 2 + 4 * count
    assert len(host["rules"]["ip cuttlefish_nat postrouting"]) == 2 + 2 * count
    assert host["links"]["cvd-mtap-64"]["addresses"] == [["192.168.97.253", 30, "192.168.97.255"]]
    assert host["links"]["cvd-mtap-65"]["addresses"] == [["192.168.93.1", 30, "192.168.93.3"]]
    assert host["links"]["cvd-wifiap-65"]["addresses"] == [["192.168.95.1", 30, "192.168.95.3"]]
    if count == 128:
        assert host["links"]["cvd-mtap-100"]["addresses"] == [["192.168.93.141", 30, "192.168.93.143"]]
        assert host["links"]["cvd-wifiap-128"]["addresses"] == [["192.168.95.253", 30, "192.168.95.255"]]
    assert all(link["tun_flags"] == "0x5802" for link in host["links"].values() if link["kind"] == "tun")
    assert changes(sandbox, "host", "setup", "--instances", str(count)) == []
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_second_call_does_nothing_and_teardown_leaves_the_host_as_it_was(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    first = sandbox.json("host", "setup", "--instances", "2")
    assert (first["state"], first["instances"]) == ("ready", 2)
    after = _identities(sandbox)
    again = sandbox.cfctl("host", "setup", "--instances", "2")
    assert again.stdout == "0 changes.\nThe host serves 2 instances.\n"
    assert _identities(sandbox) == after
    assert sandbox.json("host", "teardown")["state"] == "absent"
    assert snapshot(sandbox) == before
    assert changes(sandbox, "host", "teardown") == []
    # Upstream's own test wants the two switches to stay on.
    switches = sandbox.run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
    assert switches.stdout == "1\n1\n"


def test_another_number_adds_or_removes_the_difference_only(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "3")
    before = _identities(sandbox)
    grown = changes(sandbox, "host", "setup", "--instances", "4")
    taps = [f"tap cvd-{kind}-04" for kind in ("etap", "wtap", "mtap", "wifiap")]
    rules = [f"rule ip cuttlefish_nat postrouting: ip saddr 192.168.{net}.12/30 masquerade" for net in (97, 94)]
    assert grown == [("create", name) for name in (*taps, *rules)]
    after = _identities(sandbox)
    assert before.items() <= after.items()
    with taps_in_use(sandbox, "cvd-etap-01", "cvd-mtap-01"):
        shrunk = changes(sandbox, "host", "setup", "--instances", "3")
        assert sandbox.run("cat", "/sys/class/net/cvd-etap-01/carrier").stdout == "1\n"
    assert sorted(shrunk) == sorted(("remove", name) for name in (*taps, *rules))
    assert _identities(sandbox) == before
    with taps_in_use(sandbox, "cvd-etap-01"):
        pass


def _identities(box: Sandbox) -> dict[str, Any]:
    """Return what is new when an object was deleted and made again: interface index, rule handle, pid."""
    links = json.loads(box.run("ip", "-j", "link").stdout)
    rules = json.loads(box.run("nft", "-j", "-a", "list", "ruleset").stdout)["nftables"]
    return {
        **{link["ifname"]: link["ifindex"] for link in links},
        **{json.dumps(e["rule"]["expr"]): e["rule"]["handle"] for e in rules if "rule" in e},
        **{args: pid for pid, args in box.processes().items() if "dnsmasq" in args},
    }


def test_status_of_an_empty_a_ready_and_a_damaged_host(sandbox: Sandbox) -> None:
    absent = sandbox.cfctl("host", "status", "--json", check=False)
    assert absent.returncode == 3
    document = json.loads(absent.stdout)
    assert (document["state"], document["instances"], document["served"]) == ("absent", 10, 0)
    assert document["settings"]["host.instances"] == {"value": 10, "origin": "built-in"}

    sandbox.cfctl("host", "setup", "--instances", "2")
    ready = sandbox.json("host", "status")
    conforms(ready, "host")
    assert (ready["state"], ready["instances"], ready["changes"]) == ("ready", 2, [])
    assert ready["settings"]["host.instances"] == {"value": 2, "origin": "observed on the host"}
    assert [server["bridge"] for server in ready["servers"]] == ["cvd-ebr", "cvd-wbr"]

    # All of instance 2's: the rules still tell that it was there.
    gone = [f"cvd-{kind}-02" for kind in ("etap", "wtap", "mtap", "wifiap")]
    for name in gone:
        sandbox.run("ip", "link", "del", name)
    drift = sandbox.cfctl("host", "status", "--json", check=False)
    assert drift.returncode == 3
    document = json.loads(drift.stdout)
    assert (document["state"], document["instances"], document["served"]) == ("drift", 2, 2)
    assert document["changes"] == [
        {"action": "create", "object": f"tap {name}", "reason": "it is missing"} for name in gone
    ]
    said = "".join(f"create  tap {name}: it is missing\n" for name in gone) + "4 changes to make.\n"
    dry = sandbox.cfctl("host", "setup", "--dry-run", check=False)
    assert (dry.returncode, dry.stdout) == (3, said)
    assert changes(sandbox, "host", "setup") == [("create", f"tap {name}") for name in gone]


def test_a_server_of_another_network_namespace_is_not_ours(sandbox: Sandbox) -> None:
    """A container that shares the process namespace may run one with the same options."""
    sandbox.cfctl("host", "setup", "--instances", "1")
    (argv,) = [args for args in sandbox.processes().values() if "--interface=cvd-ebr" in args]
    sandbox.cfctl("host", "teardown")
    sandbox.run("sh", "-ec", "ip netns add other; ip -n other link add cvd-ebr type bridge")
    sandbox.run("sh", "-ec", "ip -n other addr add 192.168.98.1/24 dev cvd-ebr; ip -n other link set cvd-ebr up")
    sandbox.run(
        "sh", "-ec", f"mkdir -p /run/cfctl/host; touch /run/cfctl/host/cvd-ebr.hosts; ip netns exec other {argv}"
    )
    (stranger,) = sandbox.processes()
    sandbox.cfctl("host", "setup", "--instances", "1")
    assert len(sandbox.processes()) == 3
    assert changes(sandbox, "host", "setup") == []
    sandbox.cfctl("host", "teardown")
    assert list(sandbox.processes()) == [stranger]


def test_status_names_devices_that_are_up(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "2")
    with taps_in_use(sandbox, "cvd-wtap-02"):
        document = sandbox.json("host", "status")
    conforms(document, "host")
    (guest,) = document["guests"]
    assert guest == {"number": 2, "mac": "00:1a:11:e1:cf:01", "address": None}


def test_the_number_comes_from_flag_environment_file_or_host(sandbox: Sandbox) -> None:
    def origin(*args: str, **env: str) -> tuple[int, str]:
        done = sandbox.cfctl("host", "plan", "--json", *args, env=env, check=False)
        number = json.loads(done.stdout)["settings"]["host.instances"]
        return number["value"], number["origin"]

    sandbox.run("sh", "-c", "echo num_cvd_accounts=3 >/etc/default/cuttlefish-host-resources")
    assert origin() == (3, "/etc/default/cuttlefish-host-resources:1")
    sandbox.run("sh", "-c", "printf '[host]\\ninstances = 4\\n' >/run/my.toml")
    assert origin("--config", "/run/my.toml") == (4, "/run/my.toml")
    assert origin("--config", "/run/my.toml", CFCTL_HOST_INSTANCES="5") == (5, "CFCTL_HOST_INSTANCES")
    assert origin("--instances", "6", CFCTL_HOST_INSTANCES="5") == (6, "--instances")


def test_quiet_says_nothing_of_what_is_done(sandbox: Sandbox) -> None:
    for argv in (("setup", "--instances", "1", "-q"), ("teardown", "--quiet")):
        done = sandbox.cfctl("host", *argv)
        assert (done.stdout, done.stderr) == ("", "")
    # What was asked for is said, and an error is.
    assert "to make" in sandbox.cfctl("host", "plan", "-q", check=False).stdout
    assert "Error" in sandbox.cfctl("host", "setup", "--instances", "200", "-q", check=False).stderr


def test_no_instances_need_nothing(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    document = sandbox.json("host", "setup", "--instances", "0")
    assert (document["state"], document["changes"]) == ("absent", [])
    assert snapshot(sandbox) == before
    sandbox.cfctl("host", "setup", "--instances", "2")
    sandbox.cfctl("host", "setup", "--instances", "0")
    assert snapshot(sandbox) == before


def test_isolation_can_be_switched(sandbox: Sandbox) -> None:
    off = {"CFCTL_HOST_GUEST_ISOLATION": "false"}
    sandbox.cfctl("host", "setup", "--instances", "1", env=off)
    host = read_host(sandbox)
    assert host["tables"] == ["bridge cuttlefish_bridge", "ip cuttlefish_nat"]
    assert not any(link.get("isolated") for link in host["links"].values())
    on = [("change", "tap cvd-etap-01"), ("change", "tap cvd-wtap-01"), ("create", "table inet cfctl")]
    assert changes(sandbox, "host", "setup")[:3] == on
    assert read_host(sandbox)["links"] == reference_links(1)
    assert changes(sandbox, "host", "setup", env=off) == [*on[:2], ("remove", "table inet cfctl")]
    assert read_host(sandbox) == host


def test_an_ordinary_user_may_ask(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    document = sandbox.json("host", "status", user="tester")
    assert (document["state"], document["changes"]) == ("ready", [])
    assert document["unchecked"] == ["firewall rules: only root may read them"]
    dry = sandbox.cfctl("host", "teardown", "--dry-run", user="tester", check=False)
    assert dry.returncode == 3
    assert dry.stdout.startswith("unchecked  firewall rules: only root may read them\nremove  bridge cvd-ebr: ")
    for verb in ("setup", "teardown"):
        said = fails(sandbox, 4, "host", verb, user="tester")
        assert f"host {verb} must run as root" in said
        # sudo knows no directory of a virtual environment: the whole way to it is said.
        assert re.search(rf"sudo /\S+ -m cfctl host {verb}\n", said)


def test_dns_servers_are_told_to_guests(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    document = sandbox.json("host", "setup", env={"CFCTL_HOST_DNS_SERVERS": "192.0.2.1"})
    assert [c["object"] for c in document["changes"]] == ["dnsmasq cvd-ebr", "dnsmasq cvd-wbr"]
    assert "its options differ" in document["changes"][0]["reason"]
    argv = read_host(sandbox)["servers"]["cvd-ebr"]["argv"]
    assert "--dhcp-option=option:dns-server,192.0.2.1" in argv


#: Does what the real one does, in place: /etc/group is a mount in a sandbox, which cannot be replaced.
GROUPADD = """
mkdir /run/bin
grep -v cvdnetwork /etc/group >/run/group; cat /run/group >/etc/group
cat >/run/bin/groupadd <<'END'
#!/bin/sh
[ "$*" = "--system cvdnetwork" ] && echo cvdnetwork:x:981: >>/etc/group
END
chmod +x /run/bin/groupadd
"""


def test_group_is_made_when_missing_and_stays(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", GROUPADD)
    path = {"PATH": "/run/bin:" + sandbox.environment()["PATH"]}
    done = changes(sandbox, "host", "setup", "--instances", "1", env=path)
    assert done[0] == ("create", "group cvdnetwork")
    assert sandbox.json("host", "setup", env=path)["changes"] == []
    sandbox.cfctl("host", "teardown", env=path)
    assert "cvdnetwork:x:981:" in sandbox.run("cat", "/etc/group").stdout


def test_number_of_open_files_may_be_low(sandbox: Sandbox) -> None:
    argv = sandbox.cfctl_argv("host", "setup", "--instances", "40")
    sandbox.run("prlimit", "--nofile=128:128", *argv)
    assert changes(sandbox, "host", "setup", "--instances", "40") == []


def test_a_strict_umask_changes_nothing(sandbox: Sandbox) -> None:
    argv = sandbox.cfctl_argv("host", "setup", "--instances", "1")
    sandbox.run("sh", "-c", 'umask 077; "$@"', "sh", *argv)
    modes = sandbox.run("stat", "-c", "%a", "/run/cfctl", "/run/cfctl/host", "/run/cfctl/host/cvd-ebr.hosts").stdout
    assert modes.split() == ["755", "755", "644"]


def test_anybody_can_ask_which_numbers_are_served_and_busy(sandbox: Sandbox) -> None:
    ask = "from cfctl.hostres import tap; print(sorted(tap.served_numbers()), sorted(tap.busy_numbers()))"
    argv = [*python_argv("x")[:1], "-c", ask]
    assert sandbox.run(*argv, user="tester").stdout == "[] []\n"
    sandbox.cfctl("host", "setup", "--instances", "3")
    sandbox.run("ip", "link", "del", "cvd-wifiap-02")
    with taps_in_use(sandbox, "cvd-mtap-03"):
        assert sandbox.run(*argv, user="tester").stdout == "[1, 3] [3]\n"
