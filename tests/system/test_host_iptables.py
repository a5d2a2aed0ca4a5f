"""A host without nft: the same network through iptables, and what iptables drops by default."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from tests.schemas import conforms
from tests.system.host_helpers import changes, fails, python, python_argv
from tests.system.iptables_host import guest, internet, packets, rules, snapshot, without
from tests.system.sandbox import Sandbox
from tests.system.test_host_network import lease

MACS = {"g1": "00:1a:11:e1:cf:00", "g2": "00:1a:11:e1:cf:01"}

#: An administrator who drops what nobody allows, and one address whatever others allow.
STRICT = """
iptables-legacy -A INPUT -i lo -j ACCEPT
iptables-legacy -P INPUT DROP
iptables-legacy -A FORWARD -d 203.0.113.3 -j DROP
iptables-legacy -P FORWARD DROP
"""


def legacy(box: Sandbox, *args: str) -> str:
    return box.run("iptables-legacy", *args).stdout


def reaches(box: Sandbox, name: str, address: str) -> bool:
    ping = ("ip", "netns", "exec", name, "busybox", "ping", "-c", "3", "-A", "-w", "4", address)
    return box.run(*ping, check=False).returncode == 0


def join(box: Sandbox, name: str) -> str:
    """Let a guest ask for its address and take it."""
    address, _, _, router, *_ = lease(box, name)
    box.run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    box.run("ip", "-n", name, "route", "add", "default", "via", router)
    return address


def test_a_host_without_nft_serves_guests(sandbox: Sandbox) -> None:
    outside = internet(sandbox)
    sandbox.run("ip", "-n", "internet", "addr", "add", "203.0.113.3/24", "dev", "eth0")
    sandbox.run("sh", "-ec", STRICT)
    before = snapshot(sandbox)
    with without(sandbox, "nft"):
        sandbox.cfctl("host", "setup", "--instances", "2")
        with guest(sandbox, "g1", "cvd-etap-01", MACS["g1"]), guest(sandbox, "g2", "cvd-etap-02", MACS["g2"]):
            assert [join(sandbox, name) for name in MACS] == ["192.168.98.2", "192.168.98.3"]
            assert reaches(sandbox, "g1", outside)
            # What the administrator drops, stays dropped.
            assert not reaches(sandbox, "g1", "203.0.113.3")
            assert not reaches(sandbox, "g1", "192.168.98.3")
        assert packets(sandbox, "mangle", "--checksum-fill") > 0
        assert changes(sandbox, "host", "setup") == []
        shown = sandbox.json("host", "status")
        conforms(shown, "host")
        assert shown["state"] == "ready"
        assert shown["served"] == 2
        assert shown["settings"]["host.rules"] == {
            "value": "iptables-legacy",
            "origin": "the program nft is not installed",
        }
        found = rules(sandbox)
        masqueraded = {line.split()[3] for line in found["nat"] if line.startswith("-A CFCTL") and "-s" in line}
        assert masqueraded == {
            *("192.168.98.0/24", "192.168.96.0/24", "192.168.97.0/30", "192.168.97.4/30"),
            *("192.168.94.0/30", "192.168.94.4/30"),
        }
        assert all("--comment cfctl" in line for line in found["nat"] if line.startswith("-A"))
        sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_guests_are_apart_over_ipv6_and_between_bridges(sandbox: Sandbox) -> None:
    """Packets between subnets stop in chain FORWARD, whose top rule is cfctl's."""
    prefixes = {"CFCTL_HOST_ETHERNET_IPV6_PREFIX": "fd00:98::", "CFCTL_HOST_WIFI_IPV6_PREFIX": "fd00:96::"}
    legacy(sandbox, "-A", "FORWARD", "-j", "ACCEPT")
    sandbox.cfctl("host", "setup", "--instances", "1", env={"CFCTL_HOST_RULES": "iptables", **prefixes})
    ethernet = guest(sandbox, "e", "cvd-etap-01", MACS["g1"])
    with ethernet, guest(sandbox, "w", "cvd-wtap-01", "00:1a:11:e2:cf:00"):
        for name, net in (("e", "98"), ("w", "96")):
            for version, address, router in (
                ("-4", f"192.168.{net}.2/24", f"192.168.{net}.1"),
                ("-6", f"fd00:{net}::2/64", f"fd00:{net}::1"),
            ):
                nodad = ["nodad"] if version == "-6" else []
                sandbox.run("ip", "-n", name, "addr", "add", address, "dev", "eth0", *nodad)
                sandbox.run("ip", "-n", name, version, "route", "replace", "default", "via", router, "metric", "1")
        assert reaches(sandbox, "e", "192.168.98.1")
        assert reaches(sandbox, "e", "fd00:98::1")
        assert not reaches(sandbox, "e", "192.168.96.2")
        assert not reaches(sandbox, "e", "fd00:96::2")
        env = {"CFCTL_HOST_RULES": "iptables", "CFCTL_HOST_GUEST_ISOLATION": "false", **prefixes}
        sandbox.cfctl("host", "setup", env=env)
        assert reaches(sandbox, "e", "192.168.96.2")
        assert reaches(sandbox, "e", "fd00:96::2")


