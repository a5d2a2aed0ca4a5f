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


@pytest.mark.parametrize("name", [None, "x86_64", "aarch64", "amd64", "arm64"])
def test_build(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Arch] = []

    def build(directory: Path, arch: Arch) -> Path:
        asked.append(arch)
        return directory

    monkeypatch.setattr(package, "build", build)
    flags = ["--arch", name] if name else []
    assert app.run(["guest", "build", str(tmp_path), *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    conforms(document, "guest")
    (built,) = asked
    assert document == {"host_package": str(tmp_path), "arch": built.name}
    assert name in (None, built.name, built.debian)
    assert name or built == arch.host()


def test_a_processor_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["guest", "build", str(tmp_path / "p"), "--arch", "vax", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["brief"] == "there is no processor 'vax'"
    assert error["details"] == "Processors: x86_64, amd64, aarch64, arm64."
    assert not (tmp_path / "p").exists()
