"""``cfctl gpu``."""

from __future__ import annotations

import json

import pytest

from cfctl.cli import app
from cfctl.gpu import decide, modes, report
from cfctl.gpu import probe as prober
from tests.gpu.machines import ALL
from tests.schemas import conforms, schema


@pytest.mark.parametrize("machine", ALL)
def test_every_machine_gives_a_document_of_the_contract(machine: str) -> None:
    decision = decide.decide(ALL[machine], guest_gfxstream=True)
    conforms(report.document(ALL[machine], decision), "gpu")


def test_the_schema_knows_every_mode() -> None:
    assert schema("gpu")["$defs"]["mode"]["enum"] == list(modes.MODES)


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["headless nvidia"])
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
        (["--vm-manager", "qemu_cli"], "guest_swiftshader"),
        (["--gpu", "gfxstream_guest_angle"], "gfxstream_guest_angle"),
    ],
)
def test_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], mode: str
) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["headless nvidia"])
    assert app.run(["gpu", "probe", "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == mode


def test_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["intel igpu, not in group render"])
    assert app.run(["gpu", "probe", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mode", "guest_swiftshader"]
    assert lines[1].startswith("because  OpenGL ES is drawn on the CPU")
    text = "\n".join(lines)
    assert "sudo usermod -aG render $USER" in text
    assert "0000:01:00.0, driver i915, /dev/dri/renderD128" in text
    assert all(mode in text for mode in modes.MODES)


def test_findings_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda: ALL["both drivers hang"])
    assert app.run(["gpu", "probe", "--quiet"]) == 0
    assert "note     the Vulkan driver hangs: it gave no answer within 15 s\n" in capsys.readouterr().out


def test_a_typing_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prober, "probe", lambda: pytest.fail("a wrong name must not cost a probe"))
    assert app.run(["gpu", "probe", "--gpu", "gfxsteam", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    conforms(document, "error")
    assert document["error"]["resolution"] == "Did you mean --gpu gfxstream?"
