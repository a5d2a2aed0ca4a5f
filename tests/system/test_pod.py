"""Pod mode with real parts: a VM has the pod's address and reaches far away; afterwards the pod is as it was."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cfctl.errors import NotAPod
from cfctl.hostres import container
from tests.schemas import conforms
from tests.system import pod
from tests.system.host_helpers import changes, fails, python
from tests.system.sandbox import Sandbox

#: Of the machine's own processes (include/linux/proc_ns.h, PROC_PID_INIT_INO).
FIRST_PID_NAMESPACE = 0xEFFFFFFC


@pytest.mark.parametrize("addresses", [pod.USUAL, pod.SINGLE], ids=["usual", "single"])
def test_a_vm_with_the_address_of_the_pod(sandbox: Sandbox, host_package: Path, addresses: str) -> None:
    pod.make(sandbox, addresses)
    before = pod.snapshot(sandbox)
    assert ("change", "pod eth0") in changes(sandbox, "host", "setup", "--pod")
    assert changes(sandbox, "host", "setup", "--pod") == []
    status = sandbox.json("host", "status")
    conforms(status, "host")
    assert sandbox.json("host", "status", user="tester")["pod"] == status["pod"]
    assert (status["state"], status["pod"]["mac"], status["pod"]["mtu"]) == ("ready", pod.MAC, pod.MTU)
    assert "10.244.1.5" not in sandbox.run("ip", "addr").stdout

    sandbox.cfctl("launch", "phone")
    inside = sandbox.cfctl("adb", "phone", "shell", "ip addr show eth0; ip route; cat /etc/resolv.conf").stdout
    assert f"inet {pod.ADDRESS}/{24 if addresses == pod.USUAL else 32} " in inside
    assert "mtu 1400" in inside
    if addresses == pod.USUAL:
        assert "default via 10.244.1.1 dev eth0" in inside
        assert "10.96.0.0/12 via 10.244.1.2 dev eth0" in inside
        assert "203.0.113.0/24 via 192.0.2.1 dev eth0" in inside
    else:
        assert "169.254.1.1 dev eth0" in inside
    # -- out, and in; the pod's network has seen no other MAC than the pod's
    assert "ok" in sandbox.cfctl("adb", "phone", "shell", f"ping -c 2 -W 2 {pod.FAR_AWAY} && echo ok").stdout
    far = ("ip", "netns", "exec", "far")
    banner = f"import socket; s = socket.create_connection(('{pod.ADDRESS}', 5555), 5); print(s.getpeername()[0])"
    assert sandbox.run(*far, "python3", "-c", banner).stdout.strip() == pod.ADDRESS
    neighbours = json.loads(sandbox.run("ip", "-n", "router", "-j", "neigh", "show", "dev", "pod").stdout)
    assert {pod.ADDRESS: pod.MAC}.items() <= {n["dst"]: n.get("lladdr") for n in neighbours}.items()
    assert pod.strangers(sandbox) == 0
    assert changes(sandbox, "host", "setup", "--pod") == []

    refused = sandbox.cfctl("host", "teardown", check=False)
    assert "devices are up: cvd-1" in refused.stderr
    sandbox.run("adb", "kill-server")
    sandbox.cfctl("rm", "--force", "phone")
    assert ("change", "pod eth0") in changes(sandbox, "host", "teardown")
    after = pod.snapshot(sandbox)
    # The device leaves upstream's lock files.
    before.pop("files"), after.pop("files")
    assert after == before
    sandbox.run("ip", "netns", "exec", "router", "busybox", "ping", "-c", "1", "-W", "2", pod.ADDRESS)


def test_one_client_is_served(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    sandbox.run("sh", "-c", "printf 'nameserver 10.96.0.10\nsearch a.b c\n' >/run/resolv.conf")
    sandbox.run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
    sandbox.cfctl("host", "setup", "--pod")
    stand_in(sandbox, "vm", "00:1a:11:e1:cf:00")
    stand_in(sandbox, "other", "00:1a:11:e1:cf:01")
    # -- nobody else behind the bridge, and nobody on the pod's network
    assert lease(sandbox, "other", "eth0") == {}
    assert lease(sandbox, "router", "pod") == {}
    given = lease(sandbox, "vm", "eth0")
    assert (given["ip"], given["mask"], given["mtu"], given["router"]) == (pod.ADDRESS, "24", "1400", pod.GATEWAY)
    assert (given["dns"], given["search"], given["broadcast"]) == ("10.96.0.10", "a.b c", "10.244.1.255")
    assert (
        given["staticroutes"]
        == "192.0.2.1/32 0.0.0.0 203.0.113.0/24 192.0.2.1 10.96.0.0/12 10.244.1.2 0.0.0.0/0 10.244.1.1"
    )


def test_the_two_sides_do_not_meet(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    sandbox.cfctl("host", "setup", "--pod")
    stand_in(sandbox, "vm", "00:1a:11:e1:cf:00")
    router = ("ip", "netns", "exec", "router")
    # -- the VM hears no other DHCP server
    hear = (
        "import socket; s = socket.socket(type=2); s.bind(('', 68)); s.settimeout(2); print(flush=True);\n"
        "try: print(s.recv(9))\nexcept TimeoutError: print('silence')"
    )
    speak = (
        "import socket; s = socket.socket(type=2); s.setsockopt(1, 6, 1); s.setsockopt(1, 25, b'pod');"
        "s.bind(('', 67)); s.sendto(b'an offer', ('255.255.255.255', 68))"
    )
    sandbox.run("ip", "-n", "vm", "addr", "add", f"{pod.ADDRESS}/24", "dev", "eth0")
    listener = sandbox.start("ip", "netns", "exec", "vm", "python3", "-c", hear, stdout=subprocess.PIPE)
    assert listener.stdout is not None
    listener.stdout.readline()
    sandbox.run(*router, "python3", "-c", speak)
    assert listener.communicate(timeout=10)[0] == "silence\n"
    # -- a DHCP server on the pod's network hears nothing of the VM
    sandbox.run("sh", "-c", "kill $(cat /run/cuttlefish-dnsmasq-cvd-ebr.pid)")
    log = ("--pid-file=/run/foreign.pid", "--dhcp-leasefile=/run/foreign.leases", "--log-facility=/run/foreign.log")
    serve = ("dnsmasq", "--port=0", "--interface=pod", "--conf-file=", "--dhcp-range=10.244.1.50,10.244.1.60")
    sandbox.run(*router, *serve, *log, "--log-dhcp")
    assert lease(sandbox, "vm", "eth0") == {}
    # It would note the sort of client at once.
    assert "vendor class" not in sandbox.run("cat", "/run/foreign.log").stdout
    sandbox.run("sh", "-c", "kill $(cat /run/foreign.pid)")
    # -- what else runs in the container says nothing to the pod's network, and hears nothing
    sandbox.run("ip", "addr", "add", "10.244.1.77/24", "dev", "cvd-ebr")
    sandbox.run("busybox", "ping", "-c", "1", "-W", "1", "-I", "10.244.1.77", pod.GATEWAY, check=False)
    assert "10.244.1.77" not in sandbox.run("ip", "-n", "router", "neigh").stdout
    sandbox.run("ip", "neigh", "flush", "dev", "cvd-ebr")
    sandbox.run(*router, "busybox", "ping", "-c", "1", "-W", "1", "10.244.1.77", check=False)
    assert pod.GATEWAY not in sandbox.run("ip", "neigh", "show", "dev", "cvd-ebr").stdout


def stand_in(sandbox: Sandbox, name: str, mac: str) -> None:
    """Make a namespace that is a port of the bridge, as a VM is."""
    sandbox.run("ip", "netns", "add", name)
    link = ("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0")
    sandbox.run(*link, "address", mac, "netns", name)
    sandbox.run("ip", "link", "set", name, "master", "cvd-ebr", "up")
    sandbox.run("ip", "-n", name, "link", "set", "eth0", "up")


def lease(sandbox: Sandbox, namespace: str, interface: str) -> dict[str, str]:
    """Return what a DHCP client is given; empty if nobody answers it."""
    sandbox.run("sh", "-c", "printf '#!/bin/sh\n[ $1 != bound ] || env\n' >/run/client; chmod +x /run/client")
    client = ("busybox", "udhcpc", "-f", "-n", "-q", "-i", interface, "-s", "/run/client", "-t", "2", "-T", "1")
    options = [word for name in ("mtu", "staticroutes", "search") for word in ("-O", name)]
    done = sandbox.run("ip", "netns", "exec", namespace, *client, *options, check=False)
    return {name: value for line in done.stdout.splitlines() for name, _, value in [line.partition("=")]}


@pytest.mark.parametrize("verb", ["setup", "teardown"])
def test_killed_at_every_point(sandbox: Sandbox, verb: str) -> None:
    pod.make(sandbox)
    done = python(sandbox, "tests.system.pod_driver", verb, timeout=300)
    assert int(done.stdout) > 8


def test_the_bridge_is_deleted_by_hand(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    sandbox.cfctl("host", "setup", "--pod")
    sandbox.run("ip", "link", "delete", "cvd-ebr")
    found = changes(sandbox, "host", "setup", "--pod")
    assert {("create", "bridge cvd-ebr"), ("change", "pod eth0")} <= set(found)
    assert "eth0" not in sandbox.run("ip", "-4", "route", "show", "table", "all").stdout
    sandbox.run("ip", "link", "delete", "cvd-ebr")
    sandbox.cfctl("host", "teardown")
    assert pod.ADDRESS in sandbox.run("ip", "route").stdout


def test_the_network_of_the_machine_is_known() -> None:
    if Path("/proc/self/ns/pid").stat().st_ino != FIRST_PID_NAMESPACE:
        pytest.skip("these tests run in a container, where the machine's own network cannot be looked at")
    # Only looks.
    with pytest.raises(NotAPod, match="this is the host's own network namespace"):
        container.require(named=True)


def test_where_it_is_refused(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    before = pod.snapshot(sandbox)
    sandbox.run("rm", "/run/.containerenv")
    # A machine that is itself a container may have marked its root file system.
    if not Path("/.dockerenv").exists():
        assert "this does not look like a container" in fails(sandbox, 1, "host", "setup", "--pod")
    sandbox.run("touch", "/run/.containerenv")
    assert "a pod has one address" in fails(sandbox, 2, "host", "setup", "--pod", "--instances", "2")
    assert "a pod has one address" in fails(sandbox, 2, "host", "setup", "--pod", "--adopt")
    assert "--netns goes with --pod" in fails(sandbox, 2, "host", "setup", "--netns", "/run/netns/far")
    assert "is no network namespace that can be entered" in fails(
        sandbox, 2, "host", "setup", "--pod", "--netns", "/etc/passwd"
    )
    sandbox.run("mkdir", "/tmp/old")
    sandbox.run("sh", "-c", "printf '#!/bin/sh\n' >/tmp/old/dnsmasq; chmod +x /tmp/old/dnsmasq")
    old = {"PATH": f"/tmp/old:{os.environ['PATH']}"}
    assert "dnsmasq is too old for pod mode" in fails(sandbox, 4, "host", "setup", "--pod", env=old)
    sandbox.run("rm", "-r", "/tmp/old")
    assert pod.snapshot(sandbox) == before
    # -- one or the other
    sandbox.cfctl("host", "setup", "--pod")
    for words in (("setup", "--instances", "2"), ("run",)):
        assert "the VM has the pod's address here" in fails(sandbox, 2, "host", *words)
    sandbox.cfctl("host", "teardown")
    sandbox.cfctl("host", "setup", "--instances", "2")
    assert "this host serves 2 instances" in fails(sandbox, 2, "host", "setup", "--pod")


def test_a_namespace_that_is_named(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    sandbox.run("rm", "/run/.containerenv")
    here = sandbox.run("ip", "-4", "addr").stdout + sandbox.run("ip", "-o", "link").stdout
    # `far` has an interface, an address and a default route: it is as good a pod as any.
    there = ("--netns", "/run/netns/far")
    before = sandbox.run("ip", "-n", "far", "-d", "-4", "route", "show", "table", "all").stdout
    assert ("change", "pod eth0") in changes(sandbox, "host", "setup", "--pod", *there)
    assert changes(sandbox, "host", "setup", "--pod", *there) == []
    assert sandbox.json("host", "status", *there)["pod"]["address"] == f"{pod.FAR_AWAY}/24"
    assert "cvd-etap-01" in sandbox.run("ip", "-n", "far", "link").stdout
    assert sandbox.run("ip", "-4", "addr").stdout + sandbox.run("ip", "-o", "link").stdout == here
    sandbox.cfctl("host", "setup", "--instances", "1")
    assert sandbox.json("host", "status")["state"] == "ready"
    sandbox.cfctl("host", "teardown")
    sandbox.cfctl("host", "teardown", *there)
    assert sandbox.run("ip", "-n", "far", "-d", "-4", "route", "show", "table", "all").stdout == before
    assert "dnsmasq" not in str(sandbox.processes())


def test_a_server_that_does_not_start(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    before = pod.snapshot(sandbox)
    hold = "import socket, time; s = socket.socket(type=2); s.bind(('', 67)); print(flush=True); time.sleep(60)"
    holder = sandbox.start("python3", "-c", hold, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert "the DHCP server of cvd-ebr did not start" in fails(sandbox, 1, "host", "setup", "--pod", "--quiet")
    (pid,) = [pid for pid, args in sandbox.processes().items() if "time.sleep(60)" in args]
    sandbox.run("kill", str(pid))
    holder.wait()
    holder.stdout.close()
    assert pod.snapshot(sandbox) == before


def test_nobody_confirms_the_address(sandbox: Sandbox) -> None:
    pod.make(sandbox)
    before = pod.snapshot(sandbox)
    said = fails(sandbox, 5, "host", "run", "--pod", "--deadline", "1", "--quiet")
    assert "no VM has confirmed 10.244.1.5 within 1 s" in said
    assert "No VM is running. The pod has its address back." in said
    assert pod.snapshot(sandbox) == before


def test_a_container_whose_entry_point_it_is(sandbox: Sandbox, host_package: Path) -> None:
    pod.make(sandbox)
    before = pod.snapshot(sandbox)
    running = sandbox.start(*sandbox.cfctl_argv("host", "run", "--pod"), stderr=subprocess.PIPE)
    assert running.stderr is not None
    assert any("Waiting for a VM to confirm 10.244.1.5, at most 180 s" in line for line in running.stderr)
    wait(lambda: sandbox.json("host", "status", check=False)["state"] == "ready")
    sandbox.cfctl("launch", "phone")
    assert any("The VM has 10.244.1.5." in line for line in running.stderr)
    # -- its DHCP server ends
    (server,) = [pid for pid, args in sandbox.processes().items() if "dnsmasq" in args]
    sandbox.run("kill", "-9", str(server))
    assert any("it is started again" in line for line in running.stderr)
    wait(lambda: sandbox.json("host", "status", check=False)["state"] == "ready")
    # -- the container ends
    (pid,) = [pid for pid, args in sandbox.processes().items() if "host run --pod" in args]
    sandbox.run("kill", "-TERM", str(pid))
    assert running.wait(20) == 0
    running.stderr.close()
    sandbox.run("adb", "kill-server")
    sandbox.cfctl("rm", "--force", "phone")
    after = pod.snapshot(sandbox)
    before.pop("files"), after.pop("files")
    assert after == before


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)
