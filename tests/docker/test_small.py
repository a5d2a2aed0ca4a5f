"""Small pure parts: ports, host packages inside, what becomes of vsock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cfctl.docker import device, image, init, inside, machine, names, publish, used
from cfctl.docker.store import Port
from cfctl.errors import HostLacks, UsageError
from cfctl.launch.hostpackage import HostPackage


def test_ports() -> None:
    assert publish.parse("8443", "127.0.0.1") == Port("127.0.0.1", 8443, 8443)
    assert publish.parse("18443:8443", "10.0.0.1") == Port("10.0.0.1", 18443, 8443)
    for text in ("", "x", "0", "70000", "1:", ":1", "1:2:3"):
        with pytest.raises(UsageError):
            publish.parse(text, "127.0.0.1")


def test_addresses() -> None:
    for address in ("127.0.0.1", "0.0.0.0", "127.3.2.1"):
        publish.check_address(address)
    with pytest.raises(UsageError, match="is not an address of this machine"):
        publish.check_address("192.0.2.1")
    with pytest.raises(UsageError, match="'localhost' is not an address"):
        publish.check_address("localhost")


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (
            "See more: cfctl logs phone\nBoot it: cfctl restart phone",
            "See more: cfctl docker logs phone\nBoot it: cfctl docker restart phone",
        ),
        ("List them with: cfctl ps", "List them with: cfctl docker login phone -- cfctl ps"),
        ("sudo cfctl host setup --instances 3", "cfctl docker login phone -- cfctl host setup --instances 3"),
        ("cfctl docker rm phone", "cfctl docker rm phone"),
        (None, None),
    ],
)
def test_what_helps_is_said_as_it_is_out_here(inside: str | None, outside: str | None) -> None:
    assert device.said_outside("phone", inside) == outside


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("registry.example.com/farm/cfctl:1", "docker login registry.example.com"),
        ("localhost:5000/cfctl", "docker login localhost:5000"),
        ("cfctl", "Name yours: docker tag cfctl REGISTRY/cfctl && cfctl docker push REGISTRY/cfctl"),
        ("farm/cfctl", "Docker Hub"),
    ],
)
def test_what_helps_with_a_registry(name: str, advice: str) -> None:
    assert advice in image._advice(name, "push")


def test_what_containers_and_volumes_mount() -> None:
    containers: list[dict[str, Any]] = [
        {"Mounts": [{"Type": "bind", "Source": "/srv/a"}, {"Type": "volume", "Source": "/var/lib/docker/volumes/x"}]},
        {"Mounts": None},
    ]
    overlay = {"type": "overlay", "device": "overlay", "o": "lowerdir=/c/1:/c/2,upperdir=/v/u,workdir=/v/w"}
    volumes: list[dict[str, Any]] = [
        {"Options": overlay},
        {"Options": {"type": "none", "o": "bind,ro", "device": "/srv/b"}},
        {"Options": None},
    ]
    assert list(map(str, used.mounted(containers, volumes))) == ["/srv/a", "/c/1", "/c/2", "/srv/b"]


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


def test_the_group_has_the_number_of_the_engines_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "group"
    file.write_text("root:x:0:\nkvm:x:104:vsoc-01\ncvdnetwork:x:997:vsoc-01\n")
    init.prepare_group(file)
    assert "cvdnetwork:x:997:" in file.read_text()
    monkeypatch.setenv(names.GROUP_NUMBER, "970")
    init.prepare_group(file)
    assert file.read_text() == "root:x:0:\nkvm:x:104:vsoc-01\ncvdnetwork:x:970:vsoc-01\n"
    assert machine._group(file.read_text()) == 970
    assert machine._group("root:x:0:\n") is None


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
