"""What containers can be given, asked of programs that answer as Docker, podman and NVIDIA's toolkit do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl.gpu import containers
from cfctl.gpu.containers import Containers, Engine

#: RECORDED: `docker info --format '{{json .}}'` of Docker 20.10 and 28.2, cut to what is read; CONSTRUCTED: the
#: runtime, as NVIDIA's container toolkit documentation has `docker info` show it.
DOCKER = '{"ServerVersion":"%s","Runtimes":{"runc":{"path":"runc"}%s}}'
NVIDIA_RUNTIME = ',"nvidia":{"path":"nvidia-container-runtime"}'
#: RECORDED: the client without a daemon, which ends with status 1.
NO_DAEMON = (
    '{"ServerVersion":"","ServerErrors":["Cannot connect to the Docker daemon at unix:///var/run/docker.sock. '
    'Is the docker daemon running?"]}'
)
#: CONSTRUCTED from the CDI specification (cncf-tags/container-device-interface, SPEC.md) and docker.md.
CDI_YAML = "---\ncdiVersion: 0.5.0\ncontainerEdits:\n  env: [A=b]\nkind: nvidia.com/gpu\ndevices: []\n"
CDI_JSON = '{"cdiVersion": "0.5.0", "kind": "android.com/gpu-podcvd", "devices": []}'


def read(directory: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Containers:
    """Look with these programs alone on PATH; each is a script."""
    monkeypatch.setattr("cfctl.process._SBIN", ())
    monkeypatch.setenv("PATH", str(directory / "bin"))
    (directory / "bin").mkdir(exist_ok=True)
    for name, script in programs.items():
        path = directory / "bin" / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)
    return containers.read(directory, deadline=2.0 if "sleep" in str(programs) else 60.0)


def prints(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND"


def cdi(directory: Path, name: str, text: str) -> None:
    (directory / "etc/cdi").mkdir(parents=True, exist_ok=True)
    (directory / "etc/cdi" / name).write_text(text)


def test_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(tmp_path, monkeypatch)
    assert found == Containers()
    assert not found.nvidia


def test_docker_with_nvidia_s_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        tmp_path,
        monkeypatch,
        docker=prints(DOCKER % ("20.10.24", NVIDIA_RUNTIME)),
        nvidia_ctk=prints("NVIDIA Container Toolkit CLI version 1.17.3\ncommit: abc"),
    )
    assert found.engines == (Engine("docker", "20.10.24", nvidia_runtime=True),)
    assert found.toolkit == "1.17.3"
    assert found.nvidia


@pytest.mark.parametrize(("version", "can"), [("20.10.24", False), ("25.0.0", True), ("28.2.2", True)])
def test_docker_knows_cdi_from_25_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, can: bool
) -> None:
    cdi(tmp_path, "nvidia.yaml", CDI_YAML)
    found = read(tmp_path, monkeypatch, docker=prints(DOCKER % (version, "")))
    assert found.cdi == ("nvidia.com/gpu",)
    assert found.nvidia is can


@pytest.mark.parametrize(("version", "can"), [("4.0.3", False), ("4.1.0", True), ("5.4.2", True)])
def test_podman_knows_cdi_from_4_1_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, can: bool
) -> None:
    cdi(tmp_path, "nvidia-podcvd.json", CDI_JSON)
    found = read(tmp_path, monkeypatch, podman=prints(version))
    assert found.cdi == ("android.com/gpu-podcvd",)
    assert found.nvidia is can


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (f"{prints(NO_DAEMON)}\nexit 1", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is"),
        ("echo 'permission denied while trying to connect' >&2; exit 1", "permission denied while trying"),
        ("sleep 1000", "docker info hangs: it gave no answer within 2 s"),
        ("kill -SEGV $$", "docker info crashed: signal 11 (SIGSEGV)"),
        ("head -c 1000 /dev/urandom", "no daemon answers: "),
        ("echo '[]'; echo '{\"ServerVersion\": []}'", "no daemon answers: "),
        ("yes '['", "docker info printed more than 4 MiB"),
    ],
)
def test_a_docker_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    (engine,) = read(tmp_path, monkeypatch, docker=script).engines
    assert (engine.problem or "").startswith(problem)


def test_files_that_are_no_cdi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cdi(tmp_path, "a.yaml", "no: thing\n")
    cdi(tmp_path, "b.txt", CDI_YAML)
    (tmp_path / "etc/cdi/c.json").mkdir()
    (tmp_path / "etc/cdi/d.json").write_bytes(b"\xff\x00kind")
    assert read(tmp_path, monkeypatch).cdi == ()
