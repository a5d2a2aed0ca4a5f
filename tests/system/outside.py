"""A guest on a bridge and an internet behind the host: what the tests of firewalls send packets between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from tests.system.host_helpers import python
from tests.system.sandbox import Sandbox

#: Address of somebody in the internet, and of the host there (RFC 5737).
INTERNET = "203.0.113.2"
UPLINK = "203.0.113.1"
#: Somebody else there, whom an administrator's rule keeps guests from.
FORBIDDEN = "203.0.113.9"
GATEWAY = "192.168.98.1"
#: What instance 1 is given, by its MAC.
GUEST_MAC = "00:1a:11:e1:cf:00"
GUEST = "192.168.98.2"

_INTERNET = f"""
ip netns add internet
ip link add up0 type veth peer name eth0 netns internet
ip addr add {UPLINK}/24 dev up0; ip link set up0 up
ip -n internet addr add {INTERNET}/24 dev eth0
ip -n internet addr add {FORBIDDEN}/24 dev eth0
ip -n internet link set eth0 up
# As if its router knew the guests' network: so that nothing but a firewall keeps it out.
ip -n internet route add 192.168.98.0/24 via {UPLINK}
"""

_GUEST = f"""
ip netns add guest
ip link add port-guest type veth peer name eth0 netns guest
ip -n guest link set eth0 address {GUEST_MAC}
ip link set port-guest master cvd-ebr up
ip -n guest link set eth0 up
"""

_UDHCPC = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/24" dev eth0 && ip route replace default via "$router" && echo "$ip"
"""


def internet(box: Sandbox) -> None:
    """Put somebody outside."""
    box.run("sh", "-ec", _INTERNET)


def guest(box: Sandbox) -> None:
    """Plug a guest in; it asks for no address yet. After another set-up, plug it in again."""
    box.run(
        "sh", "-c", "ip netns del guest; while ip link show port-guest; do ip link del port-guest; done", check=False
    )
    box.run("sh", "-ec", _GUEST)


def lease(box: Sandbox) -> str:
    """Let the guest ask for its address; empty if it gets none."""
    box.run("sh", "-c", "cat >/run/udhcpc; chmod +x /run/udhcpc", stdin=_UDHCPC)
    ask = "ip netns exec guest busybox udhcpc -i eth0 -n -q -f -t 3 -T 1 -s /run/udhcpc"
    return box.run(*ask.split(), check=False).stdout.strip()


def reaches(box: Sandbox, namespace: str, address: str) -> bool:
    """Tell whether pings are answered."""
    ping = f"ip netns exec {namespace} busybox ping -c 3 -A -w 2 {address}"
    return box.run(*ping.split(), check=False).returncode == 0


def connects(box: Sandbox, origin: str, target: str, address: str) -> bool:
    """Tell whether a TCP connection comes through from one namespace to another."""
    return python(box, "tests.system.knock", origin, target, address).stdout == "open\n"


def everything(box: Sandbox) -> dict[str, object]:
    """Return what a guest gets and who reaches it; a firewall that is right gives ``RIGHT``."""
    return {
        "address": lease(box),
        "out": reaches(box, "guest", INTERNET),
        "in": connects(box, "internet", "guest", GUEST),
    }


RIGHT = {"address": GUEST, "out": True, "in": False}


def until(done: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a condition; fail, naming it, when the deadline has passed."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


# -- daemons -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon(box: Sandbox, argv: Sequence[str], log: str, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a daemon inside for the block; it is ended with SIGTERM, as a service manager does."""
    with (box.root / log).open("a") as output:
        child = box.start(*argv, stdout=output, stderr=output)
        try:
            until(lambda: ready() or child.poll() is not None, argv[0])
            assert child.poll() is None, (box.root / log).read_text()[-2000:]
            yield
        finally:
            # nsenter is what was started, the daemon its child, in a process namespace of its own.
            pids = [str(pid) for pid, args in box.processes().items() if args.endswith(" ".join(argv[1:]))]
            box.run("kill", *pids, check=False)
            child.wait(30)


@contextlib.contextmanager
def dockerd(box: Sandbox) -> Iterator[None]:
    """Run Debian's dockerd for the block, with everything of its own below /run."""
    argv = [
        *("dockerd", "--data-root=/run/docker-data", "--exec-root=/run/docker-exec", "--pidfile=/run/dockerd.pid"),
        *("--host=unix:///run/docker.sock", "--storage-driver=vfs", "--iptables=true"),
    ]

    def ready() -> bool:
        ping = ["docker", "-H", "unix:///run/docker.sock", "version"]
        return box.run(*ping, check=False).returncode == 0

    with daemon(box, argv, "dockerd.log", ready):
        yield


_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
<allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/></policy></busconfig>
"""


@contextlib.contextmanager
def firewalld(box: Sandbox) -> Iterator[None]:
    """Run Debian's firewalld for the block, on a system bus of its own; /etc/firewalld is a copy."""
    box.run(
        "sh",
        "-ec",
        "mkdir -p /run/dbus /run/etc-firewalld; cp -a /etc/firewalld/. /run/etc-firewalld;"
        "mountpoint -q /etc/firewalld || mount --bind /run/etc-firewalld /etc/firewalld; cat >/run/bus.conf",
        stdin=_BUS,
    )
    bus = ["dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile"]

    def bus_ready() -> bool:
        return box.run("test", "-S", "/run/dbus/system_bus_socket", check=False).returncode == 0

    def ready() -> bool:
        return box.run("firewall-cmd", "--state", check=False).returncode == 0

    with (
        daemon(box, bus, "bus.log", bus_ready),
        daemon(box, ["firewalld", "--nofork", "--nopid"], "firewalld.log", ready),
    ):
        yield


_UFW = """
IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
DEFAULT_APPLICATION_POLICY="SKIP"
MANAGE_BUILTINS=no
IPT_SYSCTL=/etc/ufw/sysctl.conf
IPT_MODULES=""
"""


def ufw(box: Sandbox) -> None:
    """Switch Debian's ufw on; /etc/ufw is a copy."""
    box.run(
        "sh",
        "-ec",
        "mkdir -p /run/etc-ufw; cp -a /etc/ufw/. /run/etc-ufw; mount --bind /run/etc-ufw /etc/ufw;"
        "cat >/etc/default/ufw",
        stdin=_UFW,
    )
    box.run("ufw", "--force", "enable")
