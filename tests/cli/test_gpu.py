"""``cfctl gpu``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl.cli import app
from cfctl.gpu import decide, modes, report, surroundings
from cfctl.gpu import probe as prober
from cfctl.gpu.containers import Containers, Engine
from cfctl.gpu.groups import Access
from cfctl.gpu.libraries import Library
from cfctl.gpu.probe import Probe
from cfctl.gpu.surroundings import Surroundings
from tests.gpu.machines import ALL, MODERN
from tests.schemas import conforms, schema


@pytest.mark.parametrize("machine", ALL)
def test_every_machine_gives_a_document_of_the_contract(machine: str) -> None:
    decision = decide.decide(ALL[machine], guest=MODERN)
    conforms(report.document(ALL[machine], decision), "gpu")


def test_the_schema_knows_every_mode() -> None:
    assert schema("gpu")["$defs"]["mode"]["enum"] == list(modes.MODES)


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["headless nvidia"])
    assert app.run(["gpu", "probe", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    conforms(document, "gpu")
    assert document["mode"] == "gfxstream"
    assert document["assumed"] == {"vm_manager": "crosvm", "guest_gfxstream": True}
    assert err == ""


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (["--no-guest-gfxstream"], "drm_virgl"),
        (["--vm-manager", "gem5"], "guest_swiftshader"),
        (["--gpu", "gfxstream_guest_angle"], "gfxstream_guest_angle"),
    ],
)
def test_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], mode: str
) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["headless nvidia"])
    assert app.run(["gpu", "probe", "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == mode


def test_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["intel igpu, not in group render"])
    assert app.run(["gpu", "probe", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mode", "guest_swiftshader"]
    assert lines[1].startswith("because  OpenGL ES is drawn on the CPU")
    text = "\n".join(lines)
    assert "sudo usermod -aG render $USER" in text
    assert "0000:01:00.0, driver i915, /dev/dri/renderD128" in text
    assert all(mode in text for mode in modes.MODES)


def test_findings_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["both drivers hang"])
    assert app.run(["gpu", "probe", "--quiet"]) == 0
    assert "note     the Vulkan driver hangs: it gave no answer within 15 s\n" in capsys.readouterr().out


AROUND = Surroundings(
    (Access("/dev/kvm", "KVM", usable=False, group="kvm", member=False, help="sudo usermod -aG kvm $USER"),),
    (
        Library("library", "libEGL.so.1", "libEGL.so.1"),
        Library("library", "libvulkan.so.1", "libvulkan.so.1", "no such file", "apt-get install libvulkan1"),
        Library("vulkan driver", "/etc/vulkan/icd.d/x.json", "libx.so", "no such file", "Install it"),
    ),
    Containers((Engine("docker", "20.10.24"), Engine("podman", problem="it crashed")), ("a.b/gpu",), "1.17.3"),
)


def test_access_libraries_and_containers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: ALL["headless nvidia"])
    monkeypatch.setattr(surroundings, "read", lambda: AROUND)
    assert app.run(["gpu", "probe", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    conforms(document, "gpu")
    assert document["findings"] == [
        "this user may not open /dev/kvm. sudo usermod -aG kvm $USER",
        "libvulkan.so.1 cannot be loaded: no such file. apt-get install libvulkan1",
        "the vulkan driver /etc/vulkan/icd.d/x.json cannot be loaded: no such file. Install it",
        "containers cannot be given the NVIDIA GPU. Install nvidia-container-toolkit from NVIDIA's repository, "
        "then: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ]
    assert app.run(["gpu", "probe", "--quiet"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "/dev/kvm (KVM), group kvm",
        "vulkan driver /etc/vulkan/icd.d/x.json: libx.so",
        "docker: 20.10.24",
        "podman: it crashed",
        "NVIDIA's container toolkit 1.17.3",
        "CDI devices: a.b/gpu",
    ):
        assert text in shown


def test_a_host_package_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}

    def answer(**options: object) -> Probe:
        asked.update(options)
        return ALL["headless nvidia"]

    monkeypatch.setattr(prober, "probe", answer)
    (tmp_path / "bin").mkdir()
    for name in ("launch_cvd", "crosvm", "graphics_detector"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    (tmp_path / "android-info.txt").write_text("gfxstream=supported\nprefer_drm_virgl_when_supported=true\n")
    assert app.run(["gpu", "probe", "--host-package", str(tmp_path), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    conforms(document, "gpu")
    assert document["mode"] == "drm_virgl"
    assert document["guest"]["source"] == str(tmp_path / "android-info.txt")
    assert document["assumed"] == {"vm_manager": "crosvm", "guest_gfxstream": True}
    assert asked == {"graphics_detector": tmp_path / "bin/graphics_detector", "qemu": False}
    (tmp_path / "old").mkdir()
    (tmp_path / "old/android-info.txt").write_text("config=phone\n")
    assert app.run(["gpu", "probe", "--host-package", str(tmp_path), "--images", str(tmp_path / "old")]) == 0
    shown = capsys.readouterr().out
    assert "mode     drm_virgl\n" in shown
    assert "for      VM manager crosvm, a guest that does not support gfxstream\n" in shown


def test_images_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["gpu", "probe", "--images", "/no/such/place"]) == 2
    assert "--images /no/such/place does not exist" in capsys.readouterr().err


def test_a_typing_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda **_: pytest.fail("a wrong name must not cost a probe"))
    assert app.run(["gpu", "probe", "--gpu", "gfxsteam", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    conforms(document, "error")
    assert document["error"]["resolution"] == "Did you mean --gpu gfxstream?"
