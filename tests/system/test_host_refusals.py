"""When ``cfctl host`` must not go on: one screen that says what, why and what mends it, and a host left as it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.host_setup import plain_shell_up
from tests.system.host_helpers import changes, fails, read_host, snapshot, taps_in_use
from tests.system.sandbox import Sandbox
from tests.system.test_host_setup import reference_links


@contextmanager
def unchanged(box: Sandbox) -> Iterator[None]:
    before = snapshot(box)
    yield
    assert snapshot(box) == before


@pytest.mark.parametrize("number", ["-1", "129", "10000"])
def test_numbers_out_of_range(sandbox: Sandbox, number: str) -> None:
    with unchanged(sandbox):
        said = fails(sandbox, 2, "host", "setup", "--instances", number)
    assert "it must be 0 to 128" in said


def test_no_number_at_all(sandbox: Sandbox) -> None:
    assert "'many' is not a valid int" in fails(sandbox, 2, "host", "setup", "--instances", "many")


@pytest.mark.parametrize("program", ["ip", "nft", "dnsmasq"])
def test_missing_program(sandbox: Sandbox, program: str) -> None:
    package = {"ip": "iproute2", "nft": "nftables", "dnsmasq": "dnsmasq-base"}[program]
    with unchanged(sandbox):
        where = sandbox.run("sh", "-c", f"command -v {program}").stdout.strip()
        # Not a program any more, for this sandbox only.
        hide = f'mount --bind /dev/null "{where}"'
        found = sandbox.run("readlink", "-f", where).stdout.strip()
        argv = sandbox.cfctl_argv("host", "setup", "--instances", "1")
        script = f'unset x; {hide.replace(where, found)}; "$@"'
        # Not left to choose: without nft, iptables does as well.
        env = {"CFCTL_HOST_RULES": "nft"}
        done = sandbox.run("unshare", "--mount", "sh", "-c", script, "sh", *argv, check=False, env=env)
    assert done.returncode == 4, done.stderr
    assert f"the program '{program}' is not installed" in done.stderr
    assert package in done.stderr


def test_foreign_bridge(sandbox: Sandbox) -> None:
    sandbox.run("ip", "link", "add", "cvd-ebr", "type", "bridge", "stp_state", "1")
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "2")
        assert "bridge cvd-ebr is there, and not cfctl's" in said
        assert "stp_state is 1, not 0" in said
        assert "ip link delete cvd-ebr" in said
        assert "not cfctl's" in fails(sandbox, 1, "host", "setup", "--instances", "2", "--adopt")
        assert "not cfctl's" in fails(sandbox, 1, "host", "plan", "--instances", "2")
        assert "not cfctl's" in fails(sandbox, 1, "host", "setup", "--dry-run", "--instances", "2")
        status = sandbox.cfctl("host", "status", "--json", check=False)
        (conflict,) = json.loads(status.stdout)["conflicts"]
        assert (status.returncode, conflict["object"], conflict["adoptable"]) == (3, "bridge cvd-ebr", False)
        assert changes(sandbox, "host", "teardown") == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("ip link add cvd-etap-01 type veth peer name other", "its kind is veth"),
        ("ip tuntap add cvd-etap-01 mode tap group cvdnetwork", "vnet_hdr is off, not on"),
        ("ip tuntap add cvd-mtap-01 mode tap vnet_hdr group cvdnetwork", "its address is none"),
        ("ip link add cvd-wbr type bridge; ip link set cvd-wbr alias mine", "it belongs to 'mine'"),
        ("nft add table ip cuttlefish_nat; nft add chain ip cuttlefish_nat other", "chain other"),
        ("nft 'table inet cfctl { set s { type ipv4_addr; }; }'", "set s"),
    ],
)
def test_other_foreign_objects(sandbox: Sandbox, make: str, why: str) -> None:
    sandbox.run("sh", "-c", make)
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "1", "--adopt")
        assert why in said
        assert "and not cfctl's" in said


def test_foreign_objects_that_are_not_in_the_way(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", "ip tuntap add cvd-etap-05 mode tap; ip link add cvd-mine type veth peer name cvd-peer")
    with unchanged(sandbox):
        sandbox.cfctl("host", "setup", "--instances", "2")
        assert changes(sandbox, "host", "setup") == []
        sandbox.cfctl("host", "teardown")


def test_upstream_is_named_and_can_be_adopted(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", plain_shell_up(3))
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "2")
        assert "set up by upstream's cuttlefish-host-resources" in said
        assert "cfctl host setup --adopt" in said
        assert changes(sandbox, "host", "teardown") == []
    with taps_in_use(sandbox, "cvd-etap-01"):
        index = sandbox.run("cat", "/sys/class/net/cvd-etap-01/ifindex").stdout
        done = sandbox.json("host", "setup", "--instances", "2", "--adopt")["changes"]
        assert sandbox.run("cat", "/sys/class/net/cvd-etap-01/ifindex").stdout == index
    assert {
        "action": "change",
        "object": "dnsmasq cvd-ebr",
        "reason": "upstream's is replaced by cfctl's",
    } in done
    assert ("remove", "tap cvd-wifiap-03") in [(c["action"], c["object"]) for c in done]
    host = read_host(sandbox)
    assert host["links"] == reference_links(2)
    assert len(host["rules"]["ip cuttlefish_nat postrouting"]) == 6
    assert changes(sandbox, "host", "setup") == []
    sandbox.cfctl("host", "teardown")
    assert [name for name in snapshot(sandbox)["links"] if name != "lo"] == []
    assert snapshot(sandbox)["rules"] == ""
    assert snapshot(sandbox)["processes"] == []


def test_somebody_elses_rule_in_our_table_stays(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.run("nft", "add", "rule", "ip", "cuttlefish_nat", "postrouting", "counter", "accept")
    assert changes(sandbox, "host", "setup") == []
    said = sandbox.cfctl("host", "teardown").stderr
    assert "table ip cuttlefish_nat stays: it holds what cfctl did not make: rule 'counter accept'" in said
    rules = sandbox.run("nft", "list", "ruleset").stdout
    assert "counter" in rules
    assert "masquerade" not in rules
    assert changes(sandbox, "host", "teardown") == []


@pytest.mark.parametrize(
    ("route", "there"),
    [
        ("192.168.98.0/24 via 10.9.9.2", "192.168.98.0/24 via 10.9.9.2 on up0"),
        ("192.168.0.0/16 dev up0", "192.168.0.0/16 on up0"),
        ("192.168.97.2/32 dev up0 table 77", "192.168.97.2/32 on up0"),
    ],
)
def test_clashing_route(sandbox: Sandbox, route: str, there: str) -> None:
    uplink(sandbox)
    sandbox.run("sh", "-c", f"ip route add {route}")
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "1")
    assert "the host already routes subnets that the devices need" in said
    assert there in said
    assert "ip route del" in said


def test_clashing_address_of_an_interface_that_is_down(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", "ip link add lan0 type bridge && ip addr add 192.168.96.7/24 dev lan0")
    with unchanged(sandbox):
        assert "address 192.168.96.7/24 on lan0" in fails(sandbox, 1, "host", "setup", "--instances", "1")


def test_what_mends_a_clash_with_an_address(sandbox: Sandbox) -> None:
    sandbox.run(
        "sh", "-ec", "ip link add lan0 type bridge; ip addr add 192.168.98.7/24 dev lan0; ip link set lan0 up"
    )
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "1")
    assert said.count("is needed, and") == 1
    sandbox.run("sh", "-c", said[said.index("ip addr del") :].splitlines()[0])
    sandbox.cfctl("host", "setup", "--instances", "1")


def test_default_routes_dead_ends_and_subnets_of_other_numbers_do_not_clash(sandbox: Sandbox) -> None:
    uplink(sandbox)
    for route in (
        "default via 10.9.9.2",
        "0.0.0.0/1 dev up0",
        "128.0.0.0/1 dev up0",
        "blackhole 192.168.0.0/16",
        "192.168.97.64/26 dev up0",
        "192.168.93.0/24 dev up0",
    ):
        sandbox.run("ip", "route", "add", *route.split())
    sandbox.cfctl("host", "setup", "--instances", "2")
    assert "192.168.93.0/24 on up0" in fails(sandbox, 1, "host", "setup", "--instances", "65")
    # A host that is set up stays as it is, whatever comes up beside it.
    sandbox.run("ip", "route", "add", "192.168.98.0/25", "dev", "up0")
    assert changes(sandbox, "host", "setup") == []


def uplink(box: Sandbox) -> None:
    box.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    box.run("ip", "addr", "add", "10.9.9.1/24", "dev", "up0")
    box.run("sh", "-c", "ip link set up0 up; ip link set up1 up")


def test_devices_that_are_up(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "3")
    with taps_in_use(sandbox, "cvd-etap-03", "cvd-mtap-03"):
        before = _names(sandbox)
        for args in (["teardown"], ["setup", "--instances", "2"], ["setup", "--instances", "0"]):
            said = fails(sandbox, 1, "host", *args)
            assert "devices are up: cvd-3" in said
            assert "In use: cvd-etap-03, cvd-mtap-03." in said
            assert f"cfctl host {' '.join(args)} --force" in said
            assert _names(sandbox) == before
        sandbox.cfctl("host", "setup", "--instances", "2", "--force")
    assert "cvd-etap-03" not in _names(sandbox)
    with taps_in_use(sandbox, "cvd-etap-01"):
        sandbox.cfctl("host", "teardown", "--force")
    assert _names(sandbox) == ["lo"]


def _names(box: Sandbox) -> list[str]:
    return [link["ifname"] for link in json.loads(box.run("ip", "-j", "link").stdout)]


def test_a_tap_in_use_that_must_be_opened_to_be_mended(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.run("ip", "tuntap", "del", "cvd-etap-01", "mode", "tap")
    sandbox.run("sh", "-c", "ip tuntap add cvd-etap-01 mode tap vnet_hdr; ip link set cvd-etap-01 alias cfctl")
    with taps_in_use(sandbox, "cvd-etap-01", user="root"):
        # While it is down nobody can see that it is in use, other than by trying.
        assert "cvd-etap-01 is in use" in fails(sandbox, 1, "host", "setup", "--force")
        sandbox.run("ip", "link", "set", "cvd-etap-01", "up")
        assert "devices are up: cvd-1" in fails(sandbox, 1, "host", "setup", "--force")
    sandbox.cfctl("host", "setup")
    assert read_host(sandbox)["links"] == reference_links(1)


def test_a_setup_that_fails_leaves_nothing_half_made(sandbox: Sandbox) -> None:
    # Somebody else's DHCP server on all addresses.
    other = sandbox.start(
        "python3",
        "-c",
        "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 67)); "
        "print(1, flush=True); time.sleep(99)",
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    with unchanged(sandbox):
        said = fails(sandbox, 1, "host", "setup", "--instances", "2")
        assert sandbox.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    assert "the DHCP server of cvd-ebr did not start" in said
    assert "ss -lunp" in said
    sandbox.run("pkill", "-9", "python3")
    other.wait()
    other.stdout.close()


def test_no_tun_driver(sandbox: Sandbox) -> None:
    sandbox.run("umount", "/dev/net/tun")
    sandbox.run("mount", "-t", "tmpfs", "tmpfs", "/dev/net")
    with unchanged(sandbox):
        said = fails(sandbox, 4, "host", "setup", "--instances", "2")
    assert "there is no /dev/net/tun" in said
    assert "modprobe tun" in said


def test_json_of_an_error(sandbox: Sandbox) -> None:
    done = sandbox.cfctl("host", "setup", "--instances", "129", "--json", check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"


def test_two_at_once(sandbox: Sandbox) -> None:
    waiting = [
        sandbox.start(*sandbox.cfctl_argv("host", "setup", "--instances", "8"), stderr=-1, stdout=-1)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=30) for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0, 0], said
    assert "Waiting for another cfctl that changes the host." in "".join(err for _, err in said)
    assert changes(sandbox, "host", "setup", "--instances", "8") == []
