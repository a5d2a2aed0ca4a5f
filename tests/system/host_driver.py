"""Works the host verbs hard, inside a sandbox and in one process: kills them at every point, damages what they made.

``python -m tests.system.host_driver crash setup|teardown`` and ``... damage EXAMPLES``; prints how much was tried.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cfctl import config
from cfctl.hostres import desired, host

#: What a set-up does to the world; a kill falls just before one of these.
EVENTS = {
    "subprocess.Popen",
    "fcntl.ioctl",
    "os.chmod",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "shutil.rmtree",
    "signal.pthread_kill",
}


def wanted(count: int) -> config.Settings:
    return config.load(flags={"host.instances": count}, environ={})


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def snapshot() -> dict[str, Any]:
    """Return everything that a set-up makes, in a form that does not depend on when it was made."""
    links = [link for link in json.loads(run("ip", "-d", "-j", "addr")) if link["ifname"] != "lo"]
    return {
        "links": {
            link["ifname"]: (
                *(link.get(key) for key in ("ifalias", "group", "master")),
                "UP" in link["flags"],
                link["linkinfo"].get("info_slave_data", {}).get("isolated"),
                {key: link["linkinfo"]["info_data"].get(key) for key in ("stp_state", "forward_delay", "vnet_hdr")},
                [
                    (a["local"], a["prefixlen"], a.get("broadcast"))
                    for a in link["addr_info"]
                    if a["family"] == "inet"
                ],
            )
            for link in links
        },
        # A rule that was missing is appended.
        "rules": sorted(run("nft", "list", "ruleset").splitlines()),
        "servers": len(servers()),
        "files": sorted(
            str(path) for path in Path("/run").rglob("*") if "cuttlefish" in path.name or "host/" in str(path)
        ),
        "autoconf": [path.read_text() for path in Path("/proc/sys/net/ipv6/conf").glob("cvd-*/autoconf")],
        "hosts": [path.read_text() for path in Path("/run/cfctl").glob("host/*.hosts")],
    }


def fresh(count: int) -> dict[str, Any]:
    """Return what a set-up of a host makes that had nothing of cfctl; it is taken down again."""
    host.setup(wanted(count))
    found = snapshot()
    host.teardown()
    return found


def servers() -> list[int]:
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            state = (proc / "stat").read_text().rpartition(") ")[2][0]
            if (proc / "comm").read_text().strip() == "dnsmasq" and state != "Z":
                found.append(int(proc.name))
        except OSError:
            continue
    return found


def changes(count: int) -> list[str]:
    plan, _ = host.status(wanted(count))
    return [f"{c.action} {c.object}: {c.reason}" for c in (*plan.changes,)] + [str(c) for c in plan.conflicts]


def without_leases(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out the lease files, which the server writes in its own time."""
    return {**found, "files": [path for path in found["files"] if not path.endswith(".leases")]}


# -- kill -9 at every point --------------------------------------------------------------------------------


