"""Which engine a name means."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
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


def test_ssh_is_loaded_for_an_engine_behind_it_and_for_no_other() -> None:
    code = """
import sys
from cfctl.docker import engine
from cfctl.errors import EngineUnreachable
for url in ("unix:///nowhere", "ssh://nobody@127.0.0.1:9", "ssh://nobody@127.0.0.1:9"):
    try:
        engine.connect(url)
    except EngineUnreachable as error:
        print("paramiko" in sys.modules, error.details)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nowhere, *behind = done.stdout.splitlines()
    assert nowhere == "False [Errno 2] No such file or directory"
    # It is really tried, by docker-py's own part for that.
    assert behind == ["True [Errno None] Unable to connect to port 9 on 127.0.0.1"] * 2
