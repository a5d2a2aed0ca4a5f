"""What the launcher calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl import gpu
from cfctl.errors import UsageError
from cfctl.gpu import guest
from cfctl.gpu import probe as prober
from cfctl.gpu.probe import Probe
from tests.gpu.machines import ALL, EMBEDDED, MODERN


def no_probe(**_: object) -> None:
    raise AssertionError("nothing may be probed")


@pytest.mark.parametrize("mode", ["guest_swiftshader", "none", "custom", "guest_lavapipe"])
def test_a_mode_that_needs_nothing_is_not_probed_for(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    decision = gpu.choose(mode, vm_manager=gpu.CROSVM, guest=MODERN)
    assert (decision.mode, decision.modes) == (mode, ())
    assert decision.reason.startswith("asked for")


def test_the_embedded_guest_is_not_probed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    decision = gpu.choose("auto", vm_manager=gpu.QEMU, guest=EMBEDDED)
    assert decision.mode == "guest_swiftshader"
    assert decision.reason == "the guest's images want it (gpu_mode_candidates in android-info.txt)"


def test_auto_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["headless nvidia"])
    assert gpu.choose("auto", vm_manager=gpu.CROSVM, guest=MODERN).mode == "gfxstream"
    assert gpu.choose("auto", vm_manager=gpu.CROSVM, guest=guest.UNKNOWN).mode == "guest_swiftshader"


def test_an_explicit_mode_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["llvmpipe only"])
    decision = gpu.choose("drm_virgl", vm_manager=gpu.CROSVM, guest=MODERN)
    assert decision.mode == "drm_virgl"
    assert "it will probably not work" in decision.reason


def test_an_unknown_mode_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    with pytest.raises(UsageError, match="there is no GPU mode 'fast'"):
        gpu.choose("fast", vm_manager=gpu.CROSVM, guest=MODERN)


def test_a_mode_that_the_embedded_guest_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    with pytest.raises(UsageError) as caught:
        gpu.choose("gfxstream", vm_manager=gpu.QEMU, guest=EMBEDDED)
    assert caught.value.brief == "this guest has no GPU mode gfxstream"
    assert caught.value.details == "Its modes are guest_swiftshader, guest_lavapipe, none, says android-info.txt."
    assert "cfctl launch --host-package DIR" in (caught.value.resolution or "")


def test_an_unknown_guest_is_not_probed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "probe", no_probe)
    decision = gpu.choose("auto", vm_manager=gpu.CROSVM, guest=guest.UNKNOWN)
    assert (decision.mode, decision.reason) == ("guest_swiftshader", "it is not known what the guest can draw with")


def test_the_package_s_detector_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    detector = tmp_path / "bin/graphics_detector"
    detector.parent.mkdir()
    detector.touch()
    asked: dict[str, object] = {}

    def record(**options: object) -> Probe:
        asked.update(options)
        return ALL["headless nvidia"]

    monkeypatch.setattr(prober, "probe", record)
    gpu.choose("auto", vm_manager=gpu.CROSVM, guest=MODERN, package=tmp_path)
    assert asked == {"graphics_detector": detector, "qemu": False}
    gpu.choose("auto", vm_manager=gpu.QEMU, guest=MODERN, package=tmp_path / "other")
    assert asked == {"graphics_detector": None, "qemu": True}
