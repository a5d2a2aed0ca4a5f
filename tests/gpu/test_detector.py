"""The host package's graphics_detector: programs that answer as upstream's does, and programs that do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.gpu import decide, detector, report
from cfctl.gpu import probe as prober
from cfctl.gpu.child import Ended
from cfctl.gpu.detector import Detection, understand, weigh
from cfctl.gpu.drivers import Egl, Vulkan
from cfctl.gpu.probe import Probe
from tests.gpu.machines import ALL, MODERN
from tests.gpu.test_probe import says

#: CONSTRUCTED from gpu.md section 4 (gfxstream.proto); strings as NVIDIA's driver gives them.
NVIDIA = """\
egl {
  vendor: "NVIDIA"
  version: "1.5"
  extensions: "EGL_KHR_surfaceless_context"
  gles2_availability { vendor: "NVIDIA Corporation" version: "OpenGL ES 3.2 NVIDIA 550.54.14"
    renderer: "NVIDIA A40/PCIe/SSE2" extensions: "GL_EXT_a" }
  gles3_availability { vendor: "NVIDIA Corporation" version: "OpenGL ES 3.2 NVIDIA 550.54.14"
    renderer: "NVIDIA A40/PCIe/SSE2" extensions: "GL_EXT_a" }
}
vulkan {
  instance_extensions: "VK_KHR_surface"
  physical_devices {
    name: "NVIDIA A40"
    type: TYPE_DISCRETE_GPU
    quirks { has_issue_with_precision_qualifiers_on_yuv_samplers: true }
    queue_families { supports_graphics: true queue_count: 16 }
  }
}
vulkan_loader_available: true
"""

#: CONSTRUCTED likewise: a machine without a GPU and with Mesa.
LLVMPIPE = """\
egl { gles3_availability { vendor: "Mesa" renderer: "llvmpipe (LLVM 15.0.6, 256 bits)" version: "OpenGL ES 3.2" } }
vulkan { physical_devices { name: "llvmpipe (LLVM 15.0.6, 256 bits)" type: TYPE_OTHER } }
vulkan_loader_available: true
"""

#: CONSTRUCTED likewise: one check crashed in its child.
CRASHED = """\
errors: "Graphics check failure for PopulateVulkanAvailability: killed by signal 11"
egl { gles2_availability { vendor: "NVIDIA Corporation" renderer: "NVIDIA A40/PCIe/SSE2" } }
vulkan_loader_available: true
"""


def said(text: str) -> Detection:
    return understand("graphics_detector", Ended(None, 0, text))


def probed(machine: str, detection: Detection) -> Probe:
    """Return a machine with that detector's word weighed in."""
    own = ALL[machine]
    weighed = weigh(own.vulkan, own.egl, detection)
    return replace(own, vulkan=weighed.vulkan, egl=weighed.egl, detection=detection, differences=weighed.findings)


def test_an_answer() -> None:
    found = said(NVIDIA)
    assert found.problem is None
    assert found.devices == (("NVIDIA A40", True),)
    assert found.gles == (("NVIDIA Corporation", "NVIDIA A40/PCIe/SSE2", "OpenGL ES 3.2 NVIDIA 550.54.14"),)
    assert (found.vulkan, found.loader, found.errors) == (True, True, ())


def test_two_witnesses_that_agree() -> None:
    found = probed("headless nvidia", said(NVIDIA))
    assert found.differences == ()
    assert decide.decide(found, guest=MODERN).mode == "gfxstream"


def test_the_detector_helps_where_our_own_probe_crashed() -> None:
    found = probed("both drivers hang", said(NVIDIA))
    decision = decide.decide(found, guest=MODERN)
    assert decision.mode == "gfxstream"
    assert (
        "the host package's graphics_detector sees NVIDIA A40 in Vulkan; the Vulkan driver hangs"
        in (found.differences[0])
    )
    assert found.differences[0] in report.findings(found)


def test_what_the_package_s_programs_cannot_use_does_not_count() -> None:
    found = probed("headless nvidia", said(CRASHED))
    decision = decide.decide(found, guest=MODERN)
    assert decision.mode == "drm_virgl"
    assert "the host package's graphics_detector makes no Vulkan instance" in decision.reason
    assert found.differences[0] == "Graphics check failure for PopulateVulkanAvailability: killed by signal 11"
    assert "though cfctl sees llvmpipe (LLVM 15.0.6, 256 bits), NVIDIA A40" in found.differences[1]


def test_no_loader_for_the_package() -> None:
    found = probed("headless nvidia", said(NVIDIA[: NVIDIA.index("vulkan {")]))
    assert "cannot load libvulkan.so.1" in (found.vulkan.problem or "")


def test_no_opengl_for_the_package() -> None:
    found = probed("headless nvidia", said(NVIDIA[NVIDIA.index("vulkan {") :]))
    decision = decide.decide(found, guest=MODERN)
    assert decision.mode == "guest_swiftshader"
    assert "nothing draws OpenGL ES: the host package's graphics_detector gets no OpenGL ES" in decision.reason


