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
    assert as_root["firewall rules"]["found"] == "nothing else drops what guests send"
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
    assert doctor(sandbox)["subnets"]["found"] == "taken: 192.168.97.0/24 on lan0"
    carry_out_text = doctor(sandbox)["subnets"]["help"].rpartition("sudo ")[2]
    sandbox.run("sh", "-c", carry_out_text)
    assert doctor(sandbox)["subnets"]["result"] == "ok"


def test_what_docker_drops(sandbox: Sandbox) -> None:
    rules = (
        "table ip filter { chain DOCKER-USER { return; }; "
        "chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }"
    )
    sandbox.run("nft", "-f", "-", stdin=rules)
    finding = doctor(sandbox)["docker forward"]
    assert finding["result"] == "warn"
    carry_out(sandbox, finding)
    found = doctor(sandbox)
    assert "docker forward" not in found
    assert found["firewall rules"]["result"] == "ok"


def test_what_an_administrators_own_table_drops(sandbox: Sandbox) -> None:
    rules = (
        "table inet mine { chain input { type filter hook input priority 0; policy drop; }; "
        "chain forward { type filter hook forward priority 0; policy drop; }; }"
    )
    sandbox.run("nft", "-f", "-", stdin=rules)
    found = doctor(sandbox)
    for check in ("input drop", "forward drop"):
        carry_out(sandbox, found[check])
    found = doctor(sandbox)
    assert "input drop" not in found
    assert "forward drop" not in found


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
