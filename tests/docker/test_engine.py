"""Which engine a name means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cfctl.docker import engine
from cfctl.errors import UsageError


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a configuration of Docker with one context, as ``docker context create`` writes it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    context = tmp_path / "contexts/meta" / hashlib.sha256(b"rack").hexdigest()
    context.mkdir(parents=True)
    endpoint = {"Host": "ssh://me@rack", "SkipTLSVerify": False}
    (context / "meta.json").write_text(
        json.dumps({"Name": "rack", "Metadata": {}, "Endpoints": {"docker": endpoint}})
    )
    return tmp_path


def test_what_docker_itself_would_take(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.url_of(None) == ("unix:///var/run/docker.sock", None)
    (configuration / "config.json").write_text('{"currentContext": "rack"}')
    assert engine.url_of(None) == ("ssh://me@rack", None)
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine.url_of(None) == ("unix:///var/run/docker.sock", None)
    monkeypatch.setenv("DOCKER_HOST", "tcp://x:1")
    assert engine.url_of(None) == ("tcp://x:1", None)


def test_a_name_that_was_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://x:1")
    assert engine.url_of("rack") == ("ssh://me@rack", None)
    assert engine.url_of("unix:///run/podman/podman.sock") == ("unix:///run/podman/podman.sock", None)
    with pytest.raises(UsageError, match="no Docker context 'shelf'"):
        engine.url_of("shelf")


def test_a_context_that_cannot_be_read(configuration: Path) -> None:
    [file] = configuration.glob("contexts/meta/*/meta.json")
    file.write_text("{}")
    with pytest.raises(UsageError, match="cannot be read"):
        engine.url_of("rack")
