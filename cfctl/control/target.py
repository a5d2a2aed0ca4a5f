"""A VM to talk to: where its sockets lie, and who made them.

It is a matter of paths only, so that a device of cfctl's, of cvd's or in a container is the same to whoever asks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cfctl.control.faults import VmUnreachable
from cfctl.control.operations import Manager

#: Below an instance's socket directory (vm_control.md section 4.1).
_MONITOR = "launcher_monitor.sock"
_INTERNAL = "internal"
_CROSVM = "crosvm_control.sock"
_QMP = "qemu_monitor.sock"


@dataclass(frozen=True, slots=True)
class VmTarget:
    """One running VM.

    :param name: for people: ``phone`` or ``phone/2``.
    :param manager: what runs it.
    :param sockets: the instance's socket directory, as this process sees it.
    :param crosvm: crosvm's program, for where the running one's own cannot be had; None if it is not known.
    :param inside: the same directory as the VM's processes see it, where that is another path: in a container.
    """

    name: str
    manager: Manager
    sockets: Path
    crosvm: Path | None = None
    inside: Path | None = None

    @classmethod
    def at(cls, sockets: Path, name: str, *, crosvm: Path | None = None, inside: Path | None = None) -> VmTarget:
        """Return the VM whose sockets lie in a directory; which manager it has is seen by which socket there is.

        :raises VmUnreachable: if there is neither.
        """
        for manager, socket in ((Manager.CROSVM, _CROSVM), (Manager.QEMU, _QMP)):
            if (sockets / _INTERNAL / socket).exists():
                return cls(name, manager, sockets, crosvm, inside)
        raise VmUnreachable(
            f"{name} has no VM that could be asked",
            f"There is neither {_CROSVM} nor {_QMP} in {sockets / _INTERNAL}.",
            f"See what it does: cfctl status {name}",
        )

    @property
    def internal(self) -> Path:
        """The directory of the VM's own sockets; whoever asks the VM something holds its lock."""
        return self.sockets / _INTERNAL

    @property
    def socket(self) -> Path:
        """The VM manager's socket."""
        return self.internal / (_CROSVM if self.manager is Manager.CROSVM else _QMP)

    @property
    def monitor(self) -> Path:
        """run_cvd's socket."""
        return self.sockets / _MONITOR

    def as_the_vm_sees(self, path: Path) -> str:
        """Return how the VM's processes call a path below the socket directory."""
        return os.fspath((self.inside or self.sockets) / path.relative_to(self.sockets))
