"""The JSON document of ``cfctl gpu probe`` (docs/schema/gpu.json)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cfctl.gpu import renderers, vendors

if TYPE_CHECKING:
    from cfctl.gpu.decide import Decision
    from cfctl.gpu.facts import PciGpu
    from cfctl.gpu.probe import GlesDisplay, Probe, VulkanDevice


def document(probe: Probe, decision: Decision) -> dict[str, Any]:
    """Return everything that was found and decided as plain data."""
    return {
        "mode": decision.mode,
        "reason": decision.reason,
        "devices": [
            *(_pci(gpu) for gpu in probe.facts.gpus),
            *(_vulkan(device) for device in probe.vulkan.devices),
            *(_egl(display) for display in probe.egl.displays),
        ],
        "modes": [dataclasses.asdict(verdict) for verdict in decision.modes],
        "findings": findings(probe),
        "host": {"arch": probe.facts.arch, "kernel": probe.facts.kernel, "kvm": probe.facts.kvm},
    }


def findings(probe: Probe) -> list[str]:
    """Return what people should know beside the decision, a sentence each."""
    facts = probe.facts
    found = [problem for problem in (probe.vulkan.problem, probe.egl.problem) if problem]
    found += [f"{name}={value} is set and may change who draws" for name, value in facts.environment]
    if facts.kvm != "usable":
        found.append(f"/dev/kvm is {facts.kvm}: without KVM Android is too slow to use, whatever the graphics mode")
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
