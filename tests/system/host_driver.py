"""Works the host verbs hard, inside a sandbox and in one process: kills them at every point, damages what they made.

``python -m tests.system.host_driver crash setup|teardown|switch|iptables``, ``... damage EXAMPLES`` and
``... timed SEED``; prints how much was tried.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfctl import config
from cfctl.hostres import desired, host, nft

#: What a set-up does to the world; a kill falls just before one of these.
EVENTS = {
    "subprocess.Popen",
    "fcntl.ioctl",
    "os.chmod",
    "os.kill",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "shutil.rmtree",
    "signal.pthread_kill",
    # Of netlink: what is sent is not seen, but nothing is sent without one.
    "socket.__new__",
}


#: Settings that a host may have before and after.
KINDS: dict[str, dict[str, str]] = {
    "own": {"host.bridge": "", "host.lazy": "false"},
    "lazy": {"host.bridge": "", "host.lazy": "true"},
    "other": {
        "host.bridge": "",
        "host.lazy": "false",
        "host.ethernet_subnet": "10.0.98.0/24",
        "host.mobile_subnet": "10.0.97.0/24",
        "host.wifi_ap_subnet": "192.168.97.0/24",
        "host.ethernet_ipv6_prefix": "fd00:98::",
    },
    "external": {"host.bridge": "lan0", "host.lazy": "false"},
    "iptables": {"host.bridge": "", "host.lazy": "false", "host.rules": "iptables"},
}


def wanted(count: int, kind: str = "own") -> config.Settings:
    return config.load(flags={"host.instances": count, **KINDS[kind]}, environ={})


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def administrator() -> None:
    """Make what is on the host beside cfctl: a bridge, and a firewall that drops what nobody allows."""
    run("ip", "link", "add", "lan0", "type", "bridge")
    chains = (
        f"chain {hook} {{ type filter hook {hook} priority 0; policy drop; }};" for hook in ("input", "forward")
    )
    run("nft", f"table inet mine {{ {' '.join(chains)} }}")


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
        "rules": sorted(run("nft", "-s", "list", "ruleset").splitlines()),
        "iptables": sorted(
            line.partition(" [")[0]
            for program in ("iptables-legacy-save", "ip6tables-legacy-save")
            for line in run(program).splitlines()
            if line.startswith(("-A", ":"))
        ),
        "servers": len(servers()),
        "files": sorted(
            str(path) for path in Path("/run").rglob("*") if "cuttlefish" in path.name or "host/" in str(path)
        ),
        "autoconf": [path.read_text() for path in Path("/proc/sys/net/ipv6/conf").glob("cvd-*/autoconf")],
        "lazy": [path.read_text() for path in Path("/run/cfctl").glob("*lazy.json*")],
        "hosts": [path.read_text() for path in Path("/run/cfctl").glob("host/*.hosts")],
    }


#: What is there beside a process, each thing under a name of its own.
Left = dict[str, Any]


def left() -> Left:
    """Return everything that a process which changes the host leaves if it is killed now.

    Links with all that the kernel says of them and their sysctls, rules in their order, files with modes and content,
    DHCP servers. A tap that is not persistent goes with the process. Left out is what the kernel does in its own
    time: a bridge's timers, addresses that a link gives itself.
    """
    found: Left = {f"server {pid}": Path(f"/proc/{pid}/cmdline").read_text() for pid in servers()}
    passing = set()
    for link in json.loads(run("ip", "-d", "-j", "addr")):
        name, info = link["ifname"], link.get("linkinfo", {})
        if info.get("info_kind") == "tun" and not info["info_data"]["persist"]:
            passing.add(name)
            continue
        data = {**info.get("info_data", {}), **info.get("info_slave_data", {})}
        found[f"link {name}"] = {
            **{key: link.get(key) for key in ("ifalias", "group", "master", "mtu", "address")},
            "up": "UP" in link["flags"],
            "data": {key: value for key, value in data.items() if not key.endswith(("_timer", "_id", "state"))},
            "addresses": [
                (a["local"], a["prefixlen"], a.get("broadcast"))
                for a in link["addr_info"]
                if a.get("scope") != "link"
            ],
        }
    for family in ("ipv4", "ipv6"):
        for path in (Path("/proc/sys/net") / family / "conf").glob("*/*"):
            # Some can only be written, and a secret only be read once there is one.
            with contextlib.suppress(OSError):
                if path.parent.name not in passing:
                    found[str(path)] = path.read_text()
    found["ip_forward"] = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    found["nft"] = run("nft", "-s", "list", "ruleset")
    for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
        lines = run(program).splitlines()
        # Comments say when it was asked, and chains how much went through.
        found[program] = [line.partition(" [")[0] for line in lines if not line.startswith("#")]
    for top in ("/run", "/tmp", "/var/tmp", "/var/lib/cfctl"):
        for path in Path(top).rglob("*"):
            found[f"file {path}"] = (path.lstat().st_mode, path.read_text() if path.is_file() else "")
    return found


def fresh(count: int, kind: str) -> dict[str, Any]:
    """Return what a set-up of a host makes that had nothing of cfctl; it is taken down again."""
    host.setup(wanted(count, kind))
    found = snapshot()
    host.teardown()
    return found


def require_same(clean: dict[str, Any], when: str) -> None:
    """Make sure that the host is as it was, and say what is not."""
    now = snapshot()
    assert now == clean, f"{when}: " + "; ".join(f"{key}: {now[key]}" for key in clean if now[key] != clean[key])


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


def changes(count: int, kind: str = "own") -> list[str]:
    plan, _ = host.status(wanted(count, kind))
    return [f"{c.action} {c.object}: {c.reason}" for c in (*plan.changes,)] + [str(c) for c in plan.conflicts]


def without_leases(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out the lease files, which the server writes in its own time."""
    return {**found, "files": [path for path in found["files"] if not path.endswith(".leases")]}


