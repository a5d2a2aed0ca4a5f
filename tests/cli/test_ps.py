from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.cli import progress, ps
from cfctl.launch.foreign import Foreign
from cfctl.launch.observe import State
from cfctl.launch.procs import Usage
from cfctl.launch.runtime_config import InstanceConfig, RuntimeConfig


def device(name: str = "phone", state: State = State.RUNNING, **more: object) -> Foreign:
    config = RuntimeConfig(None, None, {1: InstanceConfig(gpu_mode="gfxstream_guest_angle_host_swiftshader")})
    fields = {"source": "launch_cvd", "uid": 0, "home": "/x", "numbers": (1, 2), "config": config} | more
    return Foreign(name, state, **fields)  # type: ignore[arg-type]


def test_no_devices() -> None:
    assert ps.table([], None) == ["There are no devices. Boot one with: cfctl launch"]


def test_the_whole_table_where_nobody_counts_columns() -> None:
    header, row = ps.table([device(usage=Usage("", 3725.0, 2050)).as_dict()], None)
    assert header.split() == ["NAME", "STATE", "GPU", "ADB", "UPTIME", "MEMORY", "OWNER", "BY"]
    assert re.split(" {2,}", row) == [
        "phone",
        "running",
        "gfxstream_guest_angle_host_swiftshader",
        "127.0.0.1:6520 +1",
        "1h02m",
        "2.0 GB",
        "root",
        "launch_cvd",
    ]


def test_a_device_in_a_container() -> None:
    document = device(source="cfctl", numbers=(1,)).as_dict()
    document |= {"runtime": "docker", "container": "box", "instances": [{**document["instances"][0], "adb": None}]}
    row = re.split(" {2,}", ps.table([document], None)[1])
    assert (row[3], row[-1]) == ("not published", "cfctl, in container box")


@given(st.integers(1, 200), st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=63))
def test_no_line_is_wider_than_the_terminal(width: int, name: str) -> None:
    devices = [device(name, state).as_dict() for state in State]
    lines = ps.table(devices, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == len(devices) + 1


def test_the_longest_names_fit_into_100_columns_with_what_matters() -> None:
    lines = ps.table([device("x" * 63, State.UNREACHABLE, usage=Usage("", 1e6, 99_999)).as_dict()], 100)
    assert max(map(len, lines)) <= 100
    for part in ("unreachable", "127.0.0.1:6520 +1", "11d13h", "97.7 GB", "root", "launch_cvd"):
        assert part in lines[1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.0, "0s"), (59.9, "59s"), (61, "1m01s"), (7260, "2h01m"), (90000, "1d01h")]
)
def test_uptime(seconds: float | None, text: str) -> None:
    assert ps.uptime(seconds) == text


def test_notes_keep_their_lines_and_indentation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    progress.Terminal().note("first\n  alive: run_cvd, crosvm, log_tee\n\nlast")
    said = capsys.readouterr().err.replace("\r\x1b[K", "")
    assert said == "first\n  alive: run_cvd,\n  crosvm, log_tee\n\nlast\n"


def test_phases_say_what_they_took(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = progress.Plain()
    reporter.phase("host", "checking the host", 0.0)
    reporter.phase("vm", "VM process started", 1.0, took=1.0)
    reporter.phase("kernel", "kernel running", 1.5, took=0.5, typical=0.44)
    assert capsys.readouterr().err.splitlines() == [
        "    0.0 s  host        checking the host",
        "    1.0 s  vm          VM process started  (+1.0 s)",
        "    1.5 s  kernel      kernel running  (+0.5 s, typically 0.4 s)",
    ]


@pytest.mark.parametrize(("takes", "rests"), [(0.1, 1.0), (5.0, 15.0)])
def test_who_watches_leaves_the_host_time_for_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], takes: float, rests: float
) -> None:
    now = 100.0
    slept: list[float] = []

    def ask() -> list[dict[str, Any]]:
        nonlocal now
        now += takes
        return []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(ps, "_everything", ask)
    monkeypatch.setattr(ps, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with pytest.raises(KeyboardInterrupt):
        ps.ps(watch=True, json_=True)
    assert slept == [pytest.approx(rests)]
    assert capsys.readouterr().out
