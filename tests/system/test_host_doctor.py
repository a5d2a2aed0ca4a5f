"""The doctor on a real host: it changes nothing, and what it says to do about a firewall helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.schemas import conforms
from tests.system.sandbox import Sandbox


def doctor(box: Sandbox, *flags: str, **kwargs: Any) -> dict[str, dict[str, Any]]:
    """Return the findings by the name of their check."""
    document = box.json("host", "doctor", *flags, check=False, **kwargs)
    conforms(document, "doctor")
    return {finding["check"]: finding for finding in document["findings"]}


def carry_out(box: Sandbox, finding: dict[str, Any]) -> None:
    """Do word for word what the finding says; root needs no sudo."""
    for command in finding["help"].splitlines():
        box.run("sh", "-c", command.replace("sudo ", ""))


def test_it_changes_nothing(sandbox: Sandbox) -> None:
    before = sandbox.snapshot()
    as_root = doctor(sandbox)
    as_user = doctor(sandbox, user="tester")
    assert sandbox.snapshot() == before
    assert as_root["nft masquerade"]["result"] == "ok"
    assert as_root["nft bridge"]["result"] == "ok"
    assert as_root["group cvdnetwork"]["result"] == "ok"
    assert as_root["firewall rules"]["found"] == "nothing drops what guests send"
    assert as_user["membership cvdnetwork"]["found"] == "tester is a member"
    assert as_user["firewall rules"]["help"] == "sudo cfctl host doctor"
    assert as_user["/dev/net/tun"]["result"] == "ok"


def test_exit_status_is_the_worst_finding(sandbox: Sandbox) -> None:
    done = sandbox.cfctl("host", "doctor", check=False)
    document = sandbox.json("host", "doctor", check=False)
    assert done.returncode == (4 if document["result"] == "fail" else 0)


def test_a_set_up_host_is_no_clash_with_itself(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "2")
    assert doctor(sandbox)["subnets"]["found"] == "free for 2 devices"
    sandbox.run("ip", "link", "add", "lan0", "type", "bridge")
    sandbox.run("ip", "addr", "add", "192.168.97.200/24", "dev", "lan0")
    sandbox.run("ip", "link", "set", "lan0", "up")
    assert doctor(sandbox)["subnets"]["found"] == "taken: address 192.168.97.200/24 on lan0"
    carry_out_text = doctor(sandbox)["subnets"]["help"].rpartition("sudo ")[2]
    sandbox.run("sh", "-c", carry_out_text)
    assert doctor(sandbox)["subnets"]["result"] == "ok"


LEAVE = {"CFCTL_HOST_FIREWALL": "leave"}
#: As the programs that nft shows make them.
DOCKER = "*filter\n:FORWARD DROP\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n"


def test_what_docker_drops(sandbox: Sandbox) -> None:
    sandbox.run("iptables-nft-restore", stdin=DOCKER)
    assert doctor(sandbox)["forward drop"]["help"] == "sudo cfctl host setup"
    finding = doctor(sandbox, env=LEAVE)["forward drop"]
    assert finding["result"] == "warn"
    carry_out(sandbox, finding)
    found = doctor(sandbox)
    assert "forward drop" not in found
    assert found["firewall rules"]["result"] == "ok"
    # What an administrator has opened himself is his: nothing to add, nothing to take away.
    before = sandbox.snapshot()["rules"]
    sandbox.cfctl("host", "setup", "--instances", "1")
    sandbox.cfctl("host", "teardown")
    assert sandbox.snapshot()["rules"] == before


def test_what_an_administrators_own_table_drops(sandbox: Sandbox) -> None:
    rules = (
        "table inet mine { chain input { type filter hook input priority 0; policy drop; }; "
        "chain forward { type filter hook forward priority 0; policy drop; }; }"
    )
    sandbox.run("nft", "-f", "-", stdin=rules)
    found = doctor(sandbox, env=LEAVE)
    for check in ("input drop", "forward drop"):
        carry_out(sandbox, found[check])
    found = doctor(sandbox)
    assert "input drop" not in found
    assert "forward drop" not in found


def test_what_iptables_drops_is_opened_by_hand_as_by_the_set_up(sandbox: Sandbox) -> None:
    rules = ["-P INPUT DROP", "-A INPUT -i lo -j ACCEPT", "-A INPUT -s 203.0.113.9 -j DROP"]
    rules += ["-P FORWARD DROP", "-A FORWARD -d 203.0.113.3 -j DROP", "-A FORWARD -j LOG"]
    for rule in rules:
        sandbox.run("iptables-legacy", *rule.split())
    sandbox.cfctl("host", "setup", "--instances", "1")
    made = sandbox.run("iptables-legacy", "-S").stdout.replace("-m comment --comment cfctl ", "")
    sandbox.cfctl("host", "setup", env=LEAVE)
    found = doctor(sandbox, env=LEAVE)
    for check in ("input drop", "forward drop"):
        carry_out(sandbox, found[check])
    assert sandbox.run("iptables-legacy", "-S").stdout == made


def test_what_the_set_up_opens(sandbox: Sandbox) -> None:
    sandbox.run(
        "nft", "-f", "-", stdin="table inet mine { chain input { type filter hook input priority 0; policy drop; }; }"
    )
    assert doctor(sandbox)["input drop"]["help"] == "sudo cfctl host setup"
    sandbox.cfctl("host", "setup", "--instances", "1")
    found = doctor(sandbox)
    assert "input drop" not in found
    assert found["firewall rules"]["found"] == "what drops by default lets guests through (cfctl's rules)"
    sandbox.run("nft", "insert rule inet mine input iifname cvd-ebr drop")
    assert doctor(sandbox)["drop for guests"]["found"].endswith('inet mine input: iifname "cvd-ebr" drop')


def test_what_drops_dhcp_is_named(sandbox: Sandbox) -> None:
    """Before the opening that the set-up has made: nft prints the rule, and so does iptables."""
    sandbox.run("nft", "add table ip mine; add chain ip mine in { type filter hook input priority 0; policy drop; }")
    sandbox.cfctl("host", "setup", "--instances", "1")
    assert "drop of DHCP" not in doctor(sandbox)
    sandbox.run("nft", "insert rule ip mine in udp dport { 67, 68 } drop")
    assert doctor(sandbox)["drop of DHCP"]["found"].endswith("ip mine in: udp dport { 67, 68 } drop")
    sandbox.run("nft", "delete table ip mine")
    sandbox.run("iptables-legacy", "-A", "INPUT", "-p", "udp", "-j", "DROP")
    said = doctor(sandbox)["drop of DHCP"]
    assert said["found"].endswith("iptables-legacy filter INPUT: -p udp -j DROP")
    assert said["result"] == "warn"


def test_a_port_that_is_taken(sandbox: Sandbox) -> None:
    listener = sandbox.start("busybox", "nc", "-l", "-p", "6520")
    try:
        for _ in range(100):
            if ":1978 " in sandbox.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout:
                break
        assert doctor(sandbox, "--instances", "1")["ports"]["found"] == "taken: 6520 (ADB of cvd-1)"
    finally:
        listener.kill()
        listener.wait()


def test_kvm_is_tried_with_the_embedded_kernel(sandbox: Sandbox, host_package: Path) -> None:
    """The verdict may be either here, but it is one, and is kept: the second look takes no trial."""
    assert host_package.is_absolute()
    first = doctor(sandbox)["kvm"]
    if first["found"].startswith("/dev/kvm cannot be opened"):
        return
    assert first["found"].startswith(
        ("a kernel booted under KVM", "a kernel printed nothing", "QEMU ended under KVM")
    )
    assert first["result"] == ("ok" if "booted" in first["found"] else "fail")
    assert doctor(sandbox)["kvm"] == first


def test_a_host_without_sys(sandbox: Sandbox) -> None:
    """A chroot and some containers have none; the kernel answers by netlink there too."""
    # The sandbox's own lies above the machine's.
    sandbox.run("sh", "-c", "while umount -l /sys 2>/dev/null; do :; done")
    assert sandbox.run("ls", "/sys").stdout == ""
    plan = sandbox.json("host", "plan", "--instances", "1", check=False)
    conforms(plan, "host")
    assert plan["state"] == "absent"
    assert doctor(sandbox)["firewall rules"]["found"] == "nothing drops what guests send"
    sandbox.cfctl("host", "setup", "--instances", "1")
    assert sandbox.json("host", "status", "--instances", "1")["state"] == "ready"
    sandbox.cfctl("host", "teardown")