def killed_at(point: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before its ``point``-th event; False if it ended before that."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if event in EVENTS or writes:
                if seen == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(hook)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def crash(verb: str) -> int:
    """Kill ``verb`` at every point in turn; whatever is left, the next set-up or tear-down must mend it."""
    ready = fresh(2)
    clean = snapshot()
    point = 0
    while True:
        if verb == "teardown":
            host.setup(wanted(2))
            killed = killed_at(point, host.teardown)
        else:
            killed = killed_at(point, lambda: host.setup(wanted(2)))
        if not killed:
            host.teardown()
            assert snapshot() == clean
            return point
        if point % 2:
            host.setup(wanted(2))
            assert changes(2) == [], f"after a kill at point {point}"
            assert without_leases(snapshot()) == without_leases(ready), f"after a kill at point {point}"
        plan = host.teardown()
        assert plan.left == ()
        assert snapshot() == clean, f"after a kill at point {point}"
        point += 1


# -- any damage --------------------------------------------------------------------------------------------

_LINKS = [*desired.build(3).links]
_TAPS = [name for name in _LINKS if name not in ("cvd-ebr", "cvd-wbr")]
_TARGETS = {
    "delete": _LINKS,
    "down": _LINKS,
    "nomaster": _TAPS,
    "wrong master": _TAPS,
    "flush": ["cvd-mtap-01", *_LINKS],
    "address": _LINKS,
    "aside": _LINKS,
    "stp": ["cvd-ebr", "cvd-wbr"],
    "not isolated": _TAPS,
    "recreated": _TAPS,
    "temporary": ["cvd-new-ebr", "cvd-new-wbr"],
    "table": ["ip cuttlefish_nat", "bridge cuttlefish_bridge", "inet cfctl"],
    "chain": ["ip cuttlefish_nat postrouting", "inet cfctl forward"],
    "rule twice": [""],
    "kill": ["TERM", "KILL"],
    "pid file": ["", "1", "999999", "nonsense"],
    "second server": [""],
    "hosts": [""],
    "sysctl": ["ipv4/ip_forward", "ipv6/conf/cvd-ebr/autoconf"],
}
_DAMAGES = st.sampled_from(sorted(_TARGETS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(_TARGETS[kind]))
)


def damage(kind: str, what: str) -> None:
    """Do one thing that may go wrong on a host; where it cannot be done any more, nothing."""
    rule = 'add rule ip cuttlefish_nat postrouting ip saddr 192.168.98.0/24 masquerade comment "cfctl"'
    pid_file = "/run/cuttlefish-dnsmasq-cvd-ebr.pid"
    script = {
        "delete": f"ip link del {what}",
        "down": f"ip link set {what} down",
        "nomaster": f"ip link set {what} nomaster",
        "wrong master": f"ip link set {what} master cvd-wbr",
        "flush": f"ip -4 addr flush dev {what}",
        "address": f"ip addr add 192.168.98.9/28 dev {what}",
        "aside": f"ip link set {what} group 4711",
        "stp": f"ip link set {what} type bridge stp_state 1 forward_delay 300",
        "not isolated": f"ip link set {what} type bridge_slave isolated off",
        "recreated": f"ip link del {what}; ip tuntap add {what} mode tap multi_queue; ip link set {what} alias cfctl",
        "temporary": f"ip link add {what} type bridge",
        "table": f"nft delete table {what}",
        "chain": f"nft flush chain {what}",
        "rule twice": f"nft '{rule}'",
        "kill": f"pkill -{what} -o -f interface=cvd-ebr",
        "pid file": f"echo {what} >{pid_file}" if what else f"rm {pid_file}",
        "second server": "sh -c \"$(tr '\\0' ' ' </proc/$(pgrep -o -x dnsmasq)/cmdline)\"",
        "hosts": "echo >/run/cfctl/host/cvd-ebr.hosts",
        "sysctl": f"echo 0 >/proc/sys/net/{what}",
    }[kind]
    subprocess.run(["sh", "-c", script], check=False, capture_output=True, timeout=10)


def damages(examples: int) -> int:
    """From any damaged state, of any number of instances, one set-up mends all and a tear-down removes all."""
    ready = [fresh(count) for count in range(4)]
    clean = snapshot()
    tried = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    # A pid file on a host without anything of ours is not ours: there must be something to damage.
    @given(st.integers(1, 3), st.lists(_DAMAGES, max_size=5), st.integers(0, 3))
    def converges(before: int, blows: list[tuple[str, str]], after: int) -> None:
        nonlocal tried
        tried += 1
        host.setup(wanted(before))
        for blow in blows:
            damage(*blow)
        try:
            host.setup(wanted(after))
            assert changes(after) == []
            if after:
                assert without_leases(snapshot()) == without_leases(ready[after])
        finally:
            host.teardown()
        assert snapshot() == clean

    # Each kind of damage by itself, whatever chance finds besides.
    for kind, targets in _TARGETS.items():
        converges = example(2, [(kind, targets[0])], 2)(converges)
    converges()
    return tried


def timed(seed: int) -> int:
    """Kill a set-up of 24 instances at some moment, with all the programs that it runs, five times."""
    host.setup(wanted(1))
    host.teardown()
    clean = snapshot()
    chance = random.Random(seed)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os.setsid()
            host.setup(wanted(24))
            os._exit(0)
        time.sleep(chance.uniform(0.02, 0.12))
        # `kill -9` of a service's control group takes its children too. dnsmasq has a session of its own by then.
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        host.setup(wanted(4))
        assert changes(4) == []
        host.teardown()
        assert snapshot() == clean
    return 5


if __name__ == "__main__":
    mode, argument = sys.argv[1:]
    print(
        crash(argument) if mode == "crash" else damages(int(argument)) if mode == "damage" else timed(int(argument))
    )
