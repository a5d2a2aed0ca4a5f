"""The DHCP servers: one dnsmasq per bridge, with upstream's options and four differences.

Differences (docs/host.md): the range ends before the broadcast address; no ping before an address is offered, which
costs the first boot 3 s; each instance is given its own address; pid and lease file are looked for under ``/run``.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import paths, process
from cfctl.errors import CfctlError, CommandFailed, DeadlinePassed
from cfctl.hostres import files
from cfctl.instance import ETHERNET_BRIDGE, MAX_INSTANCES, UPSTREAM, Bridge, Subnets, instances

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

#: It forks away as soon as it listens; 15 s is only for a machine on its knees.
_START_TIMEOUT_S = 15
#: Between SIGTERM and SIGKILL.
_PATIENCE_S = 3.0
_PID_FILE = "--pid-file="
#: Upstream's script never passes it: it tells our servers from upstream's.
OURS = "--no-ping"
_LEASE_FIELDS = 4
#: dnsmasq takes no other for what it advertises, and guests no other for an address of their own.
_PREFIX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Server:
    """A bridge's DHCP server, as it should be.

    :param argv: without the program's directory.
    :param hosts_file: which address each MAC is given, or None.
    :param hosts: its content: the same whatever the number of instances, so that a change of it needs no restart.
    """

    bridge: str
    argv: tuple[str, ...]
    hosts_file: Path | None = None
    hosts: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A dnsmasq that serves one of our bridges.

    :param marked: cfctl started it; if not, upstream's script did.
    """

    bridge: str
    pid: int
    argv: tuple[str, ...]
    marked: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that a guest has."""

    expires: int
    mac: str
    address: str
    hostname: str


def server(
    bridge: Bridge,
    dns_servers: Sequence[str],
    dns6_servers: Sequence[str],
    subnets: Subnets = UPSTREAM,
    prefix: str | None = None,
) -> Server:
    """Return the DHCP server of a bridge.

    :param dns_servers: what guests are told to ask; none leaves the option out, and a server that answers no DNS
        itself (``--port=0``) names none then.
    :param prefix: of 64 bits, advertised to the guests; what else they need to know they ask by DHCPv6.
    """
    first, last = bridge.dhcp_range
    argv = [
        "dnsmasq",
        "--port=0",
        "--strict-order",
        "--except-interface=lo",
        f"--interface={bridge.name}",
        f"--listen-address={bridge.address.ip}",
        "--bind-interfaces",
        f"--dhcp-range={first},{last}",
        *([f"--dhcp-option=option:dns-server,{','.join(dns_servers)}"] if dns_servers else []),
        *([f"--dhcp-option=option6:dns-server,{','.join(dns6_servers)}"] if dns6_servers else []),
        "--conf-file=",
        f"{_PID_FILE}{paths.dnsmasq_pid_file(bridge.name)}",
        f"--dhcp-leasefile={paths.dnsmasq_lease_file(bridge.name)}",
        "--dhcp-no-override",
        OURS,
    ]
    if prefix:
        argv += [f"--dhcp-range={prefix},ra-stateless,{_PREFIX_LENGTH}", "--enable-ra"]
    if bridge.name != ETHERNET_BRIDGE.name:
        return Server(bridge.name, tuple(argv))
    return Server(bridge.name, (*argv, f"--dhcp-hostsfile={hosts_file()}"), hosts_file(), _hosts(subnets))


def gateway6(prefix: str) -> str:
    """Return the host's own address with its prefix length, ``fd00:98::1/64`` for ``fd00:98::``."""
    return f"{IPv6Address(prefix) + 1}/{_PREFIX_LENGTH}"


def hosts_file() -> Path:
    """Return where the addresses are written that the ethernet bridge's guests are given."""
    return runtime_directory() / f"{ETHERNET_BRIDGE.name}.hosts"


def runtime_directory() -> Path:
    """Return root's directory, whoever asks: an ordinary user's status compares with what root has started."""
    return paths.current().host_runtime if os.geteuid() == 0 else paths.SYSTEM_RUNTIME / "host"


