"""Whether a device fits: what it needs, what there is, and the refusal with the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl.errors import HostLacks
from cfctl.launch import capacity
from cfctl.launch.capacity import MIB, Promise, Room
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.observe import Process, State
from cfctl.launch.registry import Request
from tests import standins
from tests.launch.devices import device


@pytest.mark.parametrize(
    ("request_", "preset", "expected"),
    [
        (Request(host_package="/x", memory_mb=2048), None, 2048),
        (Request(host_package="/x", memory_mb=2048, num_instances=3), 4096, 6144),
        (Request(host_package="/x", memory_mb=(2048, 1024), num_instances=2), None, 3072),
        # The first also serves those that have none of their own.
        (Request(host_package="/x", memory_mb=(2048, 1024), num_instances=4), None, 7168),
        (Request(host_package="/x", num_instances=2), 4096, 8192),
        (Request(host_package="/x"), None, None),
    ],
)
def test_memory_of_all_instances(request_: Request, preset: int | None, expected: int | None) -> None:
    found = capacity.guest_memory(request_, preset)
    assert found == (None if expected is None else expected * MIB)


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"memory_mb": 4096, "cpus": 4}', 4096), ("{}", None), ("[]", None), ("{", None), ('{"memory_mb": "x"}', None)],
)
def test_preset_of_a_host_package(tmp_path: Path, text: str, expected: int | None) -> None:
    package = HostPackage.open(standins.write(tmp_path, "none"))
    assert capacity.preset_memory(package, "phone") is None
    preset = tmp_path / "etc/cvd_config/cvd_config_phone.json"
    preset.parent.mkdir(parents=True)
    preset.write_text(text)
    assert capacity.preset_memory(package, "phone") == expected
    assert capacity.preset_memory(package, "tablet") is None
    assert capacity.preset_memory(package, "phone,phone") is None


def test_which_preset() -> None:
    assert capacity.preset(Request(host_package="/x")) == "phone"
    assert capacity.preset(Request(host_package="/x", flags=("--config=auto", "-config=tv"))) == "tv"


def proc(directory: Path, groups: str, available_kb: int = 8 << 20) -> Path:
    (directory / "self").mkdir(parents=True)
    (directory / "meminfo").write_text(f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:    {available_kb} kB\n")
    (directory / "self/cgroup").write_text(groups)
    return directory


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_free_memory_is_the_hosts_without_limits(tmp_path: Path) -> None:
    room = capacity.free_memory(proc=proc(tmp_path / "proc", "0::/\n"), cgroups=tmp_path / "none")
    assert room == Room(8 << 30, "the host (MemAvailable)")


def test_a_limit_further_up_counts(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    write(root / "a/b", memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 0\n")
    write(
        root / "a", memory__max=f"{4 << 30}\n", memory__current=f"{3 << 30}\n", memory__stat="x 1\ninactive_file 7\n"
    )
    room = capacity.free_memory(proc=proc(tmp_path / "proc", "0::/a/b\n"), cgroups=root)
    assert room == Room((1 << 30) + 7, "control group a")


def test_control_groups_of_the_first_kind(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    write(
        root / "memory/docker/x",
        memory__limit_in_bytes=f"{2 << 30}\n",
        memory__usage_in_bytes=f"{1 << 30}\n",
        memory__stat="total_inactive_file 0\n",
    )
    groups = "9:cpu,cpuacct:/elsewhere\n5:memory:/docker/x\n"
    room = capacity.free_memory(proc=proc(tmp_path / "proc", groups), cgroups=root)
    assert room == Room(1 << 30, "control group memory/docker/x")


def test_memory_of_this_machine_can_be_read() -> None:
    assert 0 < capacity.free_memory().bytes < 1 << 50


def test_what_running_devices_may_still_take() -> None:
    import os

    vm = Process(os.getpid(), ("/usr/bin/qemu-system-x86_64",), 1)
    running = device(State.RUNNING, name="a", processes=(vm,), memory_mb=1 << 20)
    idle = device(State.STOPPED, name="b", memory_mb=4096)
    unknown = device(State.RUNNING, name="c", processes=(vm,))
    (promise,) = capacity.promises([running, idle, unknown])
    assert promise.name == "a"
    assert 0 < promise.bytes < (1 << 20) * MIB


def test_refused_with_the_numbers() -> None:
    room = Room(4096 * MIB, "the host (MemAvailable)")
    capacity.check_memory(4096 * MIB, room, [])
    with pytest.raises(HostLacks) as caught:
        capacity.check_memory(4096 * MIB, room, [Promise("a", 1000 * MIB)])
    assert str(caught.value) == (
        "the device does not fit into memory: 4096 MiB are needed, 3096 MiB are free\n"
        "It needs 4096 MiB; the host (MemAvailable) has 4096 MiB.\n"
        "Device a may still take 1000 MiB of that.\n"
        "Give it less (--memory-mb), stop other devices (cfctl ps), or launch all the same: --force"
    )


def test_files(tmp_path: Path) -> None:
    wanted = Request(host_package="/x", images=str(tmp_path), num_instances=2)
    assert capacity.files(wanted, memory=5, vm_manager="qemu_cli") == 0
    with (tmp_path / "userdata.img").open("wb") as image:
        image.truncate(1000)
    assert capacity.files(wanted, memory=5, vm_manager="crosvm") == 2000
    assert capacity.files(wanted, memory=5, vm_manager="qemu_cli") == 2005
    assert capacity.files(wanted, memory=None, vm_manager="qemu_cli") == 2000


def test_disk(tmp_path: Path) -> None:
    room = capacity.free_disk(tmp_path / "not/there/yet")
    assert room.where == f"the disk of {tmp_path}"
    capacity.check_disk(room.bytes, room)
    with pytest.raises(HostLacks, match=r"does not fit onto the disk: \d+ MiB are needed, \d+ MiB are free"):
        capacity.check_disk(room.bytes + 1, room)


def test_the_whole_check_reads_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path / "state"))
    package = HostPackage.open(standins.write(tmp_path, "none"))
    wanted = Request(host_package=str(tmp_path))
    capacity.check(wanted, package, tmp_path, vm_manager="crosvm")
    write(tmp_path / "etc/cvd_config", cvd_config_phone__json=json.dumps({"memory_mb": 1 << 30}))
    with pytest.raises(HostLacks, match="1073741888 MiB are needed"):
        capacity.check(wanted, package, tmp_path, vm_manager="crosvm")