def test_an_old_dhcp_client_finds_its_checksum_right(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1", env={"CFCTL_HOST_RULES": "iptables"})

    def asked() -> str:
        ask = python_argv("tests.system.raw_dhcp", "eth0")
        return sandbox.run("ip", "netns", "exec", "g1", *ask).stdout.strip()

    with guest(sandbox, "g1", "cvd-etap-01", MACS["g1"]):
        assert asked() == "192.168.98.2 right"
        program = "iptables-legacy" if "mangle" in rules(sandbox) else "iptables-nft"
        sandbox.run(program, "-t", "mangle", "-F", "CFCTL_POSTROUTING")
        # So it is the rule that helps.
        assert asked() == "192.168.98.2 wrong"
        assert len(changes(sandbox, "host", "setup", env={"CFCTL_HOST_RULES": "iptables"})) == 1
        assert asked() == "192.168.98.2 right"


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_another_program_takes_over_and_leaves_nothing(sandbox: Sandbox, variant: str) -> None:
    # What cannot be unmade is there before.
    for table in ("nat", "mangle", "filter"):
        for family in ("iptables", "ip6tables")[: 2 if table == "filter" else 1]:
            chain = "FORWARD" if table == "filter" else "POSTROUTING"
            for action in ("-A", "-D"):
                sandbox.run(f"{family}-{variant}", "-t", table, action, chain, "-j", "ACCEPT")
    before = snapshot(sandbox)
    with_iptables = {"CFCTL_HOST_RULES": "iptables"}
    sandbox.cfctl("host", "setup", "--instances", "2")
    planned = sandbox.json("host", "plan", env=with_iptables, check=False)["changes"]
    reasons = {change["reason"] for change in planned if change["action"] == "remove"}
    assert reasons == {f"the rules are made with iptables-{variant} now"}
    done = changes(sandbox, "host", "setup", env=with_iptables)
    assert ("remove", "table ip cuttlefish_nat") in done
    assert ("create", f"table iptables-{variant} nat") in done
    assert changes(sandbox, "host", "setup", env=with_iptables) == []
    assert "cuttlefish" not in sandbox.run("nft", "list", "ruleset").stdout
    # Back again, without saying so: nft is there.
    done = changes(sandbox, "host", "setup")
    assert ("remove", f"table iptables-{variant} nat") in done
    assert "CFCTL" not in sandbox.run(f"iptables-{variant}-save").stdout
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before
    # A teardown does not ask who has made it.
    sandbox.cfctl("host", "setup", "--instances", "1", env=with_iptables)
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_rules_whose_program_is_gone_are_named(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    with without(sandbox, "nft"):
        said = fails(sandbox, 4, "host", "teardown")
        assert "'nft' is not installed" in said
        with without(sandbox, "iptables", "iptables-legacy", "iptables-legacy-restore", "iptables-nft-restore"):
            assert "'nft' is not installed" in fails(sandbox, 4, "host", "setup")


def test_what_upstreams_old_script_left_is_adopted(sandbox: Sandbox) -> None:
    """It made unmarked rules, twice at its second start, and the newer one's `stop` leaves them."""
    others = ("-s 192.168.98.0/24 -o up0 -j MASQUERADE", "-s 10.1.0.0/24 -j MASQUERADE")
    for rule in (*others, *2 * ("-s 192.168.98.0/24 -j MASQUERADE", "-s 192.168.97.0/30 -j MASQUERADE")):
        legacy(sandbox, "-t", "nat", "-A", "POSTROUTING", *rule.split())
    before = rules(sandbox)
    for choice in ("auto", "iptables"):
        env = {"CFCTL_HOST_RULES": choice}
        said = fails(sandbox, 1, "host", "setup", "--instances", "1", env=env)
        assert "upstream's cuttlefish-host-resources" in said
        assert "iptables-legacy nat POSTROUTING: -s 192.168.98.0/24 -j MASQUERADE" in said
        assert rules(sandbox) == before
    sandbox.cfctl("host", "setup", "--instances", "1", "--adopt", env=env)
    found = [line for line in rules(sandbox)["nat"] if line.startswith("-A POSTROUTING")]
    assert found == [*(f"-A POSTROUTING {rule}" for rule in others), found[-1]]
    assert "CFCTL_POSTROUTING" in found[-1]
    sandbox.cfctl("host", "teardown")
    assert rules(sandbox)["nat"][-2:] == [f"-A POSTROUTING {rule}" for rule in others]


def test_frames_cannot_be_routed_by_iptables(sandbox: Sandbox) -> None:
    sandbox.run("ip", "link", "add", "lan0", "type", "bridge")
    before = snapshot(sandbox)
    env = {"CFCTL_HOST_IPV4_BRIDGE": "false", "CFCTL_HOST_RULES": "iptables"}
    said = fails(sandbox, 4, "host", "setup", "--instances", "1", "--bridge", "lan0", env=env)
    assert "iptables cannot route what arrives on a bridge" in said
    assert "host.rules = iptables (CFCTL_HOST_RULES)" in said
    assert snapshot(sandbox) == before


@pytest.mark.parametrize("choice", ["nft", "iptables"])
def test_docker_on_iptables_legacy(sandbox: Sandbox, choice: str) -> None:
    """Its chain for others is asked first, and ends with a return; both sorts of rules count."""
    outside = internet(sandbox)
    sandbox.run(
        *("sh", "-ec"),
        "iptables-legacy -P FORWARD DROP; iptables-legacy -N DOCKER-USER; iptables-legacy -I FORWARD -j DOCKER-USER;"
        "iptables-legacy -A DOCKER-USER -d 203.0.113.3 -j DROP; iptables-legacy -A DOCKER-USER -j RETURN",
    )
    before = snapshot(sandbox)
    env = {"CFCTL_HOST_RULES": choice}
    sandbox.cfctl("host", "setup", "--instances", "1", env=env)
    docker = [line for line in rules(sandbox)["filter"] if line.startswith("-A DOCKER-USER")]
    assert [("cfctl" in line, line.split()[-1]) for line in docker] == [
        (False, "DROP"),
        (True, "RETURN"),
        (True, "RETURN"),
        (True, "ACCEPT"),
        (True, "ACCEPT"),
        (False, "RETURN"),
    ]
    assert ("! -o cvd-+" in docker[3]) == (choice == "iptables")
    with guest(sandbox, "g1", "cvd-etap-01", MACS["g1"]):
        join(sandbox, "g1")
        assert reaches(sandbox, "g1", outside)
    assert changes(sandbox, "host", "setup", env=env) == []
    # Docker ends: nothing is dropped, and nothing needs to be let through.
    legacy(sandbox, "-P", "FORWARD", "ACCEPT")
    assert [action for action, _ in changes(sandbox, "host", "setup", env=env)] == ["remove"] * 4
    legacy(sandbox, "-P", "FORWARD", "DROP")
    sandbox.cfctl("host", "setup", env=env)
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_no_table_of_iptables_is_made_to_look_for_one(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.cfctl("host", "status")
    sandbox.cfctl("host", "teardown")
    assert sandbox.run("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names").stdout == ""


def test_somebody_elses_rule_in_a_chain_of_ours_stays(sandbox: Sandbox) -> None:
    env = {"CFCTL_HOST_RULES": "iptables"}
    legacy(sandbox, "-t", "nat", "-L")
    sandbox.cfctl("host", "setup", "--instances", "1", env=env)
    legacy(sandbox, "-t", "nat", "-A", "CFCTL_POSTROUTING", "-s", "10.2.0.0/24", "-j", "MASQUERADE")
    assert changes(sandbox, "host", "setup", env=env) == []
    done = sandbox.cfctl("host", "teardown")
    assert "table iptables-legacy nat stays: it holds what cfctl did not make" in done.stderr
    assert [line for line in rules(sandbox)["nat"] if "192.168" in line or "10.2" in line] == [
        "-A CFCTL_POSTROUTING -s 10.2.0.0/24 -j MASQUERADE"
    ]


def test_it_waits_for_the_lock_of_iptables(sandbox: Sandbox) -> None:
    legacy(sandbox, "-t", "nat", "-L")
    holder = sandbox.start(*("flock", "/run/xtables.lock", "sh", "-c", "echo held; sleep 1"), stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    sandbox.cfctl("host", "setup", "--instances", "1", env={"CFCTL_HOST_RULES": "iptables"})
    assert holder.poll() == 0
    holder.stdout.close()


def test_128_instances(sandbox: Sandbox) -> None:
    env = {"CFCTL_HOST_RULES": "iptables"}
    legacy(sandbox, "-t", "nat", "-L")
    sandbox.cfctl("host", "setup", "--instances", "128", env=env)
    nets = [line.split()[3] for line in rules(sandbox)["nat"] if line.startswith("-A CFCTL") and "-s" in line]
    assert len(nets) == 258
    assert sum(ip_network(net).num_addresses for net in nets) == 6 * 256
    assert changes(sandbox, "host", "setup", env=env) == []
    assert sandbox.json("host", "status", env=env)["served"] == 128
    python(sandbox, "cfctl", "host", "teardown")
    assert "nat" not in rules(sandbox)
