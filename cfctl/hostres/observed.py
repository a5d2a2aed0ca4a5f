"""How the host is: the kernel read back as the data that :mod:`cfctl.hostres.desired` speaks of."""

from __future__ import annotations

import contextlib
import grp
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.errors import CfctlError
from cfctl.hostres import (
    backends,
    background,
    dnsmasq,
    files,
    lazy,
    neighbours,
    nft,
    pod_interface,
    safety,
)
from cfctl.hostres.desired import BRIDGE_OPTIONS, GROUP, IPV6_FORWARDING, MARK, TAP_OPTIONS, Address, Link
from cfctl.instance import BRIDGES, MAX_INSTANCES, UPSTREAM, Subnets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cfctl.hostres.rules import Backend

_TIMEOUT_S = 30

#: Bridges are made under such a name and get their own together with our mark; a killed set-up may leave one.
TEMPORARY = "cvd-new-"

_TAP_NAME = re.compile(r"cvd-(?:[ewm]tap|wifiap)-(?P<number>\d{2,3})")
_MASQUERADE = re.compile(r"(?:ip saddr|-s) (?P<subnet>[0-9.]+/30) (?:masquerade|-j MASQUERADE)")


@dataclass(frozen=True, slots=True)
class FoundLink:
    """A network interface.

    :param carrier: somebody has the tap open: a device runs on it.
    :param index: the kernel's number of it.
    :param mtu: in bytes.
    """

    link: Link
    carrier: bool = False
    index: int = 0
    mtu: int = 0

    @property
    def ours(self) -> bool:
        """It carries our mark, and is of a kind that we make."""
        return self.link.alias == MARK and self.link.kind in ("bridge", "tap")

    @property
    def temporary(self) -> bool:
        """A killed set-up of ours left it before it had its name."""
        return self.link.name.startswith(TEMPORARY) and self.link.kind == "bridge" and not self.link.addresses


