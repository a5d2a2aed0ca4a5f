from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from pathlib import Path

import pytest

from cfctl.errors import NoSuchDevice
from cfctl.launch import clean, procs, registry
from tests.launch import devices


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path))
    return tmp_path


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(NoSuchDevice):
        clean.find(["phone"])


def test_old_directories_that_killed_verbs_left(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = state / "devices"
    for name in (".new-phone-1", ".removed-phone-1/cuttlefish", "unmarked", "phone"):
        (places / name).mkdir(parents=True)
    (places / "phone/.device.json-1").write_text("{")
    assert list(clean._directories()) == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with registry.held_if_free(".removed-phone-1"):
        assert ".removed-phone-1" not in [left.path.name for left in clean._directories() if left.path]
    found = list(clean._directories())
    assert [left.path.name for left in found if left.path] == [".new-phone-1", ".removed-phone-1", ".device.json-1"]
    for left in found:
        assert clean.remove(left) == []
    assert sorted(path.name for path in places.iterdir()) == ["phone", "unmarked"]
    assert list((places / "phone").iterdir()) == []


@pytest.mark.parametrize(("restart", "told"), [("no", False), ("on-failure", True), ("always", True)])
def test_a_device_that_would_have_come_back(restart: str, told: bool) -> None:
    record = devices.record(restart=restart, started_at="2026-01-01T00:00:00Z", booted_at="2026-01-01T00:00:05Z")
    registry.create(record)
    (left,) = clean.find(["phone"])
    assert ("not --restart but cfctl restart phone boots it again" in left.reason) is told


def test_helpers_that_have_the_ids_of_dead_ones(tmp_path: Path) -> None:
    """What was found is ended, and not what was given its id while somebody was asked."""
    helper = tmp_path / "modem_simulator"
    helper.symlink_to("/bin/sleep")
    env = {"HOME": str(tmp_path), "CUTTLEFISH_INSTANCE": "128"}
    with subprocess.Popen([helper, "600"], env=env) as process:
        procs.await_environment(process.pid)
        [found] = [left for left in clean._helpers([], [], procs.Look()) if process.pid in left.pids]
        assert [named.partition("/")[0] for named in found.born] == [str(process.pid)]
        reused = dataclasses.replace(found, born=(f"{process.pid}/1",))
        assert clean.remove(reused) == []
        assert process.poll() is None
        assert clean.remove(found) == []
        assert process.wait(60) != 0


# A short name: it is part of the socket's path, which must fit into 107 bytes.
def test_what_came_to_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from cfctl import paths

    monkeypatch.setattr(paths, "sockets_root", lambda: tmp_path)
    place = tmp_path / f"cf_avd_{os.geteuid()}" / "cvd-9"
    place.mkdir(parents=True)
    left = clean.Leftover("sockets", "x", "y", path=place)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "launcher_monitor.sock"))
        server.listen()
        assert clean.remove(left) == [f"{place} is in use by now, and was left alone."]
    assert clean.remove(left) == []
    assert list(tmp_path.iterdir()) == [], "the directory above is removed with the last one in it"
