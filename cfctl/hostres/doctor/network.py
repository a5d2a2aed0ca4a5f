"""Subnets and ports that devices need, and the services that like to take over new interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.hostres import safety
from cfctl.hostres.doctor.finding import Finding
from cfctl.instance import BRIDGES, MAX_INSTANCES, Instance, instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts
    from cfctl.hostres.safety import Route

#: State "listen" in /proc/net/tcp (net/tcp_states.h).
_LISTEN = "0A"

#: ICE over TCP and UDP (launcher.md section 7).
_WEBRTC_PORTS = range(15550, 15600)
#: The operator of upstream's cuttlefish-user, HTTP and HTTPS, and the orchestrator's.
_OPERATOR_PORTS = (1080, 1443, 2080, 2443)
_OPERATORS = {"cuttlefish-oper", "operator", "host_orchestra", "cvd_host_orches", "nginx"}
#: QEMU's VNC display 544 + N - 1.
_VNC = 6444


def checks(facts: Facts) -> Iterator[Finding]:
    """Check subnets, ports and network managers."""
    yield _subnets(facts)
    yield _ports(facts)
    yield _outgoing(facts)
    yield from _managers(facts)


# -- subnets -------------------------------------------------------------------------------------------------


def _subnets(facts: Facts) -> Finding:
    check, why = "subnets", "What else uses the subnets of the devices would not be reached any more."
    if facts.routes is None:
        command = facts.install("iproute2", "iproute")
        return Finding(check, "warn", "not known: the routes could not be read", why, command)
    wanted: list[safety.Network] = [*(facts.subnets or ())]
    if facts.subnets is None:
        served = instances(min(max(facts.instances, 0), MAX_INSTANCES))
        wanted += [net for one in served for net in (one.mobile.network, one.wifi_ap.network)]
        wanted += [bridge.network for bridge in BRIDGES if served]
    found = safety.clashes(wanted, [route for route in facts.routes if not route.device.startswith("cvd-")])
    if not found:
        return Finding(check, "ok", f"free for {facts.instances} devices", why)
    routes = list(dict.fromkeys(route for _, route in found))
    shown = "; ".join(str(route) for route in routes[:3]) + (" ..." if len(routes) > 3 else "")
    help_ = f"Give the devices other subnets, which this proposes: cfctl host plan\nOr: {_elsewhere(routes[0])}"
    return Finding(check, "fail", f"taken: {shown}", why, help_)


def _elsewhere(route: Route) -> str:
    if route.device.startswith(("docker", "br-")):
        pool = '{"default-address-pools": [{"base": "172.16.0.0/12", "size": 20}]}'
        return f"Give Docker other networks, in /etc/docker/daemon.json: {pool}; then make its network anew."
    if route.device.startswith("virbr"):
        return "Change the network's <ip address=...>: sudo virsh net-edit default"
    return f"Move that network, or while the host serves devices: sudo {route.removal}"


# -- ports ---------------------------------------------------------------------------------------------------


def _listening(facts: Facts) -> set[int]:
    ports = set()
    for name in ("proc/net/tcp", "proc/net/tcp6"):
        for line in facts.read(name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _wanted_ports(facts: Facts) -> dict[int, str]:
    """Return the ports that must be free, with what for; those of devices that are up are theirs."""
    wanted: dict[int, str] = {}
    for one in instances(min(max(facts.instances, 0), MAX_INSTANCES)):
        if facts.read(f"sys/class/net/{one.ethernet_tap}/carrier") != "1":
            wanted[one.adb_port] = f"ADB of {one.id}"
    for one in instances(min(max(facts.instances, 0), MAX_INSTANCES)):
        if facts.read(f"sys/class/net/{one.ethernet_tap}/carrier") != "1":
            wanted.setdefault(_VNC + one.number - 1, f"VNC of {one.id} under QEMU")
    if not facts.services & _OPERATORS:
        wanted |= dict.fromkeys(_OPERATOR_PORTS, "screens of devices")
    return wanted


def _ports(facts: Facts) -> Finding:
    check, why = "ports", f"ADB of device N is at {Instance(1).adb_port - 1} + N; screens and VNC have ports too."
    wanted = _wanted_ports(facts)
    taken = sorted(_listening(facts) & set(wanted))
    if not taken:
        return Finding(check, "ok", f"free for {facts.instances} devices", why)
    shown = ", ".join(f"{port} ({wanted[port]})" for port in taken[:5]) + (" ..." if len(taken) > 5 else "")
    look = f"See who has it: sudo ss -ltnp 'sport = :{taken[0]}'"
    return Finding(
        check, "fail" if any("ADB" in wanted[port] for port in taken) else "warn", f"taken: {shown}", why, look
    )


def _outgoing(facts: Facts) -> Finding:
    check, why = (
        "port range",
        "An outgoing connection of another program may get a device's port just before it starts.",
    )
    fields = facts.read("proc/sys/net/ipv4/ip_local_port_range").split()
    if len(fields) != 2 or not all(field.isdecimal() for field in fields):
        return Finding(check, "warn", "not known", why, "sysctl net.ipv4.ip_local_port_range")
    low, high = map(int, fields)
    adb = range(Instance(1).adb_port, Instance(MAX_INSTANCES).adb_port + 1)
    reserved = f"{adb[0]}-{adb[-1]},{_WEBRTC_PORTS[0]}-{_WEBRTC_PORTS[-1]}"
    touched = any(low <= ports[-1] and ports[0] <= high for ports in (adb, _WEBRTC_PORTS))
    if not touched or facts.read("proc/sys/net/ipv4/ip_local_reserved_ports"):
        return Finding(check, "ok", f"outgoing connections use {low} to {high}", why)
    command = f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={reserved}"
    return Finding(check, "warn", f"outgoing connections use {low} to {high}, also devices' ports", why, command)


# -- network managers ----------------------------------------------------------------------------------------


def _managers(facts: Facts) -> Iterator[Finding]:
    if "NetworkManager" in facts.services:
        check, why = "NetworkManager", "It would take addresses off the taps and bridges, or ask for some on them."
        places = ("etc/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d", "run/NetworkManager/conf.d")
        files = [file for place in places for file in sorted(facts.path(place).glob("*.conf"))]
        if any("cvd-" in facts.read(str(file.relative_to(facts.sysroot))) for file in files):
            yield Finding(check, "ok", "leaves cvd-* alone", why)
        else:
            lines = "[keyfile]\\nunmanaged-devices=interface-name:cvd-*\\n"
            target = "/etc/NetworkManager/conf.d/99-cuttlefish.conf"
            command = f"printf '{lines}' | sudo tee {target} && sudo systemctl reload NetworkManager"
            yield Finding(check, "warn", "is not told to leave cvd-* alone", why, command)
