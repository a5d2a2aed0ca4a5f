from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from cfctl import steps
from cfctl.artifacts import store
from cfctl.errors import CfctlError, UsageError
from cfctl.launch import launcher, manage, registry, wanted, wares
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.listing import Flag, Listing
from cfctl.launch.registry import Record, Request
from tests import standins
from tests.artifacts import archives


def record(numbers: tuple[int, ...], **request: object) -> Record:
    return Record(
        name="phone",
        owner="me",
        created_at=registry.now(),
        request=Request(host_package="/opt/cf", **request),  # type: ignore[arg-type]
        numbers=numbers,
        gpu_mode="guest_swiftshader",
        gpu_reason="",
    )


def test_flags_always_have_their_value() -> None:
    device = record((3, 4), cpus=2, memory_mb=512, images="/img", flags=("--x_res=1080",))
    view = wares.images(device)
    # A user's own flags come after these, as they are.
    assert launcher._flags(device) == [
        "--daemon=true",
        "--gpu_mode=guest_swiftshader",
        "--report_anonymous_usage_stats=n",
        "--base_instance_num=3",
        "--num_instances=2",
        "--cpus=2",
        "--memory_mb=512",
        f"--system_image_dir={view},{view}",
    ]


def test_run_cvd_waits_as_long_as_we_do() -> None:
    known = Listing({"boot_timeout_secs": Flag("int32", "600")})
    asked = Request(host_package="/x")
    assert launcher._patience(1800.5, launcher._left(asked, known)) == ["--boot_timeout_secs=1800"]
    assert launcher._patience(600, launcher._left(asked, known)) == []
    for unknown in (Listing({}), None):
        assert launcher._patience(1800, launcher._left(asked, unknown)) == []
    given = Request(host_package="/x", flags=("--boot-timeout-secs=5",))
    assert launcher._patience(1800, launcher._left(given, known)) == []


def test_numbers_with_a_gap_are_listed() -> None:
    assert "--instance_nums=1,5" in launcher._flags(record((1, 5)))


@pytest.mark.parametrize(
    "flag", ["--daemon", "--nodaemon", "-gpu_mode=auto", "--instance-nums=3", "--base_instance_num=2"]
)
def test_flags_that_cfctl_decides_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match="cannot be handed on to the launcher"):
        wanted.check(Request(host_package="/x", flags=(flag,)))


def test_words_that_are_no_flags_are_refused() -> None:
    with pytest.raises(UsageError, match="'phone2' is not a flag"):
        wanted.check(Request(host_package="/x", flags=("phone2",)))


@pytest.mark.parametrize("request_", [{"num_instances": 0}, {"num_instances": 129}, {"cpus": 0}, {"memory_mb": -5}])
def test_impossible_sizes(request_: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        wanted.check(Request(host_package="/x", **request_))  # type: ignore[arg-type]


def test_environment_moves_home_and_not_the_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path))
    env = launcher._environment(record((7,)))
    assert "TMPDIR" not in env
    assert env["HOME"] == env["CFCTL_DEVICE"] == str(tmp_path / "devices/phone")
    assert env["CUTTLEFISH_INSTANCE"] == "7"


def test_host_package_without_a_launcher(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a host package"):
        HostPackage.open(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        HostPackage.open(tmp_path / "gone")
    package = standins.write(tmp_path, "none")
    (package / "bin/launch_cvd").chmod(0o644)
    with pytest.raises(CfctlError, match="is not executable") as refused:
        HostPackage.open(tmp_path)
    assert refused.value.resolution == f"Make it so: chmod +x {tmp_path}/bin/*"


def test_a_package_in_the_cache_is_not_to_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    program = tarfile.TarInfo("bin/launch_cvd")
    program.mode = 0o644
    entry = store.add(archives.tar(tmp_path / "p.tar.gz", program))
    with pytest.raises(CfctlError, match="is not executable") as refused:
        HostPackage.open(entry.tree)
    assert "give the directory" in (refused.value.resolution or "")
    assert str(entry.tree) not in (refused.value.resolution or "")


def test_host_package_prefers_the_new_name(tmp_path: Path) -> None:
    package = standins.write(tmp_path, "none")
    (package / "bin/cvd_internal_start").symlink_to("launch_cvd")
    assert HostPackage.open(package).start.name == "cvd_internal_start"
    assert HostPackage.open(package).stop is None


def test_a_mode_that_will_not_work_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(steps, "note", notes.append)
    (tmp_path / "bin").mkdir()
    for name in ("launch_cvd", "crosvm"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    choice = wanted.choose_gpu(Request(host_package=str(tmp_path), gpu="guest_lavapipe"))
    assert not choice.works
    assert notes == [f"--gpu guest_lavapipe: {choice.reason}"]
    (tmp_path / "android-info.txt").write_text("vulkan_lavapipe_apex=supported\n")
    assert wanted.choose_gpu(Request(host_package=str(tmp_path), gpu="guest_lavapipe")).works
    assert len(notes) == 1
    (tmp_path / "other").mkdir()
    flags = (f"--system_image_dir={tmp_path}/other,{tmp_path}",)
    assert not wanted.choose_gpu(Request(host_package=str(tmp_path), gpu="guest_lavapipe", flags=flags)).works


def test_targets() -> None:
    assert manage.target("phone") == ("phone", 1)
    assert manage.target("phone/2") == ("phone", 2)
    for bad in ("phone/", "phone/x", "phone/0", "phone/-1"):
        with pytest.raises(UsageError):
            manage.target(bad)


def test_vm_manager_is_crosvm_where_the_package_brings_one(tmp_path: Path) -> None:
    package = standins.write(tmp_path, "none")
    assert HostPackage.open(package).vm_manager == "qemu_cli"
    (package / "bin/x86_64-linux-gnu").mkdir()
    (package / "bin/x86_64-linux-gnu/crosvm").touch()
    assert HostPackage.open(package).vm_manager == "crosvm"
