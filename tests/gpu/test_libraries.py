"""Which libraries and drivers can be loaded: the real child, and children that end in every way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import distro
from cfctl.gpu import probe as prober
from cfctl.gpu.child import Ended
from cfctl.gpu.libraries import understand


def line(name: str, state: str, error: str | None = None, what: str = "library") -> str:
    return json.dumps({"what": what, "name": name, "library": name, "state": state, "error": error}) + "\n"


def test_loaded_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distro, "is_debian_like", lambda: True)
    text = line("libEGL.so.1", "loading") + line("libEGL.so.1", "loaded")
    text += line("libvulkan.so.1", "loading") + "MESA: noise\n" + line("libvulkan.so.1", "missing", "no such file")
    egl, vulkan = understand(Ended(None, 0, text))
    assert (egl.error, egl.help) == (None, None)
    assert vulkan.error == "no such file"
    assert vulkan.help == "apt-get install --no-install-recommends libvulkan1"
    assert vulkan.needed


@pytest.mark.parametrize(
    ("name", "debian", "rpm"),
    [
        ("libEGL.so.1", "libegl1", "libglvnd-egl"),
        ("libGLESv2.so.2", "libgles2", "libglvnd-gles"),
        ("libvulkan.so.1", "libvulkan1", "vulkan-loader"),
        ("libgbm.so.1", "libgbm1", "mesa-libgbm"),
        ("libGL.so.1", "libgl1", "libglvnd-glx"),
    ],
)
def test_the_package_of_each_distribution(monkeypatch: pytest.MonkeyPatch, name: str, debian: str, rpm: str) -> None:
    for is_debian, package in ((True, debian), (False, rpm)):
        monkeypatch.setattr(distro, "is_debian_like", lambda is_debian=is_debian: is_debian)
        (found,) = understand(Ended(None, 0, line(name, "missing", "x")))
        assert (found.help or "").endswith(f" {package}")


def test_a_driver_that_crashes_has_a_name() -> None:
    text = line("libEGL.so.1", "loaded") + line("/etc/vulkan/icd.d/bad.json", "loading", what="vulkan driver")
    _, bad = understand(Ended("crashed: signal 11 (SIGSEGV)", 0, text))
    assert bad.error == "the program that loads it crashed: signal 11 (SIGSEGV)"


@given(st.text(max_size=100) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps))
def test_whatever_the_child_prints(text: str) -> None:
    assert understand(Ended(None, 0, text)) is not None


def test_the_real_child_with_a_manifest_of_every_kind(tmp_path: Path) -> None:
    manifests = {
        "good.json": json.dumps({"ICD": {"library_path": "libc.so.6"}}),
        "gone.json": json.dumps({"ICD": {"library_path": "./libgone.so"}}),
        "deep.json": "[" * 100_000,
        "odd.json": json.dumps({"ICD": []}),
        "none.json": "\xff",
    }
    for name, text in manifests.items():
        (tmp_path / name).write_text(text)
    files = ":".join(str(tmp_path / name) for name in (*manifests, "missing.json"))
    found = {
        Path(item.name).name: item
        for item in prober.libraries(env={"VK_DRIVER_FILES": files})
        if item.what == "vulkan driver"
    }
    assert set(found) == {*manifests, "missing.json"}
    assert [name for name, item in found.items() if item.error is None] == ["good.json"]
    assert str(tmp_path / "libgone.so") in (found["gone.json"].error or "")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import os\nos.kill(os.getpid(), 11)", "crashed: signal 11 (SIGSEGV)"),
        ("import time\ntime.sleep(1000)", "hangs: it gave no answer within 3 s"),
    ],
)
def test_a_child_that_does_not_come_back(tmp_path: Path, script: str, error: str) -> None:
    announced = line("libX.so", "loading").strip()
    program = tmp_path / "ask.py"
    program.write_text(f"print({announced!r}, flush=True)\n{script}\n")
    (found,) = prober.libraries(program=program, deadline=3.0 if "sleep" in script else 60.0)
    assert found.error == f"the program that loads it {error}"
