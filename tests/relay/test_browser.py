"""Opening a link: only where somebody sits, and without telling the code to everybody on the machine."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from cfctl.relay import browser
from tests.relay.relays import PATIENCE_S

URL = "http://127.0.0.1:8443/enter#code=a-b_c&device=phone%2F2"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file in which a stand-in for xdg-open writes what it was called with."""
    told = tmp_path / "told"
    program = tmp_path / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{told}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CFCTL_PATHS_RUNTIME", str(tmp_path / "run"))
    return told


def test_the_browser_is_given_a_private_file_and_no_code(told: Path) -> None:
    for _ in range(2):
        assert browser.show(URL).wait(PATIENCE_S) == 0
        (word,) = told.read_text().splitlines()
        file = Path(word)
        assert "code=" not in word
        assert file.stat().st_mode & 0o777 == 0o600
        leads = re.search(r'content="0; url=([^"]*)"', file.read_text())
        assert leads
        assert html.unescape(leads[1]) == URL


def test_a_link_at_its_place_is_not_followed(told: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/open.html").symlink_to(tmp_path / "elsewhere")
    assert browser.show(URL).wait(PATIENCE_S) == 0
    assert told.exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("environ", "uid", "wanted"),
    [
        ({"DISPLAY": ":0"}, 1000, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, 1000, True),
        ({}, 1000, False),
        ({"DISPLAY": ""}, 1000, False),
        ({"DISPLAY": ":0"}, 0, False),
    ],
)
def test_where_a_browser_is_opened(environ: dict[str, str], uid: int, wanted: bool) -> None:
    assert browser.graphical(environ, uid) is wanted


def test_nothing_is_opened_where_nothing_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cfctl.process._SBIN", ())
    assert not browser.graphical({"DISPLAY": ":0"}, 1000)
