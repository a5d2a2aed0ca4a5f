"""Choose the graphics mode: a pure function of what was found, of the guest and of the VM manager.

The rule of ``auto``, which differs from upstream's on purpose (docs/gpu.md): what the guest's images want, if they
say; otherwise gfxstream on any GPU, discrete or integrated, that draws both OpenGL ES and Vulkan; drm_virgl on one
that draws only OpenGL ES, or where the guest or the VM manager lacks gfxstream; guest_swiftshader otherwise. Never
accelerated by itself on ARM hosts, under gem5, or on a GPU that another machine lends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl import distro
from cfctl.errors import UsageError
from cfctl.gpu import guest as guests
from cfctl.gpu import lacks, modes, qemu, vendors
from cfctl.gpu.lacks import Lack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cfctl.gpu.drivers import VulkanDevice
    from cfctl.gpu.guest import Guest
    from cfctl.gpu.probe import Probe

CROSVM = "crosvm"
QEMU = "qemu_cli"
GEM5 = "gem5"

#: All modes that gem5 knows (android-cuttlefish ``host/libs/vm_manager/gem5_manager.cpp``).
_GEM5_MODES = (modes.GFXSTREAM, modes.GUEST_SWIFTSHADER, modes.GUEST_LAVAPIPE, modes.NONE)

#: What ``auto`` tries where the guest's images do not say, the best first; and where they prefer virgl.
_ORDER = (modes.GFXSTREAM, modes.DRM_VIRGL, modes.GUEST_SWIFTSHADER)
_VIRGL_FIRST = (modes.DRM_VIRGL, modes.GFXSTREAM, modes.GUEST_SWIFTSHADER)

#: Modes that draw on the host's GPU.
_ACCELERATED = frozenset({modes.GFXSTREAM, modes.GUEST_ANGLE, modes.DRM_VIRGL})

_UNDER_GEM5 = "under gem5 the guest draws on its own CPU"
_UNKNOWN_GUEST = "it is not known what the guest can draw with"


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """What is to be said about one mode.

    :param mode: its name.
    :param works: it would work on this host, with this guest.
    :param why: the reason, one sentence.
    :param help: what would make it work; None when it works or nothing helps.
    """

    mode: str
    works: bool
    why: str
    help: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The mode that was chosen.

    :param mode: one of the modes, never ``auto``.
    :param reason: why this one and why not a better one.
    :param modes: a verdict about every mode; empty when nothing had to be probed.
    :param works: False for a mode that was asked for, is kept, and will probably not work.
    """

    mode: str
    reason: str
    modes: tuple[ModeVerdict, ...] = ()
    works: bool = True


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything a verdict depends on."""

    probe: Probe
    guest: Guest
    vm_manager: str

    @property
    def gpu(self) -> VulkanDevice | None:
        """The best hardware Vulkan device: a discrete one, wherever it stands in the list."""
        return lacks.best_gpu(self.probe)

    @property
    def arm(self) -> bool:
        return self.probe.facts.arch.startswith(("aarch64", "arm"))


def decide(
    probe: Probe, *, guest: Guest = guests.UNKNOWN, vm_manager: str = CROSVM, wanted: str = modes.AUTO
) -> Decision:
    """Choose a mode.

    :param probe: what was found on the host.
    :param guest: what the guest's images say.
    :param vm_manager: ``crosvm``, ``qemu_cli`` or ``gem5``.
    :param wanted: ``auto``, or a mode: it is kept even when it will not work, with a reason that says so.
    :raises UsageError: for a mode or a VM manager that does not exist, and a mode that the guest does not have.
    """
    check(wanted, vm_manager=vm_manager, guest=guest)
    case = _Case(probe, guest, vm_manager)
    verdicts = {mode: _verdict(case, mode) for mode in modes.MODES}
    if wanted == modes.AUTO:
        mode, reason = _auto(case, verdicts)
        return Decision(mode, reason, tuple(verdicts.values()))
    return _explicit(verdicts[wanted], tuple(verdicts.values()))


def check(wanted: str, *, vm_manager: str, guest: Guest = guests.UNKNOWN) -> None:
    """Look whether both names exist, and whether the guest has the mode.

    :raises UsageError: if not, with those that do.
    """
    modes.check(wanted)
    if vm_manager not in (CROSVM, QEMU, GEM5):
        raise UsageError(f"there is no VM manager {vm_manager!r}", f"VM managers: {CROSVM}, {QEMU}, {GEM5}.")
    if guest.only and wanted not in (modes.AUTO, *guest.only):
        raise UsageError(
            f"this guest has no GPU mode {wanted}",
            f"Its modes are {', '.join(guest.only)}, says {guest.source}.",
            "Leave --gpu out, or launch Android: cfctl launch --host-package DIR --images DIR",
        )


def without_probe(wanted: str, *, vm_manager: str, guest: Guest = guests.UNKNOWN) -> Decision | None:
    """Return the decision if nothing that could be found on the host would change it.

    :raises UsageError: for a mode or a VM manager that does not exist, and a mode that the guest does not have.
    """
    check(wanted, vm_manager=vm_manager, guest=guest)
    if wanted in modes.HOST_INDEPENDENT:
        return _explicit(_host_independent(wanted, vm_manager, guest))
    if wanted != modes.AUTO:
        return None
    if guest.candidates:
        first = guest.candidates[0]
        if first in modes.HOST_INDEPENDENT and _host_independent(first, vm_manager, guest).works:
            return Decision(first, _wanted_by(guest))
    elif vm_manager == GEM5:
        return Decision(modes.GUEST_SWIFTSHADER, _UNDER_GEM5)
    elif not guest.known:
        return Decision(modes.GUEST_SWIFTSHADER, guest.problem or _UNKNOWN_GUEST)
    return None


def _explicit(verdict: ModeVerdict, verdicts: tuple[ModeVerdict, ...] = ()) -> Decision:
    """Return the decision for a mode that was asked for."""
    if verdict.works:
        return Decision(verdict.mode, f"asked for; {verdict.why}", verdicts)
    warning = f"asked for and kept, but it will probably not work: {verdict.why}"
    return Decision(verdict.mode, f"{warning}. {verdict.help}" if verdict.help else warning, verdicts, works=False)


# -- auto --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A mode that ``auto`` did not take.

    :param works: it would work, but not by itself.
    """

    mode: str
    why: str
    works: bool

    def __str__(self) -> str:
        return f"{self.why}; if you want it, ask for it: --gpu {self.mode}" if self.works else self.why


