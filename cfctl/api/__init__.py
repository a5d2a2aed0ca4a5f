"""The Python API: ``from cfctl import Host, Device``.

All of it is synchronous, prints nothing, and raises the errors of :mod:`cfctl.errors`, which say what happened, why,
and what mends it. Whoever wants to see what is going on installs a reporter: ``with cfctl.steps.reporting(...)``.
"""

from __future__ import annotations

from cfctl.api.device import Device
from cfctl.api.host import Change, Host, HostState
from cfctl.api.wares import chosen, embedded_package, kvm_trial
from cfctl.launch.observe import State

__all__ = ["Change", "Device", "Host", "HostState", "State", "chosen", "embedded_package", "kvm_trial"]
