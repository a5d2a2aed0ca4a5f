"""``cfctl guest``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl import arch
from cfctl.arch import Arch
from cfctl.cli import app
from cfctl.guest import package
from tests.schemas import conforms


@pytest.mark.parametrize("name", [None, *arch.ARCHES])
def test_build(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Arch | None] = []

    def build(directory: Path, arch: Arch | None) -> Path:
        asked.append(arch)
        return directory

    monkeypatch.setattr(package, "build", build)
    flags = ["--arch", name] if name else []
    assert app.run(["guest", "build", str(tmp_path), *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    conforms(document, "guest")
    assert document == {"host_package": str(tmp_path), "arch": name or arch.host().name}
    assert asked == [arch.by_name(name) if name else None]


def test_a_processor_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["guest", "build", str(tmp_path / "p"), "--arch", "vax", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["brief"] == "there is no processor 'vax'"
    assert error["details"] == "Processors: x86_64, aarch64."
    assert not (tmp_path / "p").exists()
