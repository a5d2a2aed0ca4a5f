"""Pod mode: the VM gets the pod's own address, as long as ``cfctl host setup --pod`` is in force.

Set-up and tear-down are the host's own, with another desired state; what is here is what only a pod needs.
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import DeadlinePassed, HostLacks, UsageError
from cfctl.hostres import container, dnsmasq, host, observed, plan, pod, pod_interface, pod_state, tap
from cfctl.hostres.plan import Plan
from cfctl.instance import ETHERNET_BRIDGE
from cfctl.steps import note

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.config import Settings

_RESOLV_CONF = Path("/etc/resolv.conf")

#: Between two looks at the lease while it is waited for, and at the DHCP server afterwards.
_POLL_S = 0.2
_WATCH_S = 2.0


def check(settings: Settings, *, named: bool = False, force: bool = False) -> Plan:
    """Return the plan of a set-up that may be carried out.

    :param named: the network namespace was named by its path.
    :raises NotAPod: in the host's own network namespace, or outside of any container.
    :raises HostLacks: if the pod has nothing to give, or dnsmasq is too old.
    :raises UsageError: if devices with a network of their own are served here.
    :raises CfctlError: see :func:`cfctl.hostres.host.check`.
    """
    container.require(named=named)
    for command in ("ip", "nft", "dnsmasq"):
        process.require(command)
    _require_shared_network()
    found = observed.read(())
    if found.pod is None and found.ours:
        raise UsageError(
            f"this host serves {found.instances} instances with a network of their own",
            "In pod mode one instance has the pod's address, and there are no others. Nothing was changed.",
            "Take it down first: cfctl host teardown",
        )
    work = plan.compute(pod_state.state(_pod(found), settings["host.dns_servers"]), found)
    host.refuse(work, settings, "cfctl host setup --pod --force", force=force)
    return work


def setup(settings: Settings, *, named: bool = False, force: bool = False) -> Plan:
    """Give the VM of instance 1 the pod's address, by doing no more than is missing.

    :return: what was done.
    :raises NeedsRoot: for an ordinary user, before anything is read.
    :raises CfctlError: see :func:`check`; if a step fails in a pod that had nothing of ours, all is taken back.
    """
    return host.carry_out("host setup --pod", lambda: check(settings, named=named, force=force))


def run(
    settings: Settings,
    *,
    deadline_s: float,
    stop: threading.Event,
    named: bool = False,
    confirmed: Callable[[str], None] = lambda address: None,
) -> Plan:
    """Set up, wait until the VM has confirmed its address, and stay until ``stop``; then take everything down.

    A DHCP server that ends is started again.

    :param deadline_s: seconds that the VM has for it.
    :param stop: set by whoever wants it to end.
    :param confirmed: is told the address when the VM has it.
    :return: what the tear-down did.
    :raises DeadlinePassed: if the VM did not confirm; the pod is as before.
    :raises CfctlError: see :func:`setup`; the pod is as before then too.
    """
    work = setup(settings, named=named)
    try:
        assert work.desired.pod is not None  # noqa: S101 (it is what the state is made of)
        address = work.desired.pod.address.partition("/")[0]
        note(f"Waiting for a VM to confirm {address}, at most {deadline_s:g} s: cfctl launch NAME")
        _wait_for_lease(address, deadline_s, stop)
        if not stop.is_set():
            confirmed(address)
        while not stop.wait(_WATCH_S):
            if not dnsmasq.running([ETHERNET_BRIDGE.name]):
                note("The DHCP server has ended; it is started again.")
                setup(settings, named=named)
    finally:
        # A VM that is still up ends with the container.
        done = host.teardown(force=True)
    return done


def _wait_for_lease(address: str, deadline_s: float, stop: threading.Event) -> None:
    deadline = time.monotonic() + deadline_s
    while not stop.is_set():
        up = pod_state.INSTANCE.number in tap.busy_numbers()
        # A lease may be from a VM that has ended.
        if up and any(lease.address == address for lease in dnsmasq.guests()):
            return
        if time.monotonic() >= deadline:
            seen = "A VM is running, but has not asked for the address." if up else "No VM is running."
            raise DeadlinePassed(
                f"no VM has confirmed {address} within {deadline_s:g} s",
                f"{seen} The pod has its address back.",
                "Start the device while it waits: cfctl launch NAME\nOr give it more time: --deadline SECONDS",
            )
        stop.wait(_POLL_S)


def _pod(found: observed.Observed) -> pod.Pod:
    """Return the pod's network: as it was written down if it has been changed since, else as it is."""
    if found.pod and found.pod.taken:
        return found.pod.pod
    try:
        resolv_conf = _RESOLV_CONF.read_text(errors="replace")
    except OSError:
        resolv_conf = ""
    return pod.discover(
        observed.interfaces(), pod_interface.routes(), resolv_conf, socket.gethostname(), pod_interface.neighbours()
    )


def _require_shared_network() -> None:
    if "--shared-network" not in process.run(["dnsmasq", "--help"], timeout=10, success=None).stdout:
        raise HostLacks(
            "dnsmasq is too old for pod mode",
            "It must serve a subnet in which it has no address itself (--shared-network, since 2.81).",
            "Install dnsmasq 2.81 or newer in the image",
        )
