"""The three generations: told apart, started as the child of a cvd, and what cvd itself has made."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import paths, process
from cfctl.errors import HostLacks, UsageError, WrongProcessor
from cfctl.launch import cvdmade, flagpaths, generation, images, parent
from cfctl.launch.generation import Generation
from cfctl.launch.hostpackage import HostPackage
from tests import generations, standins
from tests.artifacts.test_guest import boot_image, kernel


@pytest.mark.parametrize("wanted", list(Generation))
def test_generations_are_told_apart(tmp_path: Path, wanted: Generation) -> None:
    package = HostPackage.open(generations.write(tmp_path / "package", wanted))
    assert package.generation is wanted
    assert not package.embedded


def test_what_makes_a_generation() -> None:
    assert generation.detect(["launch_cvd"], b"\x7fELF--daemon=") is Generation.CLASSIC
    assert generation.detect(["launch_cvd", "cvd"], b"\x7fELF--daemon=") is Generation.DATABASE
    assert generation.detect(["cvd", "launch_cvd"], b"/cvd\0--daemon=\0--reuse=true\0") is Generation.FORWARDING
    # Debian's package has them side by side, and links to neither.
    assert generation.detect(["cvd_internal_start"], b"/cvd\0--reuse=true\0") is Generation.FORWARDING


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", -9), ("true", 0), ("exit 255", 255)])
def test_the_parent_ends_as_its_child(tmp_path: Path, command: str, status: int) -> None:
    argv = parent.argv(tmp_path / "parent", ["/bin/sh", "-c", command])
    assert parent.status(process.run(argv, timeout=10, success=None).returncode) == status


def test_the_parent_is_called_cvd_and_hands_words_on_as_they_are(tmp_path: Path) -> None:
    words = ["a b", "$(touch /tmp/never)", "", "*"]
    show = "import os, sys; print(os.readlink(f'/proc/{os.getppid()}/exe')); print(sys.argv[1:])"
    argv = parent.argv(tmp_path / "parent", ["python3", "-c", show, *words])
    said = process.run(argv, timeout=10).stdout.splitlines()
    assert said == [f"{tmp_path}/parent/cvd", str(words)]


def test_busybox_cannot_be_called_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busybox").touch()
    (tmp_path / "sh").symlink_to("busybox")
    monkeypatch.setattr(paths, "SHELLS", (tmp_path / "sh",))
    with pytest.raises(HostLacks, match="no shell that can be copied"):
        parent.argv(tmp_path / "parent", ["true"])


# -- processors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "name"), [(183, "aarch64"), (243, "another processor (ELF machine 243)")])
def test_programs_for_another_processor(tmp_path: Path, machine: int, name: str) -> None:
    package = HostPackage.open(standins.write(tmp_path, "none"))
    package.check_processor()
    if machine == 183 and os.uname().machine == "aarch64":
        machine, name = 62, "x86_64"
    package.start.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44))
    with pytest.raises(WrongProcessor, match="is for") as refused:
        package.check_processor()
    assert f"is for {name}, and this host is {os.uname().machine}" in refused.value.brief


def test_a_guest_for_another_processor(tmp_path: Path) -> None:
    theirs = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    images.check_processor(tmp_path, [])
    (tmp_path / "boot.img").write_bytes(boot_image(kernel(theirs)))
    with pytest.raises(WrongProcessor, match=f"is for {theirs}"):
        images.check_processor(tmp_path, ["--vm_manager=crosvm"])
    images.check_processor(tmp_path, ["--vm_manager=qemu_cli"])
    (tmp_path / "boot.img").write_bytes(boot_image(kernel(os.uname().machine)))
    images.check_processor(tmp_path, [])


# -- relative paths ------------------------------------------------------------------------------------------


def test_relative_paths_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    (tmp_path / "4").touch()
    given_ = [
        "--super_image=a.img",
        "--cpus=4",
        "--super_image=/x,a.img,unset,",
        "--initramfs_path=a.img",
        "--daemon",
    ]
    assert flagpaths.absolute(given_, tmp_path) == [
        f"--super_image={tmp_path}/a.img",
        "--cpus=4",
        f"--super_image=/x,{tmp_path}/a.img,unset,",
        f"--initramfs_path={tmp_path}/a.img",
        "--daemon",
    ]
    with pytest.raises(UsageError, match=r"there is no b\.img in"):
        flagpaths.absolute(["--super_image=a.img,b.img"], tmp_path)


def test_every_path_flag_is_one_of_upstreams() -> None:
    table = Path(flagpaths.__file__).parents[1] / "guest/flags.tsv"
    known = {line.split("\t")[0] for line in table.read_text().splitlines()}
    # That one is gflags' own.
    assert set(flagpaths._PATH_FLAGS.split()) - {"flagfile"} <= known


# -- what cvd made -------------------------------------------------------------------------------------------


FLEET = {"groups": [{"group_name": "a", "instances": [{"adb_port": 6520}, {"adb_serial": "0.0.0.0:6521"}]}]}


def test_groups_of_a_fleet() -> None:
    assert list(cvdmade.groups(f"some words\n{json.dumps(FLEET, indent=1)}\n")) == [("a", {6520, 6521})]
    assert list(cvdmade.groups('{"groups": null}')) == []


KEYS = st.sampled_from(["groups", "instances", "group_name", "adb_port", "adb_serial", "1", "gpu_mode"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.text(max_size=20))
def test_whatever_cvd_says_is_no_traceback(document: object, garbage: str) -> None:
    for text in (json.dumps(document), garbage, json.dumps(FLEET)[: len(garbage) * 4]):
        list(cvdmade.groups(text))
