"""The choice of the graphics mode, machine by machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfctl.errors import UsageError
from cfctl.gpu import decide, guest, modes
from cfctl.gpu.decide import Decision, kernel_version
from cfctl.gpu.decide import decide as decide_mode
from cfctl.gpu.qemu import Qemu
from tests.gpu.machines import ALL, CONSTRUCTED, EMBEDDED, MODERN, OLD, SOURCES

SWIFT = "guest_swiftshader"

#: machine -> what auto gives with a guest that supports gfxstream, and a part of the reason.
AUTO = {
    "llvmpipe only": (SWIFT, "OpenGL ES is drawn on the CPU, by llvmpipe"),
    "headless nvidia": ("gfxstream", "drawn by NVIDIA A40"),
    "nvidia, compute only": (SWIFT, "the NVIDIA GPU 0000:01:00.0 has no render node in /dev/dri"),
    "nvidia, nouveau": ("drm_virgl", "nouveau does not give the Vulkan that gfxstream needs"),
    "nvidia, updated without a reboot": (SWIFT, "kernel driver is 535.154.05, its libraries are 550.54.14"),
    "nvidia, mig slice": ("drm_virgl", "computes in Vulkan, but does not draw"),
    "nvidia, passed through": (SWIFT, "set aside for a virtual machine (driver vfio-pci)"),
    "amd, old kernel": ("gfxstream", "drawn by AMD Radeon RX 6800"),
    "amd, new kernel": ("gfxstream", "drawn by AMD Radeon RX 6800"),
    "amd, kernel 7": ("gfxstream", "drawn by AMD Radeon RX 6800"),
    "intel igpu": ("gfxstream", "drawn by Intel(R) UHD Graphics 630"),
    "intel igpu, not in group render": (SWIFT, "this user may not open /dev/dri/renderD128"),
    "old intel without vulkan": ("drm_virgl", "drawn by Mesa DRI Intel(R) HD Graphics 4000"),
    "intel igpu before nvidia": ("gfxstream", "drawn by NVIDIA A40"),
    "arm server, nvidia": (SWIFT, "gfxstream is not chosen by itself on an ARM host"),
    "arm server, no gpu": (SWIFT, "this host has no GPU"),
    "virtio-gpu with 3d": (SWIFT, "its GPU is lent by another one"),
    "virtio-gpu on a host with llvmpipe": (SWIFT, "OpenGL ES is drawn on the CPU, by virgl (LLVMPIPE"),
    "nothing at all": (SWIFT, "the library libEGL.so.1 cannot be loaded: this host has no GPU"),
    "vulkan driver crashes": ("drm_virgl", "the Vulkan driver crashed: signal 11 (SIGSEGV)"),
    "both drivers hang": (SWIFT, "the EGL driver hangs: it gave no answer within 15 s"),
}


def works(decision: Decision, mode: str) -> bool:
    return next(verdict.works for verdict in decision.modes if verdict.mode == mode)


def helps(decision: Decision, mode: str) -> str:
    return next(verdict.help or "" for verdict in decision.modes if verdict.mode == mode)


@pytest.mark.parametrize("machine", ALL)
def test_auto(machine: str) -> None:
    mode, reason = AUTO[machine]
    decision = decide_mode(ALL[machine], guest=MODERN)
    assert decision.mode == mode
    assert reason in decision.reason


@pytest.mark.parametrize("machine", ALL)
def test_every_machine_gets_a_verdict_on_every_mode(machine: str) -> None:
    decision = decide_mode(ALL[machine], guest=MODERN)
    assert [verdict.mode for verdict in decision.modes] == list(modes.MODES)
    for verdict in decision.modes:
        assert verdict.why
        assert not (verdict.works and verdict.help)
    assert works(decision, SWIFT)
    assert works(decision, decision.mode)


def test_every_constructed_machine_names_its_documentation() -> None:
    assert set(SOURCES) == set(CONSTRUCTED)


@pytest.mark.parametrize("machine", ALL)
def test_gem5_draws_in_the_guest(machine: str) -> None:
    assert decide_mode(ALL[machine], guest=MODERN, vm_manager=decide.GEM5).mode == SWIFT


GUESTS = {
    "modern": MODERN,
    "old": OLD,
    "embedded": EMBEDDED,
    "unknown": guest.UNKNOWN,
    "prefers virgl": replace(MODERN, prefer_virgl=True),
    "wants angle": replace(MODERN, candidates=("gfxstream_guest_angle", SWIFT)),
    "wants nothing": replace(MODERN, candidates=("none",)),
    "brings lavapipe": replace(MODERN, lavapipe=True, candidates=("guest_lavapipe",)),
}


@pytest.mark.parametrize("described", GUESTS.values(), ids=GUESTS)
@pytest.mark.parametrize("vm_manager", [decide.QEMU, decide.GEM5, decide.CROSVM])
def test_what_settles_the_matter_without_a_probe_agrees_with_the_probe(
    vm_manager: str, described: guest.Guest
) -> None:
    for wanted in ("auto", *modes.MODES):
        if described.only and wanted not in ("auto", *described.only):
            continue
        quick = decide.without_probe(wanted, vm_manager=vm_manager, guest=described)
        for probe in ALL.values():
            slow = decide_mode(probe, guest=described, vm_manager=vm_manager, wanted=wanted)
            assert quick is None or quick.mode == slow.mode
            if quick is not None and wanted != "auto":
                assert (quick.reason, quick.works) == (slow.reason, slow.works)


@pytest.mark.parametrize(
    ("qemu", "mode", "reason"),
    [
        (Qemu(gfxstream=True, virgl=True), "gfxstream", "drawn by NVIDIA A40"),
        (Qemu(virgl=True), "drm_virgl", "gfxstream will not work: the installed QEMU lacks gfxstream"),
        (Qemu(), SWIFT, "the installed QEMU lacks gfxstream (the device virtio-gpu-rutabaga)"),
        (Qemu(problem="qemu-system-x86_64 crashed: signal 11 (SIGSEGV)"), SWIFT, "crashed: signal 11"),
        (None, SWIFT, "there is no QEMU for this processor"),
    ],
)
def test_qemu_accelerates_with_the_devices_that_it_has(qemu: Qemu | None, mode: str, reason: str) -> None:
    decision = decide_mode(replace(ALL["headless nvidia"], qemu=qemu), guest=MODERN, vm_manager=decide.QEMU)
    assert decision.mode == mode
    assert reason in decision.reason
    assert ("the browser's screen needs --gpu guest_swiftshader" in decision.reason) is (mode != SWIFT)


def test_qemu_without_virgl_says_what_to_install() -> None:
    decision = decide_mode(replace(ALL["headless nvidia"], qemu=Qemu()), guest=MODERN, vm_manager=decide.QEMU)
    assert "install" in helps(decision, "drm_virgl")


def test_a_guest_that_prefers_virgl_gets_it_from_a_gpu_alone() -> None:
    prefers = replace(MODERN, prefer_virgl=True)
    assert decide_mode(ALL["headless nvidia"], guest=prefers).mode == "drm_virgl"
    # The argued difference from upstream: a renderer on the CPU is not worth the trouble.
    assert decide_mode(ALL["llvmpipe only"], guest=prefers).mode == SWIFT
    assert decide_mode(ALL["arm server, nvidia"], guest=prefers).mode == SWIFT


def test_the_guest_s_candidates_are_all_that_is_tried() -> None:
    wants = replace(MODERN, candidates=("gfxstream_guest_angle", "gfxstream_guest_angle_host_swiftshader", SWIFT))
    assert decide_mode(ALL["headless nvidia"], guest=wants).mode == "gfxstream_guest_angle"
    decision = decide_mode(ALL["amd, old kernel"], guest=wants)
    assert decision.mode == "gfxstream_guest_angle_host_swiftshader"
    hopeless = replace(MODERN, candidates=("gfxstream", "drm_virgl"))
    decision = decide_mode(ALL["llvmpipe only"], guest=hopeless)
    assert decision.mode == SWIFT
    assert decision.reason.startswith("no mode that the guest's images want will do: gfxstream: OpenGL ES is drawn")


def test_the_embedded_guest_has_three_modes() -> None:
    decision = decide_mode(ALL["headless nvidia"], guest=EMBEDDED, vm_manager=decide.QEMU)
    assert decision.mode == SWIFT
    assert [verdict.mode for verdict in decision.modes if verdict.works] == ["guest_lavapipe", SWIFT, "none"]
    with pytest.raises(UsageError, match="this guest has no GPU mode drm_virgl"):
        decide_mode(ALL["headless nvidia"], guest=EMBEDDED, wanted="drm_virgl")


def test_a_description_that_cannot_be_read_is_the_reason() -> None:
    damaged = guest.Guest(source="x", problem="x cannot be understood: line 3")
    decision = decide_mode(ALL["headless nvidia"], guest=damaged)
    assert (decision.mode, helps(decision, "gfxstream")) == (SWIFT, "Look into its android-info.txt.")
    assert "x cannot be understood" in next(v.why for v in decision.modes if v.mode == "gfxstream")


def test_lavapipe_in_the_guest() -> None:
    assert not works(decide_mode(ALL["llvmpipe only"], guest=MODERN), "guest_lavapipe")
    assert works(decide_mode(ALL["llvmpipe only"], guest=replace(MODERN, lavapipe=True)), "guest_lavapipe")


def test_a_guest_without_gfxstream_gets_virgl() -> None:
    decision = decide_mode(ALL["headless nvidia"], guest=OLD)
    assert decision.mode == "drm_virgl"
    assert "gfxstream will not work: the guest does not support gfxstream" in decision.reason
    assert "android-info.txt" in helps(decision, "gfxstream")


def test_an_unknown_guest_gets_what_every_guest_can() -> None:
    decision = decide_mode(ALL["headless nvidia"], guest=guest.UNKNOWN)
    assert decision.mode == SWIFT
    assert "it is not known what the guest can draw with" in decision.reason


def test_virgl_needs_a_render_node_that_may_be_opened() -> None:
    nvidia = ALL["headless nvidia"]
    probe = replace(nvidia, facts=replace(nvidia.facts, nodes=()))
    decision = decide_mode(probe, guest=OLD)
    assert decision.mode == SWIFT
    assert "there is none that this user may open" in decision.reason


@pytest.mark.parametrize(
    ("machine", "angle"),
    [("amd, old kernel", False), ("amd, new kernel", True), ("amd, kernel 7", True), ("headless nvidia", True)],
)
def test_kvm_maps_amd_memory_from_kernel_6_13_on(machine: str, angle: bool) -> None:
    decision = decide_mode(ALL[machine], guest=MODERN)
    assert works(decision, "gfxstream_guest_angle") is angle
    if not angle:
        assert helps(decision, "gfxstream_guest_angle") == "Boot a kernel from 6.13 on, or use gfxstream."


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.13.4-200.fc41.x86_64", (6, 13)),
        ("6.12.38+deb13+1-amd64", (6, 12)),
        ("6.16-rc1", (6, 16)),
        ("7.0.0", (7, 0)),
        ("4.18.0-553.el8_10.x86_64", (4, 18)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
        ("odd", (0, 0)),
    ],
)
def test_kernel_version(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_arm_is_accelerated_when_asked() -> None:
    decision = decide_mode(ALL["arm server, nvidia"], guest=MODERN, wanted="gfxstream")
    assert decision.mode == "gfxstream"
    assert decision.reason == "asked for; OpenGL ES and Vulkan are drawn by NVIDIA A40"
    assert not works(decision, "gfxstream_guest_angle_host_swiftshader")


def test_a_hopeless_wish_is_kept_with_a_warning() -> None:
    decision = decide_mode(ALL["llvmpipe only"], guest=MODERN, wanted="gfxstream")
    assert decision.mode == "gfxstream"
    assert not decision.works
    assert decision.reason.startswith(
        "asked for and kept, but it will probably not work: OpenGL ES is drawn on the CPU"
    )
    assert decision.reason.endswith("Use a host with an NVIDIA, AMD or Intel GPU.")


@pytest.mark.parametrize(
    ("machine", "help_"),
    [
        ("nvidia, compute only", "modprobe nvidia-drm modeset=1"),
        ("nvidia, nouveau", "Install NVIDIA's driver"),
        ("nvidia, updated without a reboot", "reboot"),
        ("nvidia, passed through", "/sys/bus/pci/drivers/vfio-pci/unbind"),
        ("intel igpu, not in group render", "sudo usermod -aG render $USER"),
        ("nothing at all", "Use a host with an NVIDIA, AMD or Intel GPU."),
        ("vulkan driver crashes", "nvidia"),
    ],
)
def test_help(machine: str, help_: str) -> None:
    assert help_ in helps(decide_mode(ALL[machine], guest=MODERN), "gfxstream")


def test_software_is_asked_for_by_the_environment() -> None:
    locked = ALL["intel igpu, not in group render"]
    probe = replace(locked, facts=replace(locked.facts, environment=(("LIBGL_ALWAYS_SOFTWARE", "1"),)))
    decision = decide_mode(probe, guest=MODERN)
    assert "LIBGL_ALWAYS_SOFTWARE=1 in the environment asks for it" in decision.reason
    assert helps(decision, "gfxstream") == "Take it away: unset LIBGL_ALWAYS_SOFTWARE"


def test_a_container_without_the_gpu_says_so() -> None:
    plain = ALL["llvmpipe only"]
    decision = decide_mode(replace(plain, facts=replace(plain.facts, container=True)), guest=MODERN)
    assert "no GPU is visible in this container" in decision.reason
    assert "--device /dev/dri" in helps(decision, "gfxstream")


@pytest.mark.parametrize(
    ("device", "container", "why", "help_"),
    [
        ("missing", False, "/dev/nvidiactl is missing", "sudo nvidia-modprobe -u -c=0"),
        ("not permitted", False, "/dev/nvidiactl is not permitted", "sudo nvidia-modprobe -u -c=0"),
        ("missing", True, "was not given to this container", "--gpus all -e NVIDIA_DRIVER_CAPABILITIES=all"),
        ("usable", True, "has no render node in /dev/dri", "modprobe nvidia-drm modeset=1"),
    ],
)
def test_nvidia_s_device_files(device: str, why: str, help_: str, *, container: bool) -> None:
    machine = ALL["nvidia, compute only"]
    found = replace(machine, facts=replace(machine.facts, nvidia_device=device, container=container))
    decision = decide_mode(found, guest=MODERN)
    assert why in decision.reason
    assert help_ in helps(decision, "gfxstream")


def test_a_gpu_that_is_not_on_pci() -> None:
    machine = ALL["llvmpipe only"]
    node = ALL["intel igpu"].facts.nodes[0]
    decision = decide_mode(replace(machine, facts=replace(machine.facts, nodes=(node,))), guest=MODERN)
    assert "there is a GPU at /dev/dri/renderD128, but no driver library for it" in decision.reason


def test_modes_of_other_vm_managers() -> None:
    nvidia = ALL["headless nvidia"]
    assert not works(decide_mode(nvidia, guest=MODERN, vm_manager=decide.QEMU), "custom")
    gem5 = decide_mode(nvidia, guest=MODERN, vm_manager=decide.GEM5)
    assert [verdict.mode for verdict in gem5.modes if verdict.works] == ["gfxstream", SWIFT, "none"]
    assert "gem5 has:" in helps(gem5, "drm_virgl")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("gfxsteam", "gfxstream"), ("swiftshader", SWIFT), ("drm-virgl", "drm_virgl"), ("Auto", "auto")],
)
def test_an_unknown_mode_is_wrong_usage(typo: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        decide_mode(ALL["headless nvidia"], wanted=typo)
    assert caught.value.brief == f"there is no GPU mode {typo!r}"
    assert all(mode in (caught.value.details or "") for mode in ("auto", *modes.MODES))
    assert caught.value.resolution == f"Did you mean --gpu {meant}?"


def test_a_mode_like_no_other_has_no_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        modes.check("zzz")
    assert caught.value.resolution == "See what would work here: cfctl gpu probe"


def test_an_unknown_vm_manager_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="there is no VM manager 'xen'"):
        decide.without_probe("auto", vm_manager="xen")
