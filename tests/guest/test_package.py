"""The package: what is in it, and how it is put in its place."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl import arch as arches
from cfctl import distro, paths, process
from cfctl.errors import CfctlError, MissingCommand
from cfctl.gpu import guest as gpu_guest
from cfctl.guest import entry, image, kvm, options, package, vm
from cfctl.guest.image import Image

SOURCE = Path(package.__file__).parents[1]


def shipped() -> list[Path]:
    return [path for path in package._code() if path.suffix == ".py"]


def imports(path: Path) -> Iterator[str]:
    """Yield the full names that a module imports at run time."""
    tree = ast.parse(path.read_text())
    skip = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def module_file(name: str) -> Path:
    """Return the file of the module that ``name`` is, or is in."""
    for candidate in (name, name.rpartition(".")[0]):
        base = SOURCE.parent.joinpath(*candidate.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate and path.is_file():
                return path
    raise AssertionError(f"there is no module for {name}")


#: What the streamer's Python has besides; nothing else in the package imports it.
LIBRARIES = {"aioice", "aiortc", "av", "msgspec"}


def of_the_streamer(path: Path) -> bool:
    return path.parent.name == "streamer" or path.name.startswith(("rtc.", "webrtc_"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_shipped_code_needs_only_the_standard_library_and_itself(path: Path) -> None:
    for name in imports(path):
        first = name.partition(".")[0]
        if first == "cfctl":
            assert module_file(name) in shipped(), name
            # The command that is the streamer, and nothing else, leads there.
            assert of_the_streamer(path) or path.name == "entry.py" or not of_the_streamer(module_file(name)), name
        else:
            assert first in sys.stdlib_module_names or (of_the_streamer(path) and first in LIBRARIES), name


def test_no_module_is_shipped_for_nothing() -> None:
    needed = {module_file(name) for path in shipped() for name in imports(path) if name.startswith("cfctl")}
    packages = {SOURCE / "__init__.py"} | {path.parent / "__init__.py" for path in needed}
    assert {SOURCE / name for name in package.MODULES} <= needed | packages


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """Give an image that cannot boot, and let it be found."""
    made = Image(tmp_path / "image")
    made.directory.mkdir()
    made.kernel.write_bytes(b"kernel")
    made.initramfs.write_bytes(b"initramfs")
    made.description.write_text('{"kernel": "6.1", "packages": {}}')
    monkeypatch.setattr(image, "ensure", lambda arch: made)
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "SYSTEM_CACHE", tmp_path / "system")
    return made


def test_build_writes_all_commands(guest: Image, tmp_path: Path) -> None:
    made = package.build(tmp_path / "deep" / "package")
    names = {path.name for path in (made / "bin").iterdir()}
    assert names == {
        *("cvd_internal_start", "cvd_internal_stop", "cvd_internal_status", "run_cvd"),
        *("cvd_internal_display", "cvd_internal_host_bugreport", "powerbtn_cvd", "snapshot_util_cvd"),
        "webRTC",
        *("launch_cvd", "stop_cvd", "cvd_status"),
    }
    assert all(os.access(path, os.X_OK) for path in (made / "bin").iterdir())
    assert (made / "images/kernel").read_bytes() == b"kernel"
    assert json.loads((made / package.MARKER).read_text())["guest"]["kernel"] == "6.1"
    assert [path.name for path in made.parent.iterdir()] == ["package"]
    preset = json.loads((made / "etc/cvd_config/cvd_config_phone.json").read_text())
    assert preset["memory_mb"] == options.DEFAULT_MEMORY_MB


def test_it_can_be_moved_and_runs_without_cfctl(guest: Image, tmp_path: Path) -> None:
    package.build(tmp_path / "package").rename(tmp_path / "elsewhere")
    done = subprocess.run(
        [tmp_path / "elsewhere/bin/launch_cvd", "--helpxml"],
        env={"HOME": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout[:5], done.stderr) == (1, "<?xml", "")
    assert not list((tmp_path / "elsewhere").rglob("*.pyc.*"))


def test_compiled_code_is_there_for_readers_only(guest: Image, tmp_path: Path) -> None:
    made = package.build(tmp_path / "package")
    modules = {path.stem for path in (made / "lib").rglob("*.py")}
    assert {path.name.partition(".")[0] for path in (made / "lib").rglob("*.pyc")} == modules


def test_build_replaces_its_own_and_nothing_else(guest: Image, tmp_path: Path) -> None:
    made = package.build(tmp_path / "package")
    (made / "old").touch()
    package.build(made)
    assert not (made / "old").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    package.build(foreign)
    (foreign / package.MARKER).unlink()
    with pytest.raises(CfctlError) as caught:
        package.build(foreign)
    assert caught.value.brief == f"{foreign} is not empty"
    assert (foreign / "bin/launch_cvd").exists()


def test_ensure_builds_once(guest: Image, tmp_path: Path) -> None:
    made = package.ensure()
    assert made.parent == tmp_path / "cache/host-packages"
    before = (made / package.MARKER).stat()
    assert package.ensure() == made
    assert (made / package.MARKER).stat() == before


def test_ensure_takes_the_systems(guest: Image, tmp_path: Path) -> None:
    made = package.ensure()
    (tmp_path / "system").mkdir()
    (tmp_path / "cache/host-packages").rename(tmp_path / "system/host-packages")
    assert package.ensure() == tmp_path / "system/host-packages" / made.name


def test_ensure_mends_what_a_kill_left(guest: Image, tmp_path: Path) -> None:
    made = package.ensure()
    (made / package.MARKER).unlink()
    (made.parent / ".guest-killed").mkdir()
    assert (package.ensure() / package.MARKER).is_file()
    assert not (made.parent / ".guest-killed").exists()


def test_the_name_follows_the_code(guest: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    before = package._name(arches.host())
    assert package._name(arches.host()) == before
    monkeypatch.setattr(package, "interpreter", lambda: "/usr/bin/python3.99")
    assert package._name(arches.host()) != before


def test_each_processor_has_a_package_of_its_own(guest: Image, tmp_path: Path) -> None:
    assert len({package._name(arch) for arch in arches.ARCHES.values()}) == 2
    for name, arch in arches.ARCHES.items():
        made = package.build(tmp_path / name, arch)
        assert json.loads((made / package.MARKER).read_text())["arch"] == name
    assert package.ensure(arches.by_name("aarch64")) != package.ensure(arches.by_name("x86_64"))


def test_the_guest_says_what_it_can_draw_with(guest: Image, tmp_path: Path) -> None:
    described = gpu_guest.read(package.build(tmp_path / "package"))
    assert described.known
    assert described.problem is None
    assert described.candidates == ("guest_swiftshader", "none")
    assert described.only == options.SOFTWARE_GPU_MODES


def test_an_image_says_which_processor_it_is_for(guest: Image) -> None:
    guest.description.write_text('{"arch": "aarch64"}')
    assert guest.arch == arches.by_name("aarch64")
    guest.description.write_text("{}")
    assert guest.arch == arches.host()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"arch": "vax"}'])
def test_an_image_with_a_damaged_description(guest: Image, text: str) -> None:
    guest.description.write_text(text)
    with pytest.raises(CfctlError):
        _ = guest.arch


def test_interpreter_is_for_everybody() -> None:
    assert package._for_everybody(Path(package.interpreter()))
    assert not package.interpreter().startswith(str(Path(sys.prefix)) + "/") or sys.prefix == sys.base_prefix


def test_entry_names_agree() -> None:
    assert set(entry.ALIASES.values()) <= set(entry.COMMANDS)


# -- KVM ---------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give something that can be opened, and a cache of its own."""
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "SYSTEM_CACHE", tmp_path / "system")
    monkeypatch.setattr(vm, "qemu", lambda arch: "/bin/sh")
    path = tmp_path / "kvm"
    path.touch()
    return path


