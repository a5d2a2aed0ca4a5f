"""How long the host's network takes: up, up again, down; cfctl beside a plain shell loop and upstream's script.

Run as root: ``python -m bench.host_setup [--instances 1 10 64 128] [--rounds 3] [--json FILE]``. Each measurement
runs in network, mount and process namespaces of its own, so the machine is left as it was. Times are medians over the
rounds; what counts is the ratio of what ran side by side, not the seconds of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import namespace

UPSTREAM = Path("/etc/init.d/cuttlefish-host-resources")
REPO = Path(__file__).resolve().parents[1]


def plain_shell_up(count: int) -> str:
    """Return what upstream's script does at ``start``, one process per step, as a script of its own.

    :param count: how many instances, 1 to 128.
    """
    return f"""
set -e
sysctl_() {{ echo "$2" >"/proc/sys/$1"; }}
sysctl_ net/ipv4/ip_forward 1
sysctl_ net/ipv6/conf/all/forwarding 1
nft add table ip cuttlefish_nat
nft add chain ip cuttlefish_nat postrouting '{{ type nat hook postrouting priority 100; }}'
nft add table bridge cuttlefish_bridge
nft add chain bridge cuttlefish_bridge prerouting '{{ type filter hook prerouting priority -250; }}'
nft add chain bridge cuttlefish_bridge forward '{{ type filter hook forward priority 0; }}'
masquerade() {{ nft add rule ip cuttlefish_nat postrouting ip saddr "$1" masquerade; }}
bridge() {{ # name, first three bytes
    ip link add name "$1" type bridge forward_delay 0 stp_state 0
    ip link set dev "$1" up
    ip addr add "$2.1/24" broadcast + dev "$1"
    for option in disable_ipv6=0 addr_gen_mode=0 autoconf=1; do
        sysctl_ "net/ipv6/conf/$1/${{option%=*}}" "${{option#*=}}"
    done
    dnsmasq --port=0 --strict-order --except-interface=lo --interface="$1" --listen-address="$2.1" \\
        --bind-interfaces --dhcp-range="$2.2,$2.255" --dhcp-option=option:dns-server,8.8.8.8,8.8.4.4 \\
        --dhcp-option=option6:dns-server,2001:4860:4860::8888,2001:4860:4860::8844 --conf-file= \\
        --pid-file="/var/run/cuttlefish-dnsmasq-$1.pid" \\
        --dhcp-leasefile="/var/run/cuttlefish-dnsmasq-$1.leases" --dhcp-no-override
    masquerade "$2.0/24"
}}
tap() {{ # name
    ip tuntap add dev "$1" mode tap group cvdnetwork vnet_hdr
    ip link set dev "$1" up
}}
port() {{ tap "$1"; ip link set dev "$1" master "$2"; }}
alone() {{ # name, first three bytes, index
    tap "$1"
    ip addr add "$2.$((4 * $3 + 1))/30" broadcast + dev "$1"
    masquerade "$2.$((4 * $3))/30"
}}
bridge cvd-ebr 192.168.98
bridge cvd-wbr 192.168.96
i=1
while [ $i -le {count} ]; do
    n=$(printf %02d $i)
    port "cvd-etap-$n" cvd-ebr
    port "cvd-wtap-$n" cvd-wbr
    if [ $i -le 64 ]; then
        alone "cvd-mtap-$n" 192.168.97 $((i - 1))
        alone "cvd-wifiap-$n" 192.168.94 $((i - 1))
    else
        alone "cvd-mtap-$n" 192.168.93 $((i - 65))
        alone "cvd-wifiap-$n" 192.168.95 $((i - 65))
    fi
    i=$((i + 1))
done
"""


def plain_shell_down(count: int) -> str:
    """Return what upstream's script does at ``stop``."""
    return f"""
for bridge in cvd-ebr cvd-wbr; do
    kill "$(cat /var/run/cuttlefish-dnsmasq-$bridge.pid)"
done
i=1
while [ $i -le {count} ]; do
    n=$(printf %02d $i)
    for kind in etap wtap mtap wifiap; do
        ip link set dev "cvd-$kind-$n" down
        ip link delete "cvd-$kind-$n"
    done
    i=$((i + 1))
done
for bridge in cvd-ebr cvd-wbr; do
    ip link set dev $bridge down
    ip link delete $bridge
done
nft delete table bridge cuttlefish_bridge
nft delete table ip cuttlefish_nat
"""


def contestants(count: int) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield who runs: a name, and the commands for up, again and down; who cannot do `again` leaves it out."""
    cfctl = [sys.executable, "-m", "cfctl", "host"]
    setup = [*cfctl, "setup", "--instances", str(count), "--quiet"]
    yield "cfctl", [("up", setup), ("again", setup), ("down", [*cfctl, "teardown", "--quiet"])]
    up, down = plain_shell_up(count), plain_shell_down(count)
    yield "plain shell", [("up", ["sh", "-c", up]), ("down", ["sh", "-c", down])]
    if UPSTREAM.exists():
        script = ["env", f"num_cvd_accounts={count}", str(UPSTREAM)]
        yield "upstream", [("up", [*script, "start"]), ("down", [*script, "stop"])]


def measure(commands: list[tuple[str, list[str]]]) -> dict[str, float]:
    """Return the seconds that each command took, one after the other in namespaces of their own."""
    program = [sys.executable, "-c", _TIMER, json.dumps(commands)]
    done = subprocess.run(
        namespace.inside(*program), stdout=subprocess.PIPE, text=True, check=True, cwd=REPO, env={**os.environ}
    )
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


_TIMER = """
import json, subprocess, sys, time
times = {}
for name, argv in json.loads(sys.argv[1]):
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    times[name] = time.perf_counter() - started
print(json.dumps(times))
"""


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 10, 64, 128], metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians there")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    print(f"{'instances':>9}  {'work':<6} {'cfctl':>9}  {'plain shell':>20}  {'upstream':>20}")
    for count in arguments.instances:
        samples: dict[str, dict[str, list[float]]] = {}
        # Side by side: each round runs everybody, so that a slow moment of the machine hits all.
        for _ in range(arguments.rounds):
            for name, commands in contestants(count):
                for work, seconds in measure(commands).items():
                    samples.setdefault(name, {}).setdefault(work, []).append(seconds)
        medians = {name: {work: statistics.median(s) for work, s in by.items()} for name, by in samples.items()}
        results.append({"instances": count, "seconds": medians})
        for work in ("up", "again", "down"):
            ours = medians["cfctl"][work]
            cells = [
                f"{theirs:7.2f} s ({theirs / ours:5.1f} x)" if (theirs := medians.get(name, {}).get(work)) else "-"
                for name in ("plain shell", "upstream")
            ]
            print(f"{count:>9}  {work:<6} {ours:7.3f} s  {cells[0]:>20}  {cells[1]:>20}", flush=True)
    document = {"measured_at": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "results": results}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