def _auto(case: _Case, verdicts: Mapping[str, ModeVerdict]) -> tuple[str, str]:
    """Return the mode that ``auto`` means here, and the reason."""
    guest = case.guest
    order = guest.candidates or (_VIRGL_FIRST if guest.prefer_virgl else _ORDER)
    refusals: list[_Refusal] = []
    for mode in order:
        verdict = verdicts[mode]
        if not verdict.works:
            refusals.append(_Refusal(mode, verdict.why, works=False))
        elif against := _not_by_itself(case, mode):
            refusals.append(_Refusal(mode, against, works=True))
        else:
            return mode, _reason(case, verdict, refusals)
    why = "; ".join(f"{refusal.mode}: {refusal}" for refusal in refusals)
    return modes.GUEST_SWIFTSHADER, f"no mode that the guest's images want will do: {why}"


def _reason(case: _Case, verdict: ModeVerdict, refusals: Sequence[_Refusal]) -> str:
    """Say why this mode and not one before it."""
    if verdict.mode not in _ACCELERATED:
        # A mode that would work tells more than one that does not.
        told = next((refusal for refusal in refusals if refusal.works), refusals[0] if refusals else None)
        return str(told) if told else _wanted_by(case.guest)
    reason = verdict.why
    if case.vm_manager == QEMU:
        reason += "; QEMU shows it over VNC alone, and the browser's screen needs --gpu guest_swiftshader"
    return "; ".join([reason, *(f"{refusal.mode} will not work: {refusal}" for refusal in refusals)])


def _wanted_by(guest: Guest) -> str:
    return f"the guest's images want it (gpu_mode_candidates in {guest.source})"


def _not_by_itself(case: _Case, mode: str) -> str | None:
    """Return why ``auto`` stays away from an accelerated mode that would work."""
    if mode not in _ACCELERATED:
        return None
    if case.arm:
        return f"{mode} is not chosen by itself on an ARM host"
    if case.vm_manager == GEM5:
        return _UNDER_GEM5
    if mode == modes.DRM_VIRGL:
        if not case.guest.known:
            return _UNKNOWN_GUEST
        if lacks.gles_kind(case.probe) == "virtual":
            return "this host is a virtual machine, and its GPU is lent by another one"
        if not any(node.usable for node in case.probe.facts.nodes):
            return "virglrenderer draws through a render node in /dev/dri, and there is none that this user may open"
    return None


# -- one mode each -----------------------------------------------------------------------------------------


def _host_independent(mode: str, vm_manager: str, guest: Guest) -> ModeVerdict:
    """Return the verdict about a mode that asks nothing of the host's drivers."""
    if vm_manager == GEM5 and mode not in _GEM5_MODES:
        return ModeVerdict(mode, works=False, why="gem5 does not have it", help=f"gem5 has: {', '.join(_GEM5_MODES)}")
    if mode == modes.CUSTOM and vm_manager != CROSVM:
        return ModeVerdict(mode, works=False, why="only crosvm has it", help="Use crosvm: --vm_manager=crosvm")
    if mode == modes.CUSTOM:
        return ModeVerdict(mode, works=True, why="it depends on the flags given with it; it was not checked")
    if mode == modes.GUEST_LAVAPIPE and not (guest.lavapipe or mode in guest.only):
        known = "this one does not say so" if guest.known else "that is not known"
        why = f"only guests that bring lavapipe have it (vulkan_lavapipe_apex=supported), and {known}"
        return ModeVerdict(mode, works=False, why=why, help="Use images that bring it.")
    if mode == modes.NONE:
        return ModeVerdict(mode, works=True, why="it needs nothing, and shows nothing")
    return ModeVerdict(mode, works=True, why="it draws on the guest's CPU and needs nothing of this host")