def test_kvm_without_a_node(tmp_path: Path) -> None:
    verdict = kvm.usable(tmp_path / "kernel", device=tmp_path / "kvm")
    assert verdict == kvm.Verdict(ok=False, reason=f"{tmp_path}/kvm cannot be opened: No such file or directory")


def test_no_kvm_for_a_guest_of_another_processor(node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "_try", lambda *_: pytest.fail("nothing may be tried"))
    (other,) = (arch for arch in arches.ARCHES.values() if arch != arches.host())
    verdict = kvm.usable(tmp_path / "kernel", device=node, arch=other)
    assert verdict.reason == f"the guest is for {other.name}, and this host is {arches.host().name}"
    assert not verdict.ok


@pytest.mark.parametrize(
    ("debian", "command"),
    [
        (True, "apt-get install --no-install-recommends qemu-system-arm"),
        (False, "dnf install qemu-system-aarch64-core"),
    ],
)
def test_the_emulator_of_another_processor(monkeypatch: pytest.MonkeyPatch, *, debian: bool, command: str) -> None:
    monkeypatch.setattr(distro, "is_debian_like", lambda: debian)
    monkeypatch.setattr(process, "find", lambda command: None)
    monkeypatch.setattr(arches, "host", lambda: arches.by_name("x86_64"))
    # What RHEL calls qemu-kvm is for its own processor.
    monkeypatch.setattr(vm, "_RHEL_QEMU", Path("/bin/sh"))
    assert vm.qemu(arches.by_name("x86_64")) == "/bin/sh"
    with pytest.raises(MissingCommand) as caught:
        vm.qemu(arches.by_name("aarch64"))
    assert command in (caught.value.resolution or "")


def test_the_machine_of_each_processor() -> None:
    x86, arm = (vm.Machine(arches.by_name(name), "tcg") for name in ("x86_64", "aarch64"))
    assert x86.base()[:2] == ["-machine", "pc,usb=off"]
    assert arm.base()[:2] == ["-machine", "virt,gic-version=max"]
    assert "cortex-a57" in arm.base()
    assert "console=ttyAMA0 " in arm.cmdline()
    assert "console=ttyS0 " in x86.cmdline()


def test_kvm_verdict_is_kept(node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def attempt(*_: object) -> kvm.Verdict:
        tries.append(1)
        return kvm.Verdict(ok=True, reason="a kernel booted")

    monkeypatch.setattr(kvm, "_try", attempt)
    first = kvm.usable(tmp_path / "kernel", device=node)
    assert kvm.usable(tmp_path / "kernel", device=node) == first
    assert len(tries) == 1
    (tmp_path / "boot_id").write_text("another boot\n")
    monkeypatch.setattr(kvm, "_BOOT_ID", tmp_path / "boot_id")
    kvm.usable(tmp_path / "kernel", device=node)
    assert len(tries) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}'])
def test_kvm_cache_may_be_damaged(node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(kvm, "_try", lambda *_: kvm.Verdict(ok=False, reason="no word"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/kvm.json").write_text(damage)
    assert kvm.usable(tmp_path / "kernel", device=node).reason == "no word"


def test_its_boot_times_are_where_the_launch_looks_for_them() -> None:
    from cfctl.launch import boot, boot_times

    assert package.BOOT_TIMES == boot_times.BROUGHT
    assert set(package._MEASURED) <= {phase.name for phase in boot.PHASES}
