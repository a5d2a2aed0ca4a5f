"""How a pod should be while its VM has its address: the state of one instance, with another ethernet bridge.

The guest's MAC is the launcher's choice (``Instance.ethernet_mac``), but many networks accept no other than the
pod's. So the pod's interface keeps its MAC, and rules on the bridge put the one in the place of the other, in frames
and in ARP: the network outside sees the pod's MAC, the guest sees its own.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from cfctl import paths
from cfctl.hostres import desired, dnsmasq, nft
from cfctl.hostres.desired import Address, State
from cfctl.instance import ETHERNET_BRIDGE, Instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.hostres.pod import Pod

#: The instance that has the pod's address.
INSTANCE = Instance(1)

#: The DHCP server's own address: link-local, so that it is in nobody's way.
SERVICE = IPv4Interface("169.254.75.10/30")

#: Without MTU and address the VM would not work; the client asks for the rest by number (RFC 2132, RFC 3442).
_MTU = "26"
_ROUTER = "option:router"
_ROUTES = "option:classless-static-route"


def state(pod: Pod, dns_servers: Sequence[str]) -> State:
    """Return the state of a pod whose VM has the pod's address.

    Nothing is forwarded and nothing translated but MACs, so no switch of the kernel is needed: in a container
    /proc/sys is read-only.

    :param dns_servers: for a pod whose own name servers the VM cannot reach.
    """
    links = dict(desired.build(1).links)
    bridge, tap = ETHERNET_BRIDGE.name, INSTANCE.ethernet_tap
    address = Address(str(SERVICE), str(SERVICE.network.broadcast_address))
    links[bridge] = replace(links[bridge], addresses=(address,))
    # A bridge has the smallest MTU of its ports.
    links[tap] = replace(links[tap], isolated=False, mtu=pod.mtu)
    return State(
        instances=1,
        links=links,
        tables={nft.POD: nft.pod_table(pod.interface, pod.mac, INSTANCE.ethernet_mac)},
        servers={bridge: server(pod, dns_servers)},
        pod=pod,
    )


def server(pod: Pod, dns_servers: Sequence[str]) -> dnsmasq.Server:
    """Return the DHCP server that answers one client, with one address."""
    own = IPv4Interface(pod.address)
    bridge, mac = ETHERNET_BRIDGE.name, INSTANCE.ethernet_mac
    argv = [
        "dnsmasq",
        "--port=0",
        "--except-interface=lo",
        f"--interface={bridge}",
        "--bind-interfaces",
        # The bridge has no address of the pod's subnet.
        f"--shared-network={bridge},{own.ip}",
        f"--dhcp-range={own.ip},static,{own.netmask},{own.network.broadcast_address},infinite",
        f"--dhcp-host={','.join(filter(None, [mac, str(own.ip), pod.hostname, 'infinite']))}",
        "--dhcp-ignore=tag:!known",
        "--dhcp-authoritative",
        f"--dhcp-option={_MTU},{pod.mtu}",
        f"--dhcp-option={','.join(['option:dns-server', *(pod.dns or dns_servers)])}",
        # Without a gateway the option is left out, or the server's own address would be given.
        f"--dhcp-option={','.join(filter(None, [_ROUTER, pod.gateway]))}",
    ]
    if pod.dhcp_routes:
        pairs = [f"{network},{gateway or '0.0.0.0'}" for network, gateway in pod.dhcp_routes]
        argv.append(f"--dhcp-option={_ROUTES},{','.join(pairs)}")
    if pod.search:
        argv.append(f"--dhcp-option=option:domain-search,{','.join(pod.search)}")
    argv += [
        "--conf-file=",
        f"--pid-file={paths.dnsmasq_pid_file(bridge)}",
        f"--dhcp-leasefile={paths.dnsmasq_lease_file(bridge)}",
        "--dhcp-no-override",
        dnsmasq.OURS,
    ]
    return dnsmasq.Server(bridge, tuple(argv))
