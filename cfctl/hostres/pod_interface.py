"""The pod's interface: how it was is written down, its address is taken from it, and given back.

It is a port of the bridge exactly as long as its address is the VM's: it becomes one before its addresses go, and
ceases to be one after they are back. So whoever comes after a kill sees by that, and not by what is written, whether
there is something to give back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed
from cfctl.hostres import dnsmasq, files
from cfctl.hostres.pod import Pod, mend_routes, route_lines, routes_of
from cfctl.instance import ETHERNET_BRIDGE
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Found:
    """What was written down about the pod's interface, and how it is now.

    :param there: the interface still exists, and is the one that was described: not another pod's, after a restart.
    :param master: the bridge that it is a port of.
    :param addresses: its IPv4 addresses.
    """

    pod: Pod
    there: bool = True
    master: str | None = None
    addresses: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Its address is the VM's: it must be given back some time.

        Without addresses it is taken too: somebody has deleted the bridge.
        """
        return self.there and (self.master == ETHERNET_BRIDGE.name or not self.addresses)


def record() -> Path:
    """Return the file in which the interface is described as it was."""
    return dnsmasq.runtime_directory() / "pod.json"


def found(interfaces: Sequence[Mapping[str, Any]]) -> Found | None:
    """Return the interface that a set-up has described; None if none has.

    :param interfaces: what ``ip -d -j addr`` printed.
    :raises CfctlError: if what was written cannot be read.
    """
    text = files.read(record())
    if not text:
        return None
    try:
        pod = Pod.from_dict(json.loads(text))
    except (ValueError, TypeError) as exc:
        raise CfctlError(
            f"{record()} cannot be read",
            f"It says how the pod's interface was: {exc}",
            f"Give the interface its address by hand, and remove the file: rm {record()}",
        ) from exc
    for raw in interfaces:
        ours = raw.get("address") == pod.mac or raw.get("master") == ETHERNET_BRIDGE.name
        if raw["ifname"] == pod.interface and ours:
            inet = [info["local"] for info in raw.get("addr_info", ()) if info.get("family") == "inet"]
            return Found(pod, master=raw.get("master"), addresses=tuple(inet))
    return Found(pod, there=False)


def routes() -> list[str]:
    """Return all IPv4 routes."""
    return route_lines(process.run(["ip", "-d", "-4", "route", "show", "table", "all"], timeout=_TIMEOUT_S).stdout)


def neighbours() -> list[dict[str, Any]]:
    """Return the entries for ARP that were made by hand: some networks give the gateway's MAC that way."""
    result = process.run(["ip", "-4", "-j", "neigh", "show", "nud", "permanent"], timeout=_TIMEOUT_S)
    return [raw for raw in json.loads(result.stdout or "[]") if "lladdr" in raw]


def remember(pod: Pod) -> None:
    """Write down how the interface is; a set-up that was killed before it took anything may have done so too.

    Everybody may read it, for ``host status``; only root may write it.
    """
    files.write(record(), json.dumps(pod.as_dict()), mode=0o644)


def take(pod: Pod, addresses: Sequence[str]) -> None:
    """Make the interface a port of the bridge, and take its addresses; its routes go with them.

    :param addresses: those that it has.
    :raises CfctlError: if the kernel refuses.
    """
    _ip(
        [
            f"link set dev {pod.interface} master {ETHERNET_BRIDGE.name}",
            # The network outside may send the VM's own broadcasts back: they must not be learned from.
            f"link set dev {pod.interface} type bridge_slave learning off",
        ]
    )
    if addresses:
        # Of IPv4 alone, which ip's batch mode cannot say.
        process.run(["ip", "-4", "addr", "flush", "dev", pod.interface], timeout=_TIMEOUT_S)


def give_back(pod: Pod) -> None:
    """Give the interface its addresses and routes again, then take it out of the bridge.

    :raises CfctlError: if the kernel refuses; it can be tried again.
    """
    # It was up, or it would have had no routes.
    up = f"link set dev {pod.interface} up"
    _ip([up, *(f"addr replace {address} dev {pod.interface}" for address in pod.addresses)])
    _ip(mend_routes(pod.routes, routes_of(routes(), pod.interface)))
    # The kernel forgets them with the last address.
    _ip([f"neigh replace {entry} nud permanent dev {pod.interface}" for entry in pod.neighbours])
    _ip([f"link set dev {pod.interface} nomaster"])
    note(f"{pod.interface} has {pod.address} again.")


def _ip(lines: Sequence[str]) -> None:
    script = "".join(f"{line}\n" for line in lines if line)
    if not script:
        return
    try:
        process.run(["ip", "-batch", "-"], stdin=script, timeout=_TIMEOUT_S)
    except CommandFailed as exc:
        raise CfctlError(
            "the pod's interface could not be changed",
            exc.output.strip(),
            "Run it again to go on, or give everything back: cfctl host teardown",
        ) from exc
