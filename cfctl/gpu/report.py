"""The JSON document of ``cfctl gpu probe`` (docs/schema/gpu.json)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cfctl.gpu import renderers, vendors

if TYPE_CHECKING:
    from cfctl.gpu.decide import Decision
    from cfctl.gpu.drivers import GlesDisplay, VulkanDevice
    from cfctl.gpu.facts import PciGpu
    from cfctl.gpu.guest import Guest
    from cfctl.gpu.probe import Probe
    from cfctl.gpu.surroundings import Surroundings


def document(
    probe: Probe, decision: Decision, *, guest: Guest | None = None, around: Surroundings | None = None
) -> dict[str, Any]:
    """Return everything that was found and decided as plain data.

    :param guest: what the decision was made for.
    :param around: access, libraries and containers, where they were looked at.
    """
    found: dict[str, Any] = {
        "mode": decision.mode,
        "reason": decision.reason,
        "devices": [
            *(_pci(gpu) for gpu in probe.facts.gpus),
            *(_vulkan(device) for device in probe.vulkan.devices),
            *(_egl(display) for display in probe.egl.displays),
        ],
        "modes": [dataclasses.asdict(verdict) for verdict in decision.modes],
        "findings": findings(probe, guest, around),
        "host": {"arch": probe.facts.arch, "kernel": probe.facts.kernel, "kvm": probe.facts.kvm},
        "detector": dataclasses.asdict(probe.detection) if probe.detection else None,
    }
    if guest is not None:
        found["guest"] = dataclasses.asdict(guest)
    if around is not None:
        found["access"] = [dataclasses.asdict(access) for access in around.access]
        found["libraries"] = [dataclasses.asdict(library) for library in around.libraries]
        found["containers"] = {**dataclasses.asdict(around.containers), "nvidia": around.containers.nvidia}
    return found


def findings(probe: Probe, guest: Guest | None = None, around: Surroundings | None = None) -> list[str]:
    """Return what people should know beside the decision, a sentence each."""
    facts = probe.facts
    found = [problem for problem in (probe.vulkan.problem, probe.egl.problem) if problem]
    found += [difference for difference in probe.differences if difference not in found]
    if guest is not None and guest.problem:
        found.append(guest.problem)
    found += [f"{name}={value} is set and may change who draws" for name, value in facts.environment]
    if facts.kvm != "usable":
        found.append(f"/dev/kvm is {facts.kvm}: without KVM Android is too slow to use, whatever the graphics mode")
    if around is not None:
        found += _around(probe, around)
    return found


def _around(probe: Probe, around: Surroundings) -> list[str]:
    found = [f"this user may not open {access.path}. {access.help}" for access in around.access if access.help]
    for library in around.libraries:
        if library.error and (library.needed or library.what != "library"):
            name = library.name if library.what == "library" else f"the {library.what} {library.name}"
            found.append(f"{name} cannot be loaded: {library.error}. {library.help or ''}".rstrip())
    engines = [engine for engine in around.containers.engines if engine.problem is None]
    if engines and any(gpu.vendor == "nvidia" for gpu in probe.facts.gpus) and not around.containers.nvidia:
        found.append(
            "containers cannot be given the NVIDIA GPU. Install nvidia-container-toolkit from NVIDIA's repository, "
            "then: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        )
    return found


def _pci(gpu: PciGpu) -> dict[str, Any]:
    vendor = vendors.load()[gpu.vendor] if gpu.vendor else None
    return {
        "seen_by": "pci",
        "name": f"{vendor.name if vendor else 'unknown'} {gpu.vendor_id:04x}:{gpu.device_id:04x}",
        "kind": _pci_kind(gpu),
        "address": gpu.address,
        "vendor": gpu.vendor,
        "driver": gpu.driver,
        "render_node": gpu.node.path if gpu.node else None,
        "usable": gpu.node.usable if gpu.node else False,
    }


def _pci_kind(gpu: PciGpu) -> str:
    if gpu.vendor == "virtio":
        return "virtual"
    return "software" if gpu.vendor == "software" else "hardware"


def _vulkan(device: VulkanDevice) -> dict[str, Any]:
    return {"seen_by": "vulkan", "kind": renderers.vulkan_kind(device), **dataclasses.asdict(device)}


def _egl(display: GlesDisplay) -> dict[str, Any]:
    return {
        "seen_by": "egl",
        "name": display.renderer,
        "kind": renderers.gles_kind(display),
        **dataclasses.asdict(display),
    }
