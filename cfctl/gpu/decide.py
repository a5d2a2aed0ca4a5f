"""Choose the graphics mode: a pure function of what was found, of the guest and of the VM manager.

The rule of ``auto``, which differs from upstream's on purpose (docs/gpu.md): gfxstream on any GPU, discrete or
integrated, that draws both OpenGL ES and Vulkan; drm_virgl on one that draws only OpenGL ES; guest_swiftshader
otherwise. Never by itself on ARM hosts, under QEMU, or on a GPU that another machine lends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.errors import UsageError
from cfctl.gpu import lacks, modes
from cfctl.gpu.lacks import Lack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfctl.gpu.probe import Probe, VulkanDevice

CROSVM = "crosvm"
QEMU = "qemu_cli"
GEM5 = "gem5"

#: All modes that gem5 knows (android-cuttlefish ``host/libs/vm_manager/gem5_manager.cpp``).
_GEM5_MODES = (modes.GFXSTREAM, modes.GUEST_SWIFTSHADER, modes.GUEST_LAVAPIPE, modes.NONE)

#: VM managers under which ``auto`` always means guest_swiftshader, and why.
_NEVER_BY_ITSELF = {
    QEMU: "under QEMU the guest draws on its own CPU: an accelerated screen could only be seen over VNC",
    GEM5: "under gem5 the guest draws on its own CPU",
}

#: From this kernel on KVM maps memory of the amdgpu driver into a guest, which gfxstream_guest_angle needs.
_KVM_MAPS_AMDGPU = (6, 13)

_AMD = 0x1002


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
    """

    mode: str
    reason: str
    modes: tuple[ModeVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything a verdict depends on."""

    probe: Probe
    guest_gfxstream: bool | None
    vm_manager: str

    @property
    def gpu(self) -> VulkanDevice | None:
        """The best hardware Vulkan device: a discrete one, wherever it stands in the list."""
        return lacks.best_gpu(self.probe)

    @property
    def arm(self) -> bool:
        return self.probe.facts.arch.startswith(("aarch64", "arm"))


def decide(
    probe: Probe, *, guest_gfxstream: bool | None = None, vm_manager: str = CROSVM, wanted: str = modes.AUTO
) -> Decision:
    """Choose a mode.

    :param probe: what was found on the host.
    :param guest_gfxstream: the guest says ``gfxstream=supported``; None when nobody knows, which counts as no.
    :param vm_manager: ``crosvm``, ``qemu_cli`` or ``gem5``.
    :param wanted: ``auto``, or a mode: it is kept even when it will not work, with a reason that says so.
    :raises UsageError: for a mode or a VM manager that does not exist.
    """
    check(wanted, vm_manager=vm_manager)
    case = _Case(probe, guest_gfxstream, vm_manager)
    verdicts = {mode: _verdict(case, mode) for mode in modes.MODES}
    mode, reason = _auto(case, verdicts) if wanted == modes.AUTO else (wanted, _explicit(verdicts[wanted]))
    return Decision(mode, reason, tuple(verdicts.values()))


def check(wanted: str, *, vm_manager: str) -> None:
    """Look whether both names exist.

    :raises UsageError: if one does not, with those that do.
    """
    modes.check(wanted)
    if vm_manager not in (CROSVM, QEMU, GEM5):
        raise UsageError(f"there is no VM manager {vm_manager!r}", f"VM managers: {CROSVM}, {QEMU}, {GEM5}.")


def without_probe(wanted: str, *, vm_manager: str) -> Decision | None:
    """Return the decision if nothing that could be found on the host would change it.

    :raises UsageError: for a mode or a VM manager that does not exist.
    """
    check(wanted, vm_manager=vm_manager)
    if wanted in modes.HOST_INDEPENDENT:
        return Decision(wanted, _explicit(_host_independent(wanted, vm_manager)))
    if wanted == modes.AUTO and vm_manager in _NEVER_BY_ITSELF:
        return Decision(modes.GUEST_SWIFTSHADER, _NEVER_BY_ITSELF[vm_manager])
    return None


def _explicit(verdict: ModeVerdict) -> str:
    """Return the reason for a mode that was asked for."""
    if verdict.works:
        return f"asked for; {verdict.why}"
    warning = f"asked for and kept, but it will probably not work: {verdict.why}"
    return f"{warning}. {verdict.help}" if verdict.help else warning


# -- auto --------------------------------------------------------------------------------------------------


def _auto(case: _Case, verdicts: Mapping[str, ModeVerdict]) -> tuple[str, str]:
    """Return the mode that ``auto`` means here, and the reason."""
    gfxstream, virgl = verdicts[modes.GFXSTREAM], verdicts[modes.DRM_VIRGL]
    best = gfxstream if gfxstream.works else virgl
    if not best.works:
        return modes.GUEST_SWIFTSHADER, gfxstream.why
    if against := _not_by_itself(case, best.mode):
        return modes.GUEST_SWIFTSHADER, f"{against}; if you want it, ask for it: --gpu {best.mode}"
    if best is gfxstream:
        return modes.GFXSTREAM, gfxstream.why
    return modes.DRM_VIRGL, f"{virgl.why}; gfxstream will not work: {gfxstream.why}"


def _not_by_itself(case: _Case, mode: str) -> str | None:
    """Return why ``auto`` stays away from an accelerated mode that would work."""
    if case.arm:
        return f"{mode} is not chosen by itself on an ARM host"
    if case.vm_manager in _NEVER_BY_ITSELF:
        return _NEVER_BY_ITSELF[case.vm_manager]
    if mode == modes.DRM_VIRGL:
        if case.guest_gfxstream is None:
            return "it is not known what the guest can draw with"
        if lacks.gles_kind(case.probe) == "virtual":
            return "this host is a virtual machine, and its GPU is lent by another one"
        if not any(node.usable for node in case.probe.facts.nodes):
            return "virglrenderer draws through a render node in /dev/dri, and there is none that this user may open"
    return None


# -- one mode each -----------------------------------------------------------------------------------------


def _host_independent(mode: str, vm_manager: str) -> ModeVerdict:
    """Return the verdict about a mode that asks nothing of the host's drivers."""
    if vm_manager == GEM5 and mode not in _GEM5_MODES:
        return ModeVerdict(mode, works=False, why="gem5 does not have it", help=f"gem5 has: {', '.join(_GEM5_MODES)}")
    if mode == modes.CUSTOM and vm_manager != CROSVM:
        return ModeVerdict(mode, works=False, why="only crosvm has it", help="Use crosvm: --vm_manager=crosvm")
    if mode == modes.CUSTOM:
        return ModeVerdict(mode, works=True, why="it depends on the flags given with it; it was not checked")
    if mode == modes.GUEST_LAVAPIPE:
        why = "only guests that bring lavapipe have it (vulkan_lavapipe_apex=supported), and that is not known"
        return ModeVerdict(mode, works=False, why=why, help="Use images that bring it.")
    if mode == modes.NONE:
        return ModeVerdict(mode, works=True, why="it needs nothing, and shows nothing")
    return ModeVerdict(mode, works=True, why="it draws on the guest's CPU and needs nothing of this host")


def _verdict(case: _Case, mode: str) -> ModeVerdict:
    if mode in modes.HOST_INDEPENDENT or (case.vm_manager == GEM5 and mode not in _GEM5_MODES):
        return _host_independent(mode, case.vm_manager)
    lack, why = _RULES[mode](case)
    if lack is not None:
        return ModeVerdict(mode, works=False, why=lack.why, help=lack.help)
    return ModeVerdict(mode, works=True, why=why)


def _gfxstream(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.hardware_gles(case.probe) or lacks.hardware_vulkan(case.probe) or _guest(case)
    return lack, f"OpenGL ES and Vulkan are drawn by {case.gpu.name}" if case.gpu else ""


def _guest_angle(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.hardware_vulkan(case.probe) or _amd_on_old_kernel(case) or _guest(case)
    return lack, f"Vulkan is drawn by {case.gpu.name}" if case.gpu else ""


def _virgl(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.any_gpu_gles(case.probe)
    return lack, f"OpenGL is drawn by {lacks.gles_renderer(case.probe)}"


def _host_cpu(case: _Case) -> tuple[Lack | None, str]:
    lack = lacks.vulkan_library(case.probe) or _x86(case) or _guest(case)
    return lack, "Vulkan is drawn on this host's CPU, with what the host package brings"


_RULES: dict[str, Callable[[_Case], tuple[Lack | None, str]]] = {
    modes.GFXSTREAM: _gfxstream,
    modes.GUEST_ANGLE: _guest_angle,
    modes.DRM_VIRGL: _virgl,
    modes.HOST_SWIFTSHADER: _host_cpu,
    modes.HOST_LAVAPIPE: _host_cpu,
}


def _guest(case: _Case) -> Lack | None:
    if case.guest_gfxstream:
        return None
    if case.guest_gfxstream is None:
        return Lack("it is not known whether the guest supports gfxstream", "Look into its android-info.txt.")
    return Lack(
        "the guest does not support gfxstream",
        "Use images whose android-info.txt says gfxstream=supported.",
    )


def _x86(case: _Case) -> Lack | None:
    if not case.arm:
        return None
    return Lack("the host package brings the needed driver for x86 hosts only", None)


def _amd_on_old_kernel(case: _Case) -> Lack | None:
    if case.gpu is None or case.gpu.vendor_id != _AMD or kernel_version(case.probe.facts.kernel) >= _KVM_MAPS_AMDGPU:
        return None
    needed = ".".join(map(str, _KVM_MAPS_AMDGPU))
    return Lack(
        f"KVM of kernel {case.probe.facts.kernel} cannot map memory of AMD GPUs into a guest",
        f"Boot a kernel from {needed} on, or use gfxstream.",
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a ``uname -r``, whatever a distribution hangs on to it.

    (0, 0) for one that has none: upstream compares with semver and fails on every Fedora kernel.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
