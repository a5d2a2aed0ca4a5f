"""Small pure parts: ports, host packages inside, what becomes of vsock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cfctl.docker import inside, names, publish
from cfctl.docker.store import Port
from cfctl.errors import HostLacks, UsageError
from cfctl.launch.hostpackage import HostPackage


def test_ports() -> None:
    assert publish.parse("8443", "127.0.0.1") == Port("127.0.0.1", 8443, 8443)
    assert publish.parse("18443:8443", "10.0.0.1") == Port("10.0.0.1", 18443, 8443)
    for text in ("", "x", "0", "70000", "1:", ":1", "1:2:3"):
        with pytest.raises(UsageError):
            publish.parse(text, "127.0.0.1")


def package(directory: Path, *files: str) -> HostPackage:
    for name in ("bin/launch_cvd", *files):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch(mode=0o755)
    return HostPackage.open(directory)


def test_vsock_without_the_kernels_help(tmp_path: Path) -> None:
    crosvm = package(tmp_path / "a", "bin/crosvm")
    assert inside.vsock_flags(crosvm, ("--x=1",), vhost=True) == ("--x=1",)
    assert inside.vsock_flags(crosvm, ("--x=1",), vhost=False) == ("--x=1", "--vhost_user_vsock=true")
    said = ("--vhost_user_vsock=false",)
    assert inside.vsock_flags(crosvm, said, vhost=False) == said
    with pytest.raises(HostLacks, match="no /dev/vhost-vsock") as error:
        inside.vsock_flags(package(tmp_path / "b"), (), vhost=False)
    assert "modprobe vhost_vsock" in str(error.value)
    assert inside.vsock_flags(package(tmp_path / "c", "etc/cfctl-guest.json"), (), vhost=False) == ()


def test_which_host_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HOME", str(tmp_path))
    assert inside.host_package("/mnt/x") == "/mnt/x"
    assert inside.host_package(None) == names.EMBEDDED
    package(tmp_path)
    assert inside.host_package(None) == str(tmp_path)


def test_the_manual_explains_every_part_of_the_request() -> None:
    from cfctl.docker import request

    page = (Path(__file__).resolve().parents[2] / "docs/docker.md").read_text()
    table = page.partition("## Why each device")[2].partition("\n## ")[0]
    for name in request.CAPABILITIES:
        assert f"CAP_{name}" in table
    mentioned = set(re.findall(r"CAP_([A-Z_]+)", table))
    assert mentioned == set(request.CAPABILITIES)
    for node in (*request.NEEDED, *request.WELCOME):
        assert node in table
    for name in request.SYSCTLS:
        assert name.rpartition(".")[2] in table
    assert str(request.PIDS_LIMIT) in table
    assert str(request.NOFILE) in table