def _verdict(case: _Case, mode: str) -> ModeVerdict:
    if mode in modes.HOST_INDEPENDENT or (case.vm_manager == GEM5 and mode not in _GEM5_MODES):
        return _host_independent(mode, case.vm_manager, case.guest)
    if case.guest.only and mode not in case.guest.only:
        why = f"this guest does not have it, says {case.guest.source}"
        return ModeVerdict(mode, works=False, why=why, help="Launch Android: cfctl launch --host-package DIR")
    lack, why = _RULES[mode](case)
    if lack is not None:
        return ModeVerdict(mode, works=False, why=lack.why, help=lack.help)
    return ModeVerdict(mode, works=True, why=why)


def _gfxstream(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.hardware_gles(case.probe) or lacks.hardware_vulkan(case.probe) or _streams(case)
    return lack, f"OpenGL ES and Vulkan are drawn by {case.gpu.name}" if case.gpu else ""


def _guest_angle(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.hardware_vulkan(case.probe) or _old_kernel(case) or _streams(case)
    return lack, f"Vulkan is drawn by {case.gpu.name}" if case.gpu else ""


def _virgl(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.any_gpu_gles(case.probe) or _qemu_virgl(case)
    return lack, f"OpenGL is drawn by {lacks.gles_renderer(case.probe)}"


def _host_cpu(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.vulkan_library(case.probe) or _x86(case) or _streams(case)
    return lack, "Vulkan is drawn on this host's CPU, with what the host package brings"


_RULES: dict[str, Callable[[_Case], tuple[Lack | None, str]]] = {
    modes.GFXSTREAM: _gfxstream,
    modes.GUEST_ANGLE: _guest_angle,
    modes.DRM_VIRGL: _virgl,
    modes.HOST_SWIFTSHADER: _host_cpu,
    modes.HOST_LAVAPIPE: _host_cpu,
}


def _streams(case: _Case) -> Lack | None:
    """Return what keeps the guest or the VM manager from gfxstream."""
    if not case.guest.gfxstream:
        if not case.guest.known:
            why = case.guest.problem or "it is not known whether the guest supports gfxstream"
            return Lack(why, f"Look into its {guests.INFO}.")
        return Lack(
            "the guest does not support gfxstream",
            f"Use images whose {guests.INFO} says gfxstream=supported.",
        )
    if case.vm_manager == QEMU and not (case.probe.qemu and case.probe.qemu.gfxstream):
        why = f"the installed QEMU lacks gfxstream (the device {qemu.GFXSTREAM_DEVICE})"
        return Lack(_qemu_problem(case) or why, "Use crosvm: --vm_manager=crosvm")
    return None


def _qemu_virgl(case: _Case) -> Lack | None:
    """Return what keeps QEMU from virgl."""
    if case.vm_manager != QEMU or (case.probe.qemu and case.probe.qemu.virgl):
        return None
    why = f"the installed QEMU lacks virgl (the device {qemu.VIRGL_DEVICE})"
    return Lack(_qemu_problem(case) or why, f"Install it: {distro.install_command(qemu.VIRGL_DEVICE)}")


def _qemu_problem(case: _Case) -> str | None:
    found = case.probe.qemu
    return "there is no QEMU for this processor" if found is None else found.problem


def _x86(case: _Case) -> Lack | None:
    if not case.arm:
        return None
    return Lack("the host package brings the needed driver for x86 hosts only", None)


def _old_kernel(case: _Case) -> Lack | None:
    """Return that KVM of this kernel cannot show the GPU's memory to a guest."""
    vendor = vendors.by_pci(case.gpu.vendor_id) if case.gpu else None
    if vendor is None and case.gpu and "amd" in case.gpu.name.lower():
        # The detector gives names alone.
        vendor = vendors.load()["amd"]
    if vendor is None or kernel_version(case.probe.facts.kernel) >= vendor.kvm_maps_from:
        return None
    needed = ".".join(map(str, vendor.kvm_maps_from))
    return Lack(
        f"KVM of kernel {case.probe.facts.kernel} cannot map memory of {vendor.name} GPUs into a guest",
        f"Boot a kernel from {needed} on, or use gfxstream.",
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a ``uname -r``, whatever a distribution hangs on to it.

    (0, 0) for one that has none: upstream compares with semver and fails on every Fedora kernel.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
