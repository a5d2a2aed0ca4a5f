"""Graphics: what this host can draw with, which mode that makes, and why not a better one.

Usage::

    decision = gpu.choose("auto", vm_manager=gpu.CROSVM, guest_supports_gfxstream=True)
    print(decision.mode, decision.reason)
"""

from __future__ import annotations

from cfctl.gpu import decide
from cfctl.gpu.decide import CROSVM, GEM5, QEMU, Decision, ModeVerdict

__all__ = ["CROSVM", "GEM5", "QEMU", "Decision", "ModeVerdict", "choose"]


def choose(wanted: str, *, vm_manager: str, guest_supports_gfxstream: bool | None) -> Decision:
    """Choose the graphics mode of a device.

    Takes 0.1 s, or 15 s with a driver that hangs. Where the host cannot change the answer it is not asked, and the
    decision has no verdicts: ``auto`` under another VM manager than crosvm, and modes like guest_swiftshader.

    :param wanted: ``auto``, or a mode: then it is kept, and the reason warns if it will not work.
    :param vm_manager: ``crosvm``, ``qemu_cli`` or ``gem5``.
    :param guest_supports_gfxstream: what the guest's ``android-info.txt`` says; None when it does not say.
    :raises UsageError: for a mode or a VM manager that does not exist.
    """
    if settled := decide.without_probe(wanted, vm_manager=vm_manager):
        return settled
    from cfctl.gpu import probe

    return decide.decide(
        probe.probe(), guest_gfxstream=guest_supports_gfxstream, vm_manager=vm_manager, wanted=wanted
    )
