"""Which Python the streamer runs on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cfctl.guest import streaming


def test_the_launching_cfctl_says_it_and_else_the_package(tmp_path: Path) -> None:
    assert streaming.interpreter(tmp_path, {}) is None
    about = tmp_path / streaming.MARKER
    about.parent.mkdir()
    about.write_text(json.dumps({streaming.RECORDED: sys.executable}))
    assert streaming.interpreter(tmp_path, {}) == sys.executable
    assert streaming.interpreter(tmp_path, {streaming.PYTHON: "/opt/python"}) == "/opt/python"
    # -- one that was moved away, or that another host has
    for recorded in ("/no/python", 7, None):
        about.write_text(json.dumps({streaming.RECORDED: recorded}))
        assert streaming.interpreter(tmp_path, {}) is None
