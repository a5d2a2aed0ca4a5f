"""A host without nft for the tests: what is read and set with iptables there."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

from cfctl import process
from tests.system import host_helpers
from tests.system.host_helpers import python_argv
from tests.system.sandbox import Sandbox

#: The lock of iptables-legacy stays for the next one (iptables(8)); the other is a client's script.
_STAYS = ("/run/xtables.lock", "/run/udhcpc")


@contextlib.contextmanager
def without(box: Sandbox, *programs: str) -> Iterator[None]:
    """Hide programs, wherever PATH leads to them."""
    found = [process.require(program) for program in programs]
    for path in found:
        box.run("mount", "--bind", "/dev/null", path)
    try:
        yield
    finally:
        for path in found:
            box.run("umount", path)


def rules(box: Sandbox, program: str = "iptables-legacy") -> dict[str, list[str]]:
    """Return chains with their policies, and rules, by table.

    A table that has only what the kernel gives it is left out: one of iptables-legacy cannot be unmade.
    """
    tables: dict[str, list[str]] = {}
    table = ""
    for line in box.run(f"{program}-save").stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-A")):
            tables.setdefault(table, []).append(line.partition(" [")[0])
    return {
        name: lines
        for name, lines in tables.items()
        if not all(line.startswith(":") and line.endswith(" ACCEPT") for line in lines)
    }


def packets(box: Sandbox, table: str, text: str) -> int:
    """Return how many packets a rule of iptables-legacy has met."""
    lines = box.run("iptables-legacy-save", "-c", "-t", table).stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("[") and text in line)
    return int(line[1:].partition(":")[0])


def snapshot(box: Sandbox) -> dict[str, Any]:
    """Return the host's state, with the rules of every program; needs nft."""
    found = host_helpers.snapshot(box)
    found["files"] = [path for path in found["files"] if path not in _STAYS]
    for program in ("iptables-legacy", "ip6tables-legacy"):
        found[program] = rules(box, program)
    return found


#: Arguments: name, MAC.
_GUEST = """
ip netns add "$1"
ip -n "$1" tuntap add eth0 mode tap vnet_hdr
ip -n "$1" link set eth0 address "$2" up
"""


@contextlib.contextmanager
def guest(box: Sandbox, name: str, tap: str, mac: str) -> Iterator[None]:
    """Put a guest on a tap for the block: a namespace of that name, with an interface eth0."""
    box.run("sh", "-ec", _GUEST, "guest", name, mac)
    pump = box.start(*python_argv("tests.system.tap_pump", tap, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert pump.stdout is not None
    assert pump.stderr is not None
    pid = pump.stdout.readline().strip()
    try:
        assert pid, pump.stderr.read()
        yield
    finally:
        if pid:
            box.run("kill", "-9", pid)
        pump.wait()
        pump.stdout.close()
        pump.stderr.close()
        box.run("ip", "netns", "del", name)


#: The world outside: knows the host, and no guest.
_INTERNET = """
ip netns add internet
ip link add up0 type veth peer name eth0 netns internet
ip addr add 203.0.113.1/24 dev up0
ip link set up0 up
ip -n internet addr add 203.0.113.2/24 dev eth0
ip -n internet link set eth0 up
ip -n internet link set lo up
"""


def internet(box: Sandbox) -> str:
    """Make a world outside; return an address in it."""
    box.run("sh", "-ec", _INTERNET)
    return "203.0.113.2"
