"""What the launcher calls."""

from __future__ import annotations

import pytest

from cfctl import gpu
from cfctl.errors import UsageError
from cfctl.gpu import probe as prober
from tests.gpu.machines import ALL


def no_probe() -> None:
    raise AssertionError("nothing may be probed")


@pytest.mark.parametrize("mode", ["guest_swiftshader", "none", "custom", "guest_lavapipe"])
def test_a_mode_that_needs_nothing_is_not_probed_for(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    decision = gpu.choose(mode, vm_manager=gpu.CROSVM, guest_supports_gfxstream=True)
    assert (decision.mode, decision.modes) == (mode, ())
    assert decision.reason.startswith("asked for")


def test_the_embedded_guest_is_not_probed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    decision = gpu.choose("auto", vm_manager=gpu.QEMU, guest_supports_gfxstream=False)
    assert decision.mode == "guest_swiftshader"
    assert "under QEMU the guest draws on its own CPU" in decision.reason


def test_auto_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["headless nvidia"])
    assert gpu.choose("auto", vm_manager=gpu.CROSVM, guest_supports_gfxstream=True).mode == "gfxstream"
    assert gpu.choose("auto", vm_manager=gpu.CROSVM, guest_supports_gfxstream=None).mode == "guest_swiftshader"


def test_an_explicit_mode_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["llvmpipe only"])
    decision = gpu.choose("drm_virgl", vm_manager=gpu.CROSVM, guest_supports_gfxstream=True)
    assert decision.mode == "drm_virgl"
    assert "it will probably not work" in decision.reason


def test_an_unknown_mode_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    with pytest.raises(UsageError, match="there is no GPU mode 'fast'"):
        gpu.choose("fast", vm_manager=gpu.CROSVM, guest_supports_gfxstream=True)