def test_a_detector_on_the_cpu_does_not_hide_the_gpu() -> None:
    # It looks at one display, and a server with Mesa beside NVIDIA's driver has two.
    found = probed("headless nvidia", said(LLVMPIPE))
    assert decide.decide(found, guest=MODERN).mode == "gfxstream"
    found = probed("intel igpu", said(LLVMPIPE))
    assert "draws OpenGL ES with llvmpipe" in found.differences[-1]


def test_a_device_of_which_only_the_name_is_known_is_no_gpu() -> None:
    own = ALL["intel igpu"]
    weighed = weigh(
        Vulkan(problem="crashed"), own.egl, said(LLVMPIPE.replace("llvmpipe (LLVM 15.0.6, 256 bits)", "X1"))
    )
    decision = decide.decide(replace(own, vulkan=weighed.vulkan, egl=weighed.egl), guest=MODERN)
    assert decision.mode == "drm_virgl"
    assert "nothing but a name is known of the Vulkan device X1" in decision.reason


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Ended("crashed: signal 11 (SIGSEGV)"), "graphics_detector crashed: signal 11 (SIGSEGV)"),
        (Ended("hangs: it gave no answer within 20 s"), "graphics_detector hangs: it gave no answer within 20 s"),
        (Ended(None, 1, "no such file\n"), "graphics_detector ended with status 1: no such file"),
        (Ended(None, 0, ""), "graphics_detector gave no answer"),
        (Ended(None, 0, "{]"), "graphics_detector gave an answer that cannot be understood: line 1"),
    ],
)
def test_no_answer_leaves_our_own(ended: Ended, problem: str) -> None:
    found = probed("headless nvidia", understand("/p/graphics_detector", ended))
    assert found.differences[0].startswith(problem)
    assert found.differences[0].endswith("(/p/graphics_detector); cfctl's own probe counts")
    assert decide.decide(found, guest=MODERN).mode == "gfxstream"


WORDS = 'egl vulkan physical_devices gles2_availability name: type: TYPE_DISCRETE_GPU errors: "x" true'
PARTS = st.sampled_from([*"{}[]\n", *WORDS.split()])


@given(st.text(max_size=100) | st.lists(PARTS, max_size=30).map(" ".join))
def test_whatever_a_detector_prints(text: str) -> None:
    found = probed("headless nvidia", said(text))
    assert decide.decide(found, guest=MODERN).mode


# -- as programs ------------------------------------------------------------------------------------------


def program(directory: Path, script: str) -> Path:
    path = directory / "bin/graphics_detector"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def ask(directory: Path, path: Path, *, deadline: float = 15.0) -> Probe:
    silent = {"library": True, "devices": [], "displays": [], "error": "nothing"}
    programs = {"Vulkan": directory / "vulkan.py", "EGL": directory / "egl.py"}
    for file in programs.values():
        file.write_text(says(silent))
    return prober.probe(directory, programs=programs, graphics_detector=path, deadline=deadline)


def test_a_program_that_answers(tmp_path: Path) -> None:
    found = ask(tmp_path, program(tmp_path, f"cat <<'END'\n{NVIDIA}END"))
    assert decide.decide(found, guest=MODERN).mode == "gfxstream"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("kill -SEGV $$", "graphics_detector crashed: signal 11 (SIGSEGV)"),
        ("sleep 1000", "graphics_detector hangs: it gave no answer within "),
        ("head -c 100000 /dev/urandom", "graphics_detector gave an answer that cannot be understood"),
        ("yes egl", "graphics_detector printed more than 4 MiB"),
        ("exec /no/such/program", "graphics_detector ended with status 127"),
    ],
)
def test_programs_that_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str) -> None:
    # The detector gets what this is above the drivers' own deadline.
    monkeypatch.setattr(detector, "DEADLINE_S", prober.DEADLINE_S + (2 if "sleep" in script else 60))
    found = ask(tmp_path, program(tmp_path, script), deadline=1.0 if "sleep" in script else 60.0)
    assert found.detection is not None
    assert (found.detection.problem or "").startswith(problem)
    assert found.egl == Egl(problem="nothing")


def test_a_program_for_another_processor(tmp_path: Path) -> None:
    path = tmp_path / "graphics_detector"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    path.chmod(0o755)
    detection = ask(tmp_path, path).detection
    assert detection is not None
    assert (detection.problem or "").startswith("graphics_detector cannot be started: ")


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "UPSTREAM_PROGRAMS", tmp_path / "common")
    assert detector.find(None) is None
    assert detector.find(tmp_path) is None
    newer = tmp_path / "bin/aarch64-linux-gnu/gfxstream_graphics_detector"
    newer.parent.mkdir(parents=True)
    newer.touch()
    assert detector.find(tmp_path) == newer
    assert detector.find(tmp_path / "another") is None
    assert detector.find(program(tmp_path, "").parent.parent) == tmp_path / "bin/graphics_detector"
    (tmp_path / "common").mkdir()
    (tmp_path / "common/graphics_detector").touch()
    assert detector.find(None) == tmp_path / "common/graphics_detector"