# -- kill -9 at every point --------------------------------------------------------------------------------


def on_events(act: Callable[[int], None], work: Callable[[], object]) -> int:
    """Do the work in a child, which calls ``act`` before its first event, its second, ...; return the child's pid."""
    child = os.fork()
    if child:
        return child
    point = 0
    acting = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal point, acting
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in EVENTS or writes) and not acting:
            # What it does is such an event itself.
            acting = True
            act(point)
            acting = False
            point += 1

    sys.addaudithook(hook)
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 (said, and the child ends: it must not go on as a second driver)
        traceback.print_exc()
    finally:
        os._exit(1)


def watched(work: Callable[[], object]) -> list[Left]:
    """Do the work to its end, standing still before each of its events; return what a kill would leave there."""
    child = on_events(lambda _: os.kill(os.getpid(), signal.SIGSTOP), work)
    found = []
    while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
        try:
            found.append(left())
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        os.kill(child, signal.SIGCONT)
    assert status == 0, "it fails though nobody kills it"
    return found


def killed_at(point: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before this event; False if it ended before that."""

    def kill(at: int) -> None:
        if at == point:
            os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(on_events(kill, work), 0)
    assert status == 0 or os.WIFSIGNALED(status), "it fails though nobody kills it"
    return os.WIFSIGNALED(status)


#: What is killed: the kind of host before it, and after; None is a host without cfctl.
WAYS: dict[str, list[tuple[str | None, str | None]]] = {
    "setup": [(None, "own")],
    "teardown": [("own", None)],
    "switch": [("own", "external"), ("external", "other"), ("other", "own"), ("own", "lazy"), ("lazy", "own")],
    "iptables": [(None, "iptables"), ("iptables", None), ("own", "iptables"), ("iptables", "own")],
}

#: An administrator's host, whose iptables drops what nobody allows; the kernel keeps tables that it has made once.
_STRICT = """
for table in filter nat mangle; do iptables-legacy -t $table -S; ip6tables-legacy -t $table -S; done
iptables-legacy -A INPUT -i lo -j ACCEPT
iptables-legacy -A FORWARD -d 203.0.113.3 -j DROP
iptables-legacy -P INPUT DROP
iptables-legacy -P FORWARD DROP
"""


def crash(verb: str) -> tuple[int, int]:
    """Kill ``verb`` at every point that counts; whatever is left, the next set-up or tear-down must mend it.

    Whoever mends knows of the killed process only what it has left. So of several points in a row before which
    nothing changes the first and the last stand for all: right after a change, and right before the next one. Its
    threads are not in the same order twice, so what one of them has begun, a transaction of nft's say, may be done a
    point earlier or later than when the points were looked at, and the last point may not be reached.

    :return: at how many points it could be killed, and how many times it was.
    """
    host.setup(wanted(2))
    host.teardown()
    administrator()
    run("sh", "-ec", _STRICT)
    clean = snapshot()
    points = kills = 0
    for before, after in WAYS[verb]:
        if before:
            host.setup(wanted(2, before))
        found = watched(_way(after))
        host.teardown()
        require_same(clean, "at the end")
        points += len(found)
        for point in telling(found):
            killed = _crash_at(point, before, after, finish=bool(kills % 2))
            plan = host.teardown()
            assert plan.left == ()
            require_same(clean, f"after a kill at point {point}")
            kills += killed
    return points, kills


def telling(found: list[Left]) -> list[int]:
    """Return the first and the last point of each row of them that leave the same."""
    rows = [list(row) for _, row in itertools.groupby(range(len(found)), lambda point: found[point])]
    return sorted({point for row in rows for point in (row[0], row[-1])})


def _way(after: str | None) -> Callable[[], object]:
    return (lambda: host.setup(wanted(2, after))) if after else host.teardown


def _crash_at(point: int, before: str | None, after: str | None, *, finish: bool) -> bool:
    """Kill the way from one kind of host to another, and have a set-up finish it if so asked; False as above."""
    if before:
        host.setup(wanted(2, before))
    killed = killed_at(point, _way(after))
    if finish:
        kind = after or "own"
        host.setup(wanted(2, kind))
        assert changes(2, kind) == [], f"after a kill at point {point}"
        assert len(servers()) == (0 if kind == "external" else 2)
    return killed


# -- any damage --------------------------------------------------------------------------------------------

_TAPS = [name for name in desired.build(3).links if "tap" in name or "wifiap" in name]
_DAMAGES = st.one_of(
    st.tuples(st.just("delete"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("down"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("nomaster"), st.sampled_from(_TAPS)),
    st.tuples(st.just("wrong master"), st.sampled_from(_TAPS)),
    st.tuples(st.just("flush"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("flush6"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("address6"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("mac"), st.sampled_from(_TAPS)),
    st.tuples(st.just("address"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("aside"), st.sampled_from([*desired.build(3).links])),
    st.tuples(st.just("stp"), st.sampled_from(["cvd-ebr", "cvd-wbr"])),
    st.tuples(st.just("not isolated"), st.sampled_from(_TAPS)),
    st.tuples(st.just("recreated"), st.sampled_from(_TAPS)),
    st.tuples(st.just("extra"), st.sampled_from(["cvd-etap-04", "cvd-mtap-77", "cvd-wifiap-128", "cvd-wtap-129"])),
    st.tuples(st.just("subset"), st.integers(0, 9999).map(str)),
    st.tuples(st.just("temporary"), st.sampled_from(["cvd-new-ebr", "cvd-new-wbr"])),
    st.tuples(st.just("table"), st.sampled_from(["ip cuttlefish_nat", "bridge cuttlefish_bridge", "inet cfctl"])),
    st.tuples(st.just("chain"), st.sampled_from(["ip cuttlefish_nat postrouting", "inet cfctl forward"])),
    st.tuples(st.just("chain"), st.sampled_from(["inet mine input", "inet mine forward"])),
    st.tuples(st.just("opening twice"), st.just("")),
    st.tuples(st.just("rule twice"), st.just("")),
    st.tuples(
        st.just("iptables"),
        st.sampled_from(
            [
                "-F CFCTL_FORWARD",
                "-D FORWARD -m comment --comment cfctl -j CFCTL_FORWARD",
                "-D INPUT -i cvd-ebr -p udp --dport 67 -m comment --comment cfctl -j ACCEPT",
                "-I FORWARD 1 -i lo -j CFCTL_FORWARD",
                "-A FORWARD -i cvd-+ ! -o cvd-+ -m comment --comment cfctl -j ACCEPT",
                "-t nat -F",
                "-t nat -D CFCTL_POSTROUTING 1",
                "-t nat -A POSTROUTING -m comment --comment cfctl -j CFCTL_POSTROUTING",
                "-t nat -A CFCTL_POSTROUTING -s 192.168.98.0/24 -m comment --comment cfctl -j MASQUERADE",
                "-t nat -A CFCTL_POSTROUTING -s 192.168.97.20/30 -m comment --comment cfctl -j MASQUERADE",
                "-t mangle -F CFCTL_POSTROUTING",
            ]
        ),
    ),
    st.tuples(st.just("kill"), st.sampled_from(["TERM", "KILL"])),
    st.tuples(st.just("pid file"), st.sampled_from(["", "1", "999999", "nonsense"])),
    st.tuples(st.just("second server"), st.just("")),
    st.tuples(st.just("hosts"), st.just("")),
    st.tuples(st.just("sysctl"), st.sampled_from(["ipv4/ip_forward", "ipv6/conf/cvd-ebr/autoconf"])),
)

_HOSTS = st.tuples(st.integers(0, 3), st.sampled_from(sorted(KINDS)))


def leave_a_subset(seed: int) -> None:
    """Take away half of everything: links, rules, servers, files."""
    chance = random.Random(seed)

    def doomed(things: list[str]) -> list[str]:
        return [thing for thing in things if chance.random() < 0.5]

    names = [link["ifname"] for link in json.loads(run("ip", "-j", "link")) if link.get("ifalias") == desired.MARK]
    script = [f"ip link del {name}" for name in doomed(sorted(names))]
    for name in nft.TABLES:
        listed = subprocess.run(["nft", "-a", "list", "table", *name.split()], capture_output=True, text=True)
        rules = (
            [(rule.rule.chain, rule.handle) for rule in nft.parse(name, listed.stdout).rules] if listed.stdout else []
        )
        script += doomed([f"nft delete rule {name} {chain} handle {handle}" for chain, handle in rules])
    for table in ("filter", "nat", "mangle"):
        lines = run("iptables-legacy", "-t", table, "-S").splitlines()
        script += doomed([f"iptables-legacy -t {table} -D {line[3:]}" for line in lines if "comment cfctl" in line])
    script += doomed([f"kill -9 {pid}" for pid in sorted(servers())])
    files = [*Path("/run").glob("cuttlefish-*"), *Path("/run/cfctl/host").glob("*")]
    script += doomed([f"rm -f {path}" for path in sorted(files)])
    chance.shuffle(script)
    subprocess.run(["sh", "-c", "\n".join(script)], check=False, capture_output=True, timeout=30)


def damage(kind: str, what: str) -> None:
    """Do one thing that may go wrong on a host; where it cannot be done any more, nothing."""
    if kind == "subset":
        leave_a_subset(int(what))
        return
    rule = 'add rule ip cuttlefish_nat postrouting ip saddr 192.168.98.0/24 masquerade comment "cfctl"'
    opening = 'add rule inet mine input iifname "cvd-ebr" udp dport 67 counter accept comment "cfctl"'
    pid_file = "/run/cuttlefish-dnsmasq-cvd-ebr.pid"
    script = {
        "delete": f"ip link del {what}",
        "down": f"ip link set {what} down",
        "nomaster": f"ip link set {what} nomaster",
        "wrong master": f"ip link set {what} master cvd-wbr",
        "flush": f"ip -4 addr flush dev {what}",
        "flush6": f"ip -6 addr flush dev {what} scope global",
        "address6": f"ip addr add fd00:1::9/64 dev {what}",
        "mac": f"ip link set {what} address 02:00:00:00:00:01",
        "address": f"ip addr add 192.168.98.9/28 dev {what}",
        "aside": f"ip link set {what} group 4711",
        "stp": f"ip link set {what} type bridge stp_state 1 forward_delay 300",
        "not isolated": f"ip link set {what} type bridge_slave isolated off",
        "recreated": f"ip link del {what}; ip tuntap add {what} mode tap multi_queue; ip link set {what} alias cfctl",
        "extra": f"ip tuntap add {what} mode tap vnet_hdr group cvdnetwork; ip link set {what} alias cfctl",
        "temporary": f"ip link add {what} type bridge",
        "table": f"nft delete table {what}",
        "chain": f"nft flush chain {what}",
        "opening twice": f"nft '{opening}'",
        "rule twice": f"nft '{rule}'",
        "iptables": f"iptables-legacy {what}",
        "kill": f"pkill -{what} -o -f interface=cvd-ebr",
        # Where cfctl has no server, it would be somebody else's file, which stays.
        "pid file": f"[ ! -e {pid_file} ] || echo {what} >{pid_file}" if what else f"rm {pid_file}",
        # The file may name another program by now.
        "second server": f"cd /proc/$(cat {pid_file}) && grep -q dnsmasq comm && sh -c \"$(tr '\\0' ' ' <cmdline)\"",
        "hosts": "echo >/run/cfctl/host/cvd-ebr.hosts",
        "sysctl": f"echo 0 >/proc/sys/net/{what}",
    }[kind]
    subprocess.run(["sh", "-c", script], check=False, capture_output=True, timeout=10)


def damages(examples: int) -> int:
    """From any damaged state, of any kind and number, one set-up mends all and a tear-down removes all."""
    host.setup(wanted(1))
    host.teardown()
    administrator()
    run("sh", "-ec", _STRICT)
    clean = snapshot()
    ready: dict[tuple[int, str], dict[str, Any]] = {}
    tried = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(_HOSTS, st.lists(_DAMAGES, max_size=5), _HOSTS)
    def converges(before: tuple[int, str], blows: list[tuple[str, str]], after: tuple[int, str]) -> None:
        nonlocal tried
        tried += 1
        host.setup(wanted(*before))
        for blow in blows:
            damage(*blow)
        try:
            host.setup(wanted(*after))
            assert changes(*after) == []
            if after[0]:
                if after not in ready:
                    host.teardown()
                    ready[after] = without_leases(fresh(*after))
                    host.setup(wanted(*before))
                    for blow in blows:
                        damage(*blow)
                    host.setup(wanted(*after))
                assert without_leases(snapshot()) == ready[after]
        finally:
            host.teardown()
        require_same(clean, f"{before} {blows} {after}")

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
        require_same(clean, "after a tear-down")
    return 5


if __name__ == "__main__":
    mode, argument = sys.argv[1:]
    if mode == "crash":
        print(*crash(argument))
    else:
        print(damages(int(argument)) if mode == "damage" else timed(int(argument)))