@dataclass(frozen=True, slots=True)
class Observed:
    """What the plan compares with the desired state.

    :param links: everything called ``cvd-*``, by name.
    :param addresses: of all interfaces, with the interface's name.
    :param kinds: of all interfaces, by name.
    :param subnets: those of the desired state.
    :param link_groups: the link groups in use on the whole host.
    :param tables: ours, by family and name; None if only root may read them and we are not root.
    :param servers: every dnsmasq of one of the bridges.
    :param pid_files: what the pid files say, by bridge.
    :param files: pid and lease files that exist, with their bridge.
    :param directory: where set-ups keep what they must remember, if it is there.
    :param hosts: which address each MAC is given.
    :param sysctls: those of the desired state that exist.
    :param uplinks: what an earlier set-up changed to keep routers' advertisements coming.
    :param lazy: what a set-up wrote down so that taps can be made on request; None if it made them all.
    :param pod: the interface of a pod whose address is, or is about to be, the VM's.
    :param neighbours: other people's firewalls, and what configures interfaces by itself.
    :param advertised: interfaces that a change of the forwarding switch would cut off from their router.
    """

    links: Mapping[str, FoundLink] = field(default_factory=dict)
    addresses: tuple[tuple[str, str], ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    subnets: Subnets = UPSTREAM
    link_groups: frozenset[str] = frozenset({"default"})
    tables: Mapping[str, nft.FoundTable] | None = field(default_factory=dict)
    servers: tuple[dnsmasq.Running, ...] = ()
    pid_files: Mapping[str, int | None] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    directory: Path | None = None
    hosts: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    uplinks: tuple[safety.Uplink, ...] = ()
    advertised: tuple[safety.Uplink, ...] = ()
    group_exists: bool = True
    pod: pod_interface.Found | None = None
    lazy: str | None = None
    neighbours: neighbours.Found = field(default_factory=neighbours.Found)

    @property
    def ours(self) -> list[FoundLink]:
        """The links that carry our mark, or that a killed set-up of ours left."""
        return [found for found in self.links.values() if found.ours or found.temporary]

    @property
    def instances(self) -> int:
        """How many instances the host serves now: the highest number that something of ours belongs to.

        Rules count as well as taps, so that a tap that was deleted by hand is missed. Where taps are made on request,
        it is the highest number that may ask for them.
        """
        with contextlib.suppress(CfctlError):
            if self.lazy is not None:
                return lazy.limit(lazy.parse(self.lazy))
        numbers = [number_of(found.link.name) for found in self.links.values() if found.ours]
        for table in (self.tables or {}).values():
            numbers += [_number_of_rule(found.rule.text, self.subnets) for found in table.rules if found.marked]
        return max(filter(None, numbers), default=0)

    @property
    def numbers(self) -> set[int]:
        """The instances that a tap of ours belongs to."""
        return {number for found in self.links.values() if found.ours and (number := number_of(found.link.name))}

    @property
    def busy(self) -> set[int]:
        """The instances of which a tap of ours is open: a device runs on it."""
        return {number for found in self.links.values() if found.carrier and (number := number_of(found.link.name))}

    @property
    def external_bridge(self) -> str | None:
        """The bridge of somebody else that our taps are ports of, if they all are and no bridge is ours."""
        ours = [found.link for found in self.links.values() if found.ours]
        masters = {link.master for link in ours if number_of(link.name) and link.master}
        if len(masters) != 1 or any(link.kind == "bridge" for link in ours):
            return None
        (master,) = masters
        return None if master.startswith("cvd-") else master


def number_of(tap: str) -> int | None:
    """Return the instance number of a tap; None for what is no tap of an instance."""
    match = _TAP_NAME.fullmatch(tap)
    number = int(match["number"]) if match else 0
    return number if 1 <= number <= MAX_INSTANCES else None


def _number_of_rule(text: str, subnets: Subnets) -> int | None:
    match = _MASQUERADE.fullmatch(text)
    return subnets.number_of(IPv4Network(match["subnet"])) if match else None


def read(sysctls: Collection[str], subnets: Subnets = UPSTREAM, backend: Backend | None = None) -> Observed:
    """Read the host.

    :param sysctls: which of them to read.
    :param subnets: those of the desired state: some rules tell their instance by its subnet only.
    :param backend: what is to make the firewall rules.
    :raises CommandFailed: if the kernel cannot be asked.
    :raises MissingCommand: if there are firewall rules of ours, and not the program that made them.
    """
    values = {name: value for name in sysctls if (value := sysctl(name)) is not None}
    # Beside each other: each of them waits for a program.
    with (
        background.running(lambda: _tables(backend)) as wait_for_rules,
        background.running(neighbours.read) as wait_for_neighbours,
        # Only the change from 0 to 1 makes the kernel drop such a route.
        background.running(lambda: safety.advertised() if values.get(IPV6_FORWARDING) == "0" else []) as advertised,
    ):
        found = interfaces()
        pod = pod_interface.found(found)
        uplinks = tuple(advertised())
        tables = wait_for_rules()
        others = wait_for_neighbours()
    links = [found_link(raw) for raw in found if raw["ifname"].startswith("cvd-")]
    bridges = [bridge.name for bridge in BRIDGES]
    directory = dnsmasq.runtime_directory()
    return Observed(
        links={found.link.name: found for found in links},
        addresses=addresses(found),
        kinds={raw["ifname"]: raw.get("linkinfo", {}).get("info_kind", "") for raw in found},
        subnets=subnets,
        link_groups=frozenset(str(raw.get("group", "default")) for raw in found),
        tables=tables,
        servers=tuple(dnsmasq.running(bridges)),
        pid_files={bridge: dnsmasq.pid_in_file(bridge) for bridge in bridges},
        files={path: bridge for bridge in bridges for path in dnsmasq.files_of(bridge)},
        directory=directory if directory.is_dir() else None,
        hosts=files.read(dnsmasq.hosts_file()),
        sysctls=values,
        uplinks=tuple(safety.remembered()),
        advertised=uplinks,
        group_exists=_group_exists(),
        pod=pod,
        lazy=lazy.written(),
        neighbours=others,
    )


def interfaces() -> list[dict[str, Any]]:
    """Return all interfaces with their addresses: one exec tells both."""
    result = process.run(["ip", "-d", "-j", "addr"], timeout=_TIMEOUT_S)
    return [raw for raw in json.loads(result.stdout or "[]") if raw]


def addresses(found: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return the addresses of interfaces, each with its interface's name."""
    return tuple((address.cidr, raw["ifname"]) for raw in found for address in _addresses(raw))


def found_link(raw: Mapping[str, Any]) -> FoundLink:
    """Return one interface of ``ip -d -j addr`` as a link."""
    info = raw.get("linkinfo", {})
    data = info.get("info_data", {})
    kind = info.get("info_kind", raw.get("link_type", "unknown"))
    options: tuple[tuple[str, object], ...] = ()
    if kind == "tun" and data.get("type") == "tap":
        kind = "tap"
        options = tuple((name, data.get(name)) for name, _ in TAP_OPTIONS)
    elif kind == "bridge":
        options = tuple((name, data.get(name)) for name, _ in BRIDGE_OPTIONS)
    flags = raw.get("flags", ())
    link = Link(
        name=raw["ifname"],
        kind=kind,
        options=options,
        master=raw.get("master"),
        addresses=tuple(_addresses(raw)),
        isolated=info.get("info_slave_data", {}).get("isolated", False),
        alias=raw.get("ifalias"),
        up="UP" in flags,
        group=str(raw.get("group", "default")),
        mac=raw.get("address"),
    )
    return FoundLink(
        link, carrier=kind == "tap" and "LOWER_UP" in flags, index=raw.get("ifindex", 0), mtu=raw.get("mtu", 0)
    )


def _addresses(raw: Mapping[str, Any]) -> list[Address]:
    """Return all IPv4 addresses, and those of IPv6 that the kernel has not chosen itself."""
    return [
        Address(f"{info['local']}/{info['prefixlen']}", info.get("broadcast"))
        for info in raw.get("addr_info", ())
        if info.get("family") == "inet" or (info.get("scope") == "global" and not info.get("dynamic"))
    ]


def _tables(backend: Backend | None) -> Mapping[str, nft.FoundTable] | None:
    # The record of a pod is made before the rules of a pod.
    names = nft.TABLES if pod_interface.record().exists() else [name for name in nft.TABLES if name != nft.POD]
    return backends.read(names, backend)


def sysctl(name: str) -> str | None:
    """Return a kernel setting; None if this kernel (or this moment) has none of that name."""
    try:
        return sysctl_path(name).read_text().strip()
    except OSError:
        return None


def sysctl_path(name: str) -> Path:
    """Return the file of a kernel setting; interfaces whose name has a dot are not among ours."""
    return Path("/proc/sys") / name.replace(".", "/")


def _group_exists() -> bool:
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        return False
    return True
