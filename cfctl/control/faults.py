"""What goes wrong between cfctl and a running VM, whichever socket it is asked over."""

from __future__ import annotations

from typing import Any

from cfctl.errors import CfctlError, DeadlinePassed, HostLacks, NotRunning


class VmCannot(HostLacks):
    """The VM manager, or its version, cannot do it; nothing was sent to it."""

    code = "vm-cannot"


class VmBusy(CfctlError):
    """Somebody else is asking the VM something, or it takes no more clients; nothing was sent to it."""

    code = "vm-busy"


class VmUnreachable(NotRunning):
    """Nobody listens on the VM's socket, or whoever does is not the VM manager; nothing was sent to it."""

    code = "vm-unreachable"


class VmRefused(CfctlError):
    """The VM manager answered that it did not do it, or something that is not understood.

    :param reply: its answer, as it came; None if it closed the connection instead.
    """

    code = "vm-refused"

    def __init__(self, brief: str, details: str | None = None, resolution: str | None = None, *, reply: Any) -> None:
        super().__init__(brief, details, resolution)
        self.reply = reply


class VmSilent(DeadlinePassed):
    """The VM manager did not answer in time. The connection is closed; whether it is still done is not known."""

    code = "vm-silent"
