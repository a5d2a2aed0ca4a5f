"""Graphics: what this host can draw with, which mode that makes, and why not a better one.

Usage::

    decision = gpu.choose("auto", vm_manager=gpu.CROSVM, guest=gpu.guest.read(images))
    print(decision.mode, decision.reason)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.gpu import decide, guest
from cfctl.gpu.decide import CROSVM, GEM5, QEMU, Decision, ModeVerdict
from cfctl.gpu.guest import Guest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CROSVM", "GEM5", "QEMU", "Decision", "Guest", "ModeVerdict", "choose", "guest"]


def choose(wanted: str, *, vm_manager: str, guest: Guest, package: Path | None = None) -> Decision:
    """Choose the graphics mode of a device.

    Takes 0.1 s, or 20 s with a driver that hangs. Where the host cannot change the answer it is not asked, and the
    decision has no verdicts: for a guest that wants to draw on its own CPU, and modes like guest_swiftshader.

    :param wanted: ``auto``, or a mode: then it is kept, and the reason warns if it will not work.
    :param vm_manager: ``crosvm``, ``qemu_cli`` or ``gem5``.
    :param guest: what the guest's images say.
    :param package: the host package, whose graphics_detector is asked too, where it has one.
    :raises UsageError: for a mode or a VM manager that does not exist, and a mode that the guest does not have.
    """
    if settled := decide.without_probe(wanted, vm_manager=vm_manager, guest=guest):
        return settled
    from cfctl.gpu import detector, probe

    found = probe.probe(graphics_detector=detector.find(package), qemu=vm_manager == QEMU)
    return decide.decide(found, guest=guest, vm_manager=vm_manager, wanted=wanted)