@functools.cache
def _hosts(subnets: Subnets) -> str:
    everyone = instances(MAX_INSTANCES, subnets)
    return "".join(f"{instance.ethernet_mac},{instance.ethernet_address}\n" for instance in everyone)


# -- reading -------------------------------------------------------------------------------------------


def running(bridges: Collection[str]) -> list[Running]:
    """Return every dnsmasq of this network namespace that serves one of ``bridges``, by bridge, pid file or not."""
    wanted = {}
    for bridge in bridges:
        pid_file = paths.dnsmasq_pid_file(bridge)
        wanted[f"{_PID_FILE}{pid_file}"] = wanted[f"{_PID_FILE}/var{pid_file}"] = bridge
    found = []
    for pid in process.pids():
        if _comm(pid) != "dnsmasq":
            continue
        argv = process.command_line(pid)
        bridge_ = next((wanted[arg] for arg in argv if arg in wanted), None)
        if bridge_ and process.alive(pid) and _same_network(pid):
            found.append(Running(bridge_, pid, argv, marked=OURS in argv))
    order = list(bridges)
    return sorted(found, key=lambda server: (order.index(server.bridge), server.pid))


def pid_in_file(bridge: str) -> int | None:
    """Return the pid that the bridge's pid file names; None if there is none to read."""
    text = files.read(paths.dnsmasq_pid_file(bridge)).strip()
    return int(text) if text.isdecimal() else None


def leases(bridge: str) -> list[Lease]:
    """Return the addresses that the bridge's guests have (dnsmasq's lease file)."""
    found = []
    for line in files.read(paths.dnsmasq_lease_file(bridge)).splitlines():
        fields = line.split()
        # `duid` lines and DHCPv6 leases have another shape.
        if len(fields) >= _LEASE_FIELDS and fields[0].isdecimal() and ":" in fields[1]:
            found.append(Lease(int(fields[0]), fields[1], fields[2], fields[3].replace("*", "")))
    return found


def files_of(bridge: str) -> list[Path]:
    """Return those files of the bridge's server that exist."""
    candidates = (paths.dnsmasq_pid_file(bridge), paths.dnsmasq_lease_file(bridge))
    return [path for path in candidates if os.path.lexists(path)]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _same_network(pid: int) -> bool:
    """Tell whether a process lives in our network namespace; a container may run a dnsmasq with the same options."""
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except PermissionError:
        # An ordinary user may not look. The command line says enough for a status.
        return True
    except OSError:
        return False


# -- changing ------------------------------------------------------------------------------------------


def start(server: Server) -> None:
    """Start a server in the background, with its file of given addresses.

    :raises CfctlError: if it does not come up; no process is left then.
    """
    if server.hosts_file:
        files.write(server.hosts_file, server.hosts, mode=0o644)
    try:
        process.run(server.argv, timeout=_START_TIMEOUT_S)
    except (CommandFailed, DeadlinePassed) as exc:
        raise CfctlError(
            f"the DHCP server of {server.bridge} did not start",
            exc.output.strip() if isinstance(exc, CommandFailed) else str(exc),
            "If another program has UDP port 67, find it with: ss -lunp sport = :67",
        ) from exc


def stop(servers: Sequence[Running]) -> None:
    """End servers, and remove the pid files that they leave.

    :raises CfctlError: if one survives SIGKILL.
    """
    left = process.end([server.pid for server in servers], patience=_PATIENCE_S)
    if left:
        raise CfctlError(
            f"dnsmasq {', '.join(map(str, left))} does not end, not even by SIGKILL",
            "It is stuck in the kernel.",
            f"Look at it: cat /proc/{left[0]}/stack",
        )
    for server in servers:
        paths.dnsmasq_pid_file(server.bridge).unlink(missing_ok=True)


def forget(doomed: Sequence[Path]) -> None:
    """Remove files of servers that have ended."""
    for path in doomed:
        path.unlink(missing_ok=True)


def guests() -> Iterator[Lease]:
    """Return the leases of the ethernet bridge: one per guest that has booted."""
    yield from leases(ETHERNET_BRIDGE.name)
