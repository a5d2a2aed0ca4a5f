"""Where everything lives, as root and as a user."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cfctl import paths

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take away every variable that has a say."""
    for name in os.environ:
        if name.startswith(("XDG_", "CFCTL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/home/ann")
    return monkeypatch


def test_root(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(os, "geteuid", lambda: 0)
    found = paths.current()
    assert found.config_file == Path("/etc/cfctl/config.toml")
    assert found.devices == Path("/var/lib/cfctl/devices")
    assert found.host_packages == Path("/var/cache/cfctl/host-packages")
    assert found.guest_images == Path("/var/cache/cfctl/guest")
    assert found.host_lock == Path("/run/cfctl/host.lock")
    assert found.watcher_lock == Path("/run/cfctl/watcher.lock")
    assert found.host_runtime == Path("/run/cfctl/host")


def test_user(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(os, "geteuid", lambda: 1000)
    clean.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    found = paths.current()
    assert found.config == Path("/home/ann/.config/cfctl")
    assert found.state == Path("/home/ann/.local/state/cfctl")
    assert found.cache == Path("/home/ann/.cache/cfctl")
    assert found.runtime == Path("/run/user/1000/cfctl")


def test_user_without_a_login_session(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(os, "geteuid", lambda: 1000)
    assert paths.current().runtime == Path("/home/ann/.cache/cfctl")


@pytest.mark.parametrize("name", ["config", "state", "cache"])
def test_xdg(clean: pytest.MonkeyPatch, name: str) -> None:
    clean.setattr(os, "geteuid", lambda: 1000)
    clean.setenv(f"XDG_{name.upper()}_HOME", "/elsewhere")
    assert getattr(paths.current(), name) == Path("/elsewhere/cfctl")
    # The specification: a relative path is to be ignored.
    clean.setenv(f"XDG_{name.upper()}_HOME", "elsewhere")
    assert getattr(paths.current(), name).is_relative_to("/home/ann")


@pytest.mark.parametrize("name", ["config", "state", "cache", "runtime"])
@pytest.mark.parametrize("euid", [0, 1000])
def test_overrides(clean: pytest.MonkeyPatch, name: str, euid: int) -> None:
    clean.setattr(os, "geteuid", lambda: euid)
    clean.setenv(f"CFCTL_PATHS_{name.upper()}", "/mine")
    assert getattr(paths.current(), name) == Path("/mine")


def test_upstream_files() -> None:
    assert paths.dnsmasq_pid_file("cvd-ebr") == Path("/run/cuttlefish-dnsmasq-cvd-ebr.pid")
    assert paths.dnsmasq_lease_file("cvd-wbr") == Path("/run/cuttlefish-dnsmasq-cvd-wbr.leases")


def test_lock_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert paths.instance_lock_directories() == [
        Path("/var/tmp/cvd/lock"),
        Path("/tmp/cvd/lock"),
        Path("/scratch/acloud_cvd_temp"),
    ]


def test_nothing_else_builds_a_path_of_ours() -> None:
    ours = re.compile(r"[\"'](/etc/cfctl|/var/lib/cfctl|/var/cache/cfctl|/run/cfctl|/run/cuttlefish-dnsmasq)")
    guilty = [
        file.relative_to(REPO)
        for file in (REPO / "cfctl").rglob("*.py")
        if file.name != "paths.py" and ours.search(file.read_text())
    ]
    assert guilty == []
