"""crosvm's list of displays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.control.displays import Display
from cfctl.launch import display

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_what_crosvm_prints() -> None:
    # Constructed after vm_control.md section 1.3.
    printed = {
        "displays": {
            "10": {"mode": {"windowed": [640, 480]}, "hidden": False, "refresh-rate": 30, "dpi": [160, 160]},
            "0": {"mode": {"windowed": [1280, 800]}, "hidden": False, "refresh-rate": 60, "dpi": [320, 320]},
            "2": {"mode": "fullscreen"},
        }
    }
    assert display.parse(json.dumps(printed, indent=2)) == [
        Display(0, 1280, 800, 320, 60),
        Display(2, None, None, None, None),
        Display(10, 640, 480, 160, 30),
    ]


@pytest.mark.parametrize(
    "raw", ["", "error: no control socket", "[]", "{}", '{"displays": []}', '{"displays": {"x": 1}}']
)
def test_what_is_no_list(raw: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        display.parse(raw)


@given(st.dictionaries(st.integers(0, 20).map(str) | st.text(max_size=3), JSON, max_size=4))
def test_whatever_is_printed(displays: dict[str, Any]) -> None:
    try:
        found = display.parse(json.dumps({"displays": displays}))
    except ValueError:
        return
    assert len(found) == len(displays)
