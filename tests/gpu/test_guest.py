"""What images say about themselves, in both files, and what happens with files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.gpu import decide, guest
from cfctl.gpu.guest import Guest
from tests.gpu.machines import ALL

#: CONSTRUCTED from gpu.md section 2.3 (keys) and launcher.md (the line ``config=``).
INFO = """\
config=phone
gfxstream=supported
gfxstream_gl_program_binary_link_status=supported
vhost_user_vsock=true
"""

#: CONSTRUCTED from gpu.md section 2.3 (fields and enum values).
CONFIG = """\
# a comment
graphics {
  gfxstream_supported: true
  prefer_drm_virgl_when_supported: false
  gpu_mode_candidates: GPU_MODE_GFXSTREAM_GUEST_ANGLE
  gpu_mode_candidates: GPU_MODE_GUEST_SWIFTSHADER
  something_new { of: "tomorrow" }
}
"""


def read(directory: Path, *, info: str | None = None, config: str | None = None) -> Guest:
    for name, text in ((guest.INFO, info), (guest.CONFIG, config)):
        if text is not None:
            (directory / name).write_text(text)
    return guest.read(directory)


def test_android_info(tmp_path: Path) -> None:
    found = read(tmp_path, info=INFO)
    assert found == Guest(source=str(tmp_path / "android-info.txt"), known=True, gfxstream=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gfxstream=unsupported\n", Guest()),
        ("gfxstream\n", Guest()),
        ("", Guest()),
        ("gfxstream=supported\ngfxstream=no\n", Guest()),
        (" gfxstream = supported \r\n", Guest(gfxstream=True)),
        ("vulkan_gfxstream_apex=supported", Guest(gfxstream=True)),
        ("vulkan_lavapipe_apex=supported", Guest(lavapipe=True)),
        ("prefer_drm_virgl_when_supported=true", Guest(prefer_virgl=True)),
        ("gpu_mode_candidates=gfxstream,none", Guest(candidates=("gfxstream", "none"))),
    ],
)
def test_keys(tmp_path: Path, text: str, expected: Guest) -> None:
    found = read(tmp_path, info=text)
    assert found.known
    assert (found.gfxstream, found.lavapipe, found.prefer_virgl, found.candidates) == (
        expected.gfxstream,
        expected.lavapipe,
        expected.prefer_virgl,
        expected.candidates,
    )


def test_the_newer_file_counts_alone(tmp_path: Path) -> None:
    found = read(tmp_path, info="vulkan_lavapipe_apex=supported\n", config=CONFIG)
    assert (found.gfxstream, found.lavapipe, found.problem) == (True, False, None)
    assert found.candidates == ("gfxstream_guest_angle", "guest_swiftshader")
    assert found.source.endswith("cuttlefish-guest-config.txtpb")


def test_no_file(tmp_path: Path) -> None:
    assert guest.read(tmp_path) == guest.UNKNOWN
    assert guest.read(tmp_path / "missing") == guest.UNKNOWN


def test_candidates_that_are_no_modes_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, info="gpu_mode_candidates=auto,gfxstream,fast\n")
    assert found.candidates == ("gfxstream",)
    assert (found.problem or "").endswith("wants GPU modes that do not exist: auto, fast")


@pytest.mark.parametrize(
    "text", ["graphics {", "graphics }", "graphics: [", '"', "a" * (2 << 20), "graphics {" * 1000]
)
def test_a_damaged_description_is_a_problem(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, config=text)
    assert not found.known
    assert found.problem
    assert found.source in found.problem
    assert decide.decide(ALL["headless nvidia"], guest=found).mode == "guest_swiftshader"


def test_a_directory_in_its_place_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / guest.INFO).mkdir()
    assert "cannot be read" in (guest.read(tmp_path).problem or "")


WORDS = st.sampled_from(
    [
        "graphics",
        "gfxstream_supported",
        "gpu_mode_candidates",
        "{",
        "}",
        "[",
        "]",
        ":",
        "true",
        '"x',
        '"',
        "\\",
        "<",
        ",",
    ]
)
KEYS = st.sampled_from(["gfxstream", "gpu_mode_candidates", "cfctl_gpu_modes", "=", "supported", ",", "auto", "\n"])


@given(data=st.binary(max_size=200) | st.lists(WORDS | KEYS, max_size=30).map(lambda words: " ".join(words).encode()))
def test_whatever_the_files_hold(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in (guest.INFO, guest.CONFIG):
        directory = tmp_path_factory.mktemp("images")
        (directory / name).write_bytes(data)
        found = guest.read(directory)
        assert found.known or found.problem
        for vm_manager in (decide.CROSVM, decide.QEMU, decide.GEM5):
            assert decide.decide(ALL["headless nvidia"], guest=found, vm_manager=vm_manager).mode
